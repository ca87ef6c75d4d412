"""Being told of refreshes, and stopping them all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.process import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

GROUPS = "SELECT g, count(*) AS n FROM t GROUP BY g"
SUBSCRIBE = "SELECT pgtrickle.subscribe(%s, %s)"


@pytest.fixture
def source(db: Connection) -> Connection:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, g int)")
    db.execute("INSERT INTO t SELECT n, n % 3 FROM generate_series(1, 9) AS n")
    return db


Heard = Callable[[], list[tuple[str, dict[str, Any]]]]


@pytest.fixture
def heard(database: Any) -> Heard:
    """What a session that listens on two channels was told since it was last asked."""
    conn: Connection = database.connect()
    told: list[psycopg.Notify] = []
    conn.add_notify_handler(told.append)
    conn.execute('LISTEN news; LISTEN "Odd one"')

    def heard() -> list[tuple[str, dict[str, Any]]]:
        # With the answer to a statement comes whatever was committed before it.
        conn.execute("SELECT")
        found = [(one.channel, json.loads(one.payload)) for one in told]
        told.clear()
        return found

    return heard


@pytest.mark.versions
def test_each_refresh_that_changes_something_is_told(source: Connection, heard: Heard) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None)
    source.execute(SUBSCRIBE, ("st", "news"))
    source.execute(SUBSCRIBE, ("st", "Odd one"))
    listed = source.execute("SELECT stream_table, channel::text FROM pgtrickle.list_subscriptions()").fetchall()
    assert listed == [("public.st", "Odd one"), ("public.st", "news")]
    pg_trickle.refresh_stream_table(source, "st")
    assert heard() == [], "nothing has changed"
    source.execute("INSERT INTO t VALUES (10, 7), (11, 7)")
    pg_trickle.refresh_stream_table(source, "st")
    told = dict(heard())
    assert set(told) == {"news", "Odd one"}
    moment = told["news"].pop("data_timestamp")
    assert source.execute("SELECT %s::timestamptz <= now()", (moment,)).fetchone() == (True,)
    expected = {"stream_table": "public.st", "refresh_mode": "DIFFERENTIAL", "initiated_by": "MANUAL"}
    assert told["news"] == {**expected, "rows_in": 2, "rows_out": 1}
    with source.transaction(force_rollback=True):
        source.execute("INSERT INTO t VALUES (12, 8)")
        pg_trickle.refresh_stream_table(source, "st")
    assert heard() == [], "what is rolled back hasn't happened"
    source.execute("SELECT pgtrickle.unsubscribe('st', 'news')")
    source.execute("DELETE FROM t WHERE g = 1")
    pg_trickle.refresh_stream_table(source, "st")
    assert [channel for channel, _ in heard()] == ["Odd one"]
    pg_trickle.drop_stream_table(source, "st")
    assert source.execute("SELECT * FROM pgtrickle.list_subscriptions()").fetchall() == []


def test_the_worker_tells_too(source: Connection, heard: Heard, worker: Any) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS)
    source.execute(SUBSCRIBE, ("st", "news"))
    source.execute("DELETE FROM t")
    told: list[tuple[str, dict[str, Any]]] = []

    def is_told() -> bool:
        told.extend(heard())
        return told != []

    worker.wait_for(is_told)
    assert told[0][1]["initiated_by"] == "SCHEDULER"


def test_subscriptions_that_make_no_sense_are_refused(source: Connection) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None)
    for channel in ("", None, "x" * 64):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            source.execute(SUBSCRIBE, ("st", channel))
    source.execute(SUBSCRIBE, ("st", "news"))
    with pytest.raises(psycopg.errors.DuplicateObject):
        source.execute(SUBSCRIBE, ("st", "news"))
    with pytest.raises(psycopg.errors.UndefinedObject):
        source.execute("SELECT pgtrickle.unsubscribe('st', 'olds')")
    with pytest.raises(psycopg.errors.UndefinedTable):
        source.execute(SUBSCRIBE, ("t", "news"))


@pytest.mark.versions
def test_drained_the_worker_refreshes_nothing_until_it_may(
    source: Connection, worker: Any, assert_fresh: Oracle
) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS)
    worker.wait_until_idle()
    assert source.execute("SELECT pgtrickle.is_drained(), pgtrickle.drain(), pgtrickle.is_drained()").fetchone() == (
        False,
        True,
        True,
    )
    last = "SELECT coalesce(max(refresh_id), 0) FROM pgtrickle.pgt_refresh_history"
    before = source.execute(last).fetchone()
    source.execute("INSERT INTO t VALUES (10, 7)")
    assert not wait_until(lambda: source.execute(last).fetchone() != before, 2)
    health = "SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'worker_running'"
    assert source.execute(health).fetchone() == ("WARN",)
    pg_trickle.refresh_stream_table(source, "st")
    assert_fresh(source, "st")
    source.execute("INSERT INTO t VALUES (11, 7)")
    source.execute("SELECT pgtrickle.undrain()")
    worker.wait_for(lambda: source.execute("SELECT n FROM st WHERE g = 7").fetchone() == (2,))
    assert source.execute("SELECT pgtrickle.is_drained()").fetchone() == (False,)


def test_draining_waits_for_what_is_under_way(source: Connection, database: Any) -> None:
    """A refresh by the worker's role, whose transaction is held open."""
    pg_trickle.create_stream_table(source, "st", GROUPS)
    busy = database.connect("pgtrickle_worker", autocommit=False)
    busy.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    busy.execute("SELECT pgtrickle_changes.worker_refresh('{1}', 'SCHEDULER')")
    assert source.execute("SELECT pgtrickle.drain(0), pgtrickle.is_drained()").fetchone() == (False, False)
    busy.commit()
    assert source.execute("SELECT pgtrickle.is_drained(), pgtrickle.drain(5)").fetchone() == (True, True)
    busy.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    (result,) = busy.execute("SELECT pgtrickle_changes.worker_refresh('{1}', 'SCHEDULER')").fetchone() or ([],)
    assert result[0]["skipped"] == "drained"
    busy.rollback()


