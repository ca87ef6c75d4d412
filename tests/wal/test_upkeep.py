"""The slot goes on, never beyond what is in the buffers; its loss is noticed; sources are altered; modes change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.install.install import uninstall

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]


def value(db: Connection, query: str) -> Any:
    row = db.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def last(db: Connection) -> Any:
    return value(db, "SELECT refresh_mode FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1")


def mode(db: Connection) -> Any:
    return value(db, "SELECT cdc_mode FROM pgtrickle.list_sources('st')")


POSITION = "SELECT confirmed_flush_lsn - '0/0' FROM pgtrickle.slot_health()"
SLOT_LAG = "SELECT severity || ': ' || detail FROM pgtrickle.health_check() WHERE check_name = 'slot_lag'"


@pytest.fixture
def shop(db: Connection) -> Connection:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, k int, v text); ALTER TABLE t REPLICA IDENTITY FULL")
    db.execute("INSERT INTO t SELECT n, n % 4, 'v' || n FROM generate_series(1, 20) AS n")
    pg_trickle.create_stream_table(
        db, "st", "SELECT k, count(*) AS n, max(v) AS m FROM t GROUP BY k", schedule=None, cdc_mode="wal"
    )
    return db


@pytest.fixture
def check(shop: Connection, assert_fresh: Oracle) -> Callable[[str], None]:
    """Write, refresh, compare; the refresh was of that mode."""

    def checked(expected: str) -> None:
        shop.execute("INSERT INTO t SELECT max(id) + 1, max(id) % 4, 'w' FROM t")
        pg_trickle.refresh_stream_table(shop, "st")
        assert last(shop) == expected
        assert_fresh(shop, "st")

    return checked


@pytest.mark.versions
def test_the_slot_goes_on_when_all_is_in_the_buffers(
    shop: Connection, drain: Callable[[], Any], check: Callable[[str], None]
) -> None:
    before = value(shop, POSITION)
    check("DIFFERENTIAL")
    assert value(shop, POSITION) == before
    drain()
    drain()
    assert value(shop, POSITION) > before
    check("DIFFERENTIAL")


def test_an_idle_server_writes_nothing(
    shop: Connection, drain: Callable[[], Any], check: Callable[[str], None]
) -> None:
    check("DIFFERENTIAL")
    for _ in range(3):
        drain()
    lsn = value(shop, "SELECT pg_current_wal_insert_lsn()")
    for _ in range(3):
        drain()
    assert value(shop, "SELECT pg_current_wal_insert_lsn()") == lsn


def test_wal_of_others_is_let_go(shop: Connection, drain: Callable[[], Any]) -> None:
    shop.execute("CREATE TABLE other AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    for _ in range(4):
        drain()
    assert value(shop, "SELECT retained_bytes FROM pgtrickle.slot_health()") < 1_000_000
    assert (
        value(shop, "SELECT count(*) FROM pgtrickle_changes.changes_" + str(value(shop, "SELECT 't'::regclass::oid")))
        == 0
    )


@pytest.mark.versions
def test_a_crash_between_commit_and_advance(
    shop: Connection, database: Any, drain: Callable[[], Any], assert_fresh: Oracle
) -> None:
    """What was decoded is decoded again, and taken once."""
    shop.execute("INSERT INTO t VALUES (100, 1, 'before')")
    drain()
    shop.execute("UPDATE t SET v = 'after' WHERE id = 100")
    pg_trickle.refresh_stream_table(shop, "st")
    database.server.crash()
    database.server.start()
    conn = database.connect()
    conn.execute("INSERT INTO t VALUES (101, 1, 'later')")
    for _ in range(3):
        conn.execute("SELECT pgtrickle_changes.worker_drain_wal(NULL)")
    pg_trickle.refresh_stream_table(conn, "st")
    assert last(conn) == "DIFFERENTIAL"
    assert_fresh(conn, "st")


def test_a_transaction_older_than_the_slot_advance(
    shop: Connection, database: Any, drain: Callable[[], Any], check: Callable[[str], None]
) -> None:
    early = database.connect(autocommit=False)
    early.execute("INSERT INTO t VALUES (200, 1, 'early')")
    for _ in range(3):
        check("DIFFERENTIAL")
        drain()
    early.commit()
    drain()
    check("DIFFERENTIAL")
    assert value(shop, "SELECT sum(n) FROM st") == value(shop, "SELECT count(*) FROM t")


def test_owners_are_independent(
    shop: Connection, database: Any, drain: Callable[[], Any], assert_fresh: Oracle
) -> None:
    """One who keeps his own refresh open holds up nobody else's, nor is his part let go."""
    database.make_role("second")
    shop.execute("GRANT USAGE, CREATE ON SCHEMA public TO second; GRANT SELECT ON t TO second")
    shop.execute(
        "GRANT USAGE ON SCHEMA pgtrickle TO second; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO second"
    )
    other = database.connect("second", autocommit=False)
    pg_trickle.create_stream_table(other, "theirs", "SELECT id, v FROM t", schedule=None, cdc_mode="wal")
    other.commit()
    shop.execute("INSERT INTO t VALUES (300, 1, 'x')")
    other.execute("SELECT pgtrickle.refresh_stream_table('theirs')")
    shop.execute("INSERT INTO t VALUES (301, 1, 'y')")
    for _ in range(3):
        drain()
    pg_trickle.refresh_stream_table(shop, "st")
    assert_fresh(shop, "st")
    other.rollback()
    for _ in range(3):
        drain()
    other.execute("SELECT pgtrickle.refresh_stream_table('theirs')")
    other.commit()
    assert_fresh(shop, "theirs")
    assert last(shop) == "DIFFERENTIAL"


