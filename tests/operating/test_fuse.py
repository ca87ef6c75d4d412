"""The fuse: more changes than expected wait for their owner, and nothing is wrong without saying so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

GROUPS = "SELECT g, count(*) AS n, sum(x) AS s FROM t GROUP BY g"
FUSE = "SELECT fuse_ceiling, is_blown, reason, changes_skipped_at IS NOT NULL FROM pgtrickle.fuse_status()"
HEALTH = "SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'fuse'"
REASON = "fuse: 20 pending changes are more than its ceiling of 10"


@pytest.fixture
def source(db: Connection) -> Connection:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, g int, x int)")
    db.execute("INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n")
    return db


def flood(db: Connection) -> None:
    db.execute("INSERT INTO t SELECT n, n % 3, n FROM generate_series(101, 120) AS n")


def state(db: Connection) -> Any:
    return db.execute("SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'st'").fetchone()


def reset(db: Connection, *action: str) -> None:
    db.execute("SELECT pgtrickle.reset_fuse('st')" if not action else "SELECT pgtrickle.reset_fuse('st', %s)", action)


@pytest.fixture
def blown(source: Connection, worker: Any) -> Connection:
    """A stream table whose fuse the worker has blown."""
    pg_trickle.create_stream_table(source, "st", GROUPS)
    pg_trickle.alter_stream_table(source, "st", fuse_ceiling=10)
    worker.wait_until_idle()
    flood(source)
    worker.wait_for(lambda: state(source) == ("SUSPENDED",))
    worker.wait_until_idle()
    return source


def test_the_worker_blows_it_and_says_so(blown: Connection, worker: Any) -> None:
    assert blown.execute("SELECT sum(n) FROM st").fetchone() == (9,)
    assert blown.execute(FUSE).fetchone() == (10, True, REASON, False)
    assert blown.execute(HEALTH).fetchone() == (
        "ERROR",
        f"1 held back by their fuse, or without changes that were skipped: public.st ({REASON})",
    )
    skipped = (
        "SELECT success, skipped_reason FROM pgtrickle.get_refresh_history('st') WHERE skipped_reason LIKE 'fuse%'"
    )
    assert blown.execute(skipped).fetchall() == [(None, REASON)], "once, not at every look"
    assert 'pgtrickle_stream_table_fuse_blown{schema="public",name="st"} 1.0' in worker.metrics.page()
    for call in (
        "refresh_stream_table('st')",
        "resume_stream_table('st')",
        "alter_stream_table('st', status => 'ACTIVE')",
    ):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="fuse") as caught:
            blown.execute(f"SELECT pgtrickle.{call}".encode())
        assert "reset_fuse('public.st')" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize("action", ["apply", "reinitialize"])
def test_it_goes_on_when_its_owner_says_so(blown: Connection, worker: Any, assert_fresh: Oracle, action: str) -> None:
    reset(blown, action)
    worker.wait_for(lambda: blown.execute("SELECT sum(n) FROM st").fetchone() == (29,))
    worker.wait_until_idle()
    assert_fresh(blown, "st")
    assert blown.execute(FUSE).fetchone() == (10, False, None, False)
    assert blown.execute(HEALTH).fetchone() == ("OK", "no fuse is blown")
    blown.execute("UPDATE t SET x = 0 WHERE id <= 5")
    worker.wait_for(
        lambda: blown.execute("SELECT sum(s) FROM st").fetchone() == (sum(range(6, 10)) + sum(range(101, 121)),)
    )
    blown.execute("UPDATE t SET x = x + 1")
    worker.wait_for(lambda: state(blown) == ("SUSPENDED",))


def test_skipped_changes_are_never_a_secret(blown: Connection, worker: Any, assert_fresh: Oracle) -> None:
    reset(blown, "skip_changes")
    worker.wait_until_idle()
    assert state(blown) == ("ACTIVE",)
    assert blown.execute("SELECT sum(n) FROM st").fetchone() == (9,)
    assert blown.execute(FUSE).fetchone() == (10, False, None, True)
    severity, detail = blown.execute(HEALTH).fetchone() or ("", "")
    assert severity == "ERROR"
    assert "it is not its query" in detail
    assert not pg_trickle.verify_stream_table(blown, "st").ok
    told = "SELECT FROM pgtrickle.get_refresh_history('st') WHERE skipped_reason = %s"
    assert blown.execute(told, ("fuse: 20 changes were skipped with reset_fuse",)).rowcount == 1
    blown.execute("INSERT INTO t VALUES (200, 0, 1)")
    worker.wait_for(lambda: blown.execute("SELECT sum(n) FROM st").fetchone() == (10,))
    pg_trickle.reinitialize_stream_table(blown, "st")
    worker.wait_for(lambda: blown.execute("SELECT sum(n) FROM st").fetchone() == (30,))
    worker.wait_until_idle()
    assert_fresh(blown, "st")
    assert blown.execute(HEALTH).fetchone() == ("OK", "no fuse is blown")


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL"])
def test_by_hand_it_is_an_error_and_changes_nothing(source: Connection, assert_fresh: Oracle, mode: str) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None, refresh_mode=mode)
    pg_trickle.create_stream_table(source, "above", "SELECT sum(n) AS n FROM st", schedule=None)
    pg_trickle.alter_stream_table(source, "st", fuse_ceiling=10)
    source.execute("UPDATE t SET x = x + 1 WHERE id < 5")
    pg_trickle.refresh_stream_table(source, "st")
    flood(source)
    for name in ("st", "above"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="holds its refresh back") as caught:
            pg_trickle.refresh_stream_table(source, name)
        assert caught.value.diag.message_detail == REASON
    assert state(source) == ("ACTIVE",)
    failed = "SELECT FROM pgtrickle.get_refresh_history('st') WHERE NOT success AND error_message LIKE '%fuse%'"
    assert source.execute(failed).rowcount == 2
    reset(source)
    pg_trickle.refresh_stream_table(source, "above")
    assert_fresh(source, "st")
    assert_fresh(source, "above")


def test_without_a_ceiling_of_its_own_the_setting_counts(source: Connection, assert_fresh: Oracle) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None)
    source.execute("SET pg_trickle.fuse_default_ceiling = 10")
    assert source.execute(FUSE).fetchone() == (10, False, None, False)
    flood(source)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="fuse"):
        pg_trickle.refresh_stream_table(source, "st")
    pg_trickle.alter_stream_table(source, "st", fuse_ceiling=0)
    pg_trickle.refresh_stream_table(source, "st")
    assert_fresh(source, "st")
    pg_trickle.alter_stream_table(source, "st", fuse_ceiling=-1)
    source.execute("UPDATE t SET x = x + 1")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="fuse"):
        pg_trickle.refresh_stream_table(source, "st")
    # What computes it afresh does not go by the changes.
    pg_trickle.reinitialize_stream_table(source, "st")
    pg_trickle.refresh_stream_table(source, "st")
    assert_fresh(source, "st")
    (script,) = source.execute("SELECT pgtrickle.export_definition('st')").fetchone() or ("",)
    assert "fuse_ceiling" not in script
    pg_trickle.alter_stream_table(source, "st", fuse_ceiling=7)
    (script,) = source.execute("SELECT pgtrickle.export_definition('st')").fetchone() or ("",)
    assert "fuse_ceiling => 7" in script


def test_what_is_no_ceiling_and_no_action_is_refused(source: Connection) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None)
    pg_trickle.create_stream_table(source, "now", GROUPS, refresh_mode="IMMEDIATE")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        pg_trickle.alter_stream_table(source, "st", fuse_ceiling=-2)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        reset(source, "ignore")
    pg_trickle.reinitialize_stream_table(source, "now")
    reset(source, "skip_changes")
    assert source.execute(FUSE).fetchall()[1] == (0, False, None, False), "nothing was pending"