GATES = "SELECT source_table, gated_by::text FROM pgtrickle.source_gates()"


@pytest.mark.versions
def test_behind_a_gate_the_worker_leaves_alone_what_reads_it(
    source: Connection, worker: Any, assert_fresh: Oracle
) -> None:
    source.execute("CREATE TABLE other (id int)")
    pg_trickle.create_stream_table(source, "st", GROUPS)
    pg_trickle.create_stream_table(source, "above", "SELECT sum(n) AS n FROM st")
    pg_trickle.create_stream_table(source, "beside", "SELECT id FROM other")
    source.execute("SELECT pgtrickle.gate_source('t'), pgtrickle.gate_source('public.t')")
    assert source.execute(GATES).fetchall() == [("public.t", "postgres")]
    worker.wait_until_idle()
    source.execute("INSERT INTO t SELECT n, 7 FROM generate_series(10, 19) AS n")
    source.execute("INSERT INTO other VALUES (1)")
    worker.wait_for(lambda: source.execute("TABLE beside").fetchall() == [(1,)])
    worker.wait_until_idle()
    assert source.execute("SELECT n FROM above").fetchone() == (9,)
    status = "SELECT status FROM pgtrickle.pgt_status() WHERE name = 'public.st'"
    assert source.execute(status).fetchone() == ("ACTIVE",)
    source.execute("SELECT pgtrickle.ungate_source('t')")
    worker.wait_for(lambda: source.execute("SELECT n FROM above").fetchone() == (19,))
    assert_fresh(source, "st")
    assert source.execute(GATES).fetchall() == []


def test_a_gate_is_its_tables_owners(source: Connection, database: Any) -> None:
    name = database.make_role("st_author")
    source.execute("GRANT USAGE ON SCHEMA pgtrickle TO st_author; CREATE TABLE hidden (a int)")
    source.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO st_author; GRANT SELECT ON t TO st_author")
    author = database.connect(name)
    for call in ("gate_source('t')", "ungate_source('t')"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
            author.execute(f"SELECT pgtrickle.{call}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege), author.transaction():
        author.execute("LOCK TABLE pgtrickle_changes.drain_lock IN EXCLUSIVE MODE")
    source.execute("SELECT pgtrickle.gate_source('t'), pgtrickle.gate_source('hidden')")
    assert author.execute(GATES).fetchall() == [("public.t", "postgres")]
    with pytest.raises(psycopg.errors.UndefinedTable):
        author.execute("SELECT pgtrickle.gate_source('nothing')")
    source.execute("DROP TABLE hidden; SELECT pgtrickle_changes.worker_housekeeping()")
    assert source.execute("SELECT count(*) FROM pgtrickle_changes.source_gates").fetchone() == (1,)
    author.close()
    source.execute("DROP OWNED BY st_author")