def test_a_slot_that_was_dropped(shop: Connection, drain: Callable[[], Any], check: Callable[[str], None]) -> None:
    shop.execute("INSERT INTO t VALUES (400, 1, 'lost')")
    shop.execute("SELECT pg_drop_replication_slot(slot_name) FROM pgtrickle.slot_health()")
    assert value(shop, SLOT_LAG).startswith("ERROR")
    assert "was dropped" in drain()["trouble"]
    assert value(shop, "SELECT needs_reinit FROM pgtrickle.pgt_stream_tables")
    check("FULL")
    assert mode(shop) == "trigger"
    assert "enable_wal" in value(shop, SLOT_LAG)
    assert "wal" in value(shop, "SELECT alert FROM pgtrickle.check_cdc_health()")
    check("DIFFERENTIAL")
    shop.execute("CALL pgtrickle.enable_wal()")
    pg_trickle.alter_stream_table(shop, "st", cdc_mode="wal")
    assert mode(shop) == "wal"
    assert value(shop, SLOT_LAG).startswith("OK")
    check("DIFFERENTIAL")


def test_a_slot_that_was_made_anew(shop: Connection, check: Callable[[str], None]) -> None:
    """Nobody else's slot of that name is taken for ours, and enable_wal() knows what was lost with the former."""
    shop.execute("INSERT INTO t VALUES (400, 1, 'lost')")
    slot = value(shop, "SELECT slot_name FROM pgtrickle.slot_health()")
    shop.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    shop.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    assert "somebody else" in value(shop, "SELECT alert FROM pgtrickle.slot_health()")
    shop.execute("CALL pgtrickle.enable_wal()")
    check("FULL")
    assert mode(shop) == "wal"
    check("DIFFERENTIAL")


def test_a_slot_that_somebody_else_has_read(shop: Connection, check: Callable[[str], None]) -> None:
    shop.execute("INSERT INTO t VALUES (400, 1, 'lost')")
    shop.execute(
        """SELECT count(*) FROM pgtrickle.slot_health() AS s, pg_logical_slot_get_binary_changes(
               s.slot_name, NULL, NULL, 'proto_version', '1', 'publication_names', 'pg_trickle')"""
    )
    check("FULL")
    assert mode(shop) == "trigger"


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ("ALTER PUBLICATION pg_trickle DROP TABLE t", "wal"),
        ("ALTER PUBLICATION pg_trickle DROP TABLE t; ALTER PUBLICATION pg_trickle ADD TABLE t", "wal"),
        ("ALTER PUBLICATION pg_trickle SET TABLE t WHERE (id > 5)", "wal"),
        ("ALTER TABLE t REPLICA IDENTITY DEFAULT", "trigger"),
        ("DROP PUBLICATION pg_trickle", "trigger"),
    ],
)
def test_what_is_no_longer_told(shop: Connection, check: Callable[[str], None], change: str, after: str) -> None:
    shop.execute(change.encode())
    shop.execute("UPDATE t SET v = 'untold' WHERE id = 3; DELETE FROM t WHERE id = 4")
    check("FULL")
    assert mode(shop) == after
    check("DIFFERENTIAL")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE t ADD COLUMN more int DEFAULT 7", "DIFFERENTIAL"),
        ("ALTER TABLE t RENAME COLUMN v TO u", "FULL"),
        ("ALTER TABLE t RENAME COLUMN v TO u; ALTER TABLE t RENAME COLUMN u TO v", "FULL"),
        ("ALTER TABLE t RENAME TO t2; ALTER TABLE t2 RENAME TO t", "DIFFERENTIAL"),
    ],
)
def test_a_source_that_is_altered_between_a_change_and_its_decoding(
    shop: Connection, assert_fresh: Oracle, change: str, expected: str
) -> None:
    shop.execute("UPDATE t SET v = 'early' WHERE id = 3")
    shop.execute(change.encode())
    shop.execute("UPDATE t SET k = 2 WHERE id = 5; DELETE FROM t WHERE id = 6")
    pg_trickle.refresh_stream_table(shop, "st")
    assert last(shop) == expected
    assert_fresh(shop, "st")


def test_columns_that_changed_places_for_a_while(shop: Connection, assert_fresh: Oracle) -> None:
    """Their names and types are the same before and after; what was written in between would be taken for the other."""
    shop.execute("ALTER TABLE t ADD COLUMN a int, ADD COLUMN b int")
    pg_trickle.create_stream_table(shop, "st2", "SELECT id, a, b FROM t", schedule=None, cdc_mode="wal")
    swap = b"ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b"
    shop.execute(swap)
    shop.execute("UPDATE t SET a = 1, b = 2 WHERE id < 4")
    shop.execute(swap)
    pg_trickle.refresh_stream_table(shop, "st2")
    assert_fresh(shop, "st2")


def test_what_the_owner_may_no_longer_read_is_not_stored(
    shop: Connection, database: Any, drain: Callable[[], Any]
) -> None:
    database.make_role("second")
    shop.execute("GRANT USAGE, CREATE ON SCHEMA public TO second; GRANT SELECT ON t TO second")
    shop.execute(
        "GRANT USAGE ON SCHEMA pgtrickle TO second; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO second"
    )
    other = database.connect("second")
    pg_trickle.create_stream_table(other, "theirs", "SELECT id, v FROM t", schedule=None, cdc_mode="wal")
    buffer = value(shop, "SELECT buffer FROM pgtrickle.pgt_captures WHERE owner_oid = 'second'::regrole")
    for deny, allow in (
        ("REVOKE SELECT ON t FROM second", "GRANT SELECT ON t TO second"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "ALTER TABLE t DISABLE ROW LEVEL SECURITY"),
    ):
        shop.execute(deny.encode())
        shop.execute("UPDATE t SET v = 'hidden' || id")
        drain()
        rows = shop.execute(
            f"SELECT w, id, v FROM pgtrickle_changes.{buffer} WHERE v IS NOT NULL OR w <> 0".encode()
        ).fetchall()
        assert rows == []
        shop.execute(allow.encode())
        pg_trickle.refresh_stream_table(other, "theirs")
        assert last(shop) == "FULL"


@pytest.mark.versions
def test_switching_loses_nothing_while_others_write(
    shop: Connection, database: Any, drain: Callable[[], Any], assert_fresh: Oracle
) -> None:
    pg_trickle.alter_stream_table(shop, "st", refresh_mode="DIFFERENTIAL")
    stop = threading.Event()

    def write(conn: Connection, first: int) -> None:
        number = first
        while not stop.is_set():
            with conn.transaction():
                conn.execute("INSERT INTO t VALUES (%s, 1, 'x')", (number,))
                conn.execute("UPDATE t SET k = k + 1 WHERE id = %s", (number - 1,))
            number += 1

    threads = [threading.Thread(target=write, args=(database.connect(), 1_000_000 * n)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        for wanted in ("trigger", "wal", "auto", "wal", "trigger", "wal"):
            pg_trickle.alter_stream_table(shop, "st", cdc_mode=wanted)
            assert mode(shop) == ("wal" if wanted == "wal" else "trigger")
            pg_trickle.refresh_stream_table(shop, "st")
            assert last(shop) == "DIFFERENTIAL"
            drain()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    pg_trickle.refresh_stream_table(shop, "st")
    assert last(shop) == "DIFFERENTIAL"
    assert_fresh(shop, "st")


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("first", ["wal", "trigger"])
def test_switching_in_a_transaction_that_writes(
    shop: Connection, assert_fresh: Oracle, first: str, isolation: str
) -> None:
    pg_trickle.alter_stream_table(shop, "st", cdc_mode=first)
    shop.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
    shop.execute("UPDATE t SET k = 7 WHERE id < 5")
    pg_trickle.alter_stream_table(shop, "st", cdc_mode="trigger" if first == "wal" else "wal")
    shop.execute("UPDATE t SET k = 8 WHERE id BETWEEN 3 AND 9")
    shop.execute("COMMIT")
    pg_trickle.refresh_stream_table(shop, "st")
    assert_fresh(shop, "st")
    shop.execute("UPDATE t SET k = 9 WHERE id BETWEEN 1 AND 4")
    pg_trickle.refresh_stream_table(shop, "st")
    assert_fresh(shop, "st")


def test_the_last_one_leaves_a_slot_that_is_told_of(shop: Connection, drain: Callable[[], Any]) -> None:
    pg_trickle.drop_stream_table(shop, "st")
    assert value(shop, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'pg_trickle'") == 0
    assert "disable_wal" in value(shop, SLOT_LAG)
    shop.execute("CREATE TABLE other AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
    for _ in range(4):
        drain()
    assert value(shop, "SELECT retained_bytes FROM pgtrickle.slot_health()") < 1_000_000
    shop.execute("SELECT pgtrickle.disable_wal()")
    assert value(shop, SLOT_LAG) == "OK: no replication slot is in use"
    assert value(shop, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0
    assert drain() is None


def test_it_is_not_disabled_while_it_is_used(shop: Connection) -> None:
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        shop.execute("SELECT pgtrickle.disable_wal()")


def test_uninstalling_takes_the_slot_along(shop: Connection) -> None:
    uninstall(shop)
    assert value(shop, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0
    assert value(shop, "SELECT count(*) FROM pg_publication") == 0
    assert value(shop, "SELECT count(*) FROM st") == 4


def test_a_buffer_that_its_owner_keeps_locked(
    shop: Connection, database: Any, drain: Callable[[], Any], check: Callable[[str], None]
) -> None:
    other = database.connect(autocommit=False)
    buffer = value(shop, "SELECT buffer FROM pgtrickle.pgt_captures")
    other.execute(f"LOCK TABLE pgtrickle_changes.{buffer} IN SHARE MODE".encode())
    shop.execute("INSERT INTO t VALUES (500, 1, 'missed')")
    drain()
    other.rollback()
    assert value(shop, "SELECT count(*) FROM pgtrickle_changes.missed_changes") == 1
    check("FULL")
    check("DIFFERENTIAL")


def is_slot_dropped(conn: Connection) -> bool:
    """The worker may be reading it just now."""
    with suppress(psycopg.errors.ObjectInUse):
        conn.execute("SELECT pg_drop_replication_slot(slot_name) FROM pgtrickle.slot_health()")
        return True
    return False


@pytest.mark.slow
def test_the_worker_follows_the_wal(shop: Connection, worker: Any) -> None:
    pg_trickle.alter_stream_table(shop, "st", schedule="calculated")
    for number in range(3):
        shop.execute("INSERT INTO t VALUES (%s, 5, 'x')", (600 + number,))
        worker.wait_for(lambda: value(shop, "SELECT coalesce(sum(n), 0) FROM st WHERE k = 5") == number + 1)  # noqa: B023
    assert last(shop) == "DIFFERENTIAL"
    worker.wait_for(lambda: is_slot_dropped(shop))
    shop.execute("INSERT INTO t VALUES (700, 5, 'x')")
    worker.wait_for(lambda: value(shop, "SELECT sum(n) FROM st WHERE k = 5") == 4)
    assert mode(shop) == "trigger"
