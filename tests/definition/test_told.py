"""What is refused is told with a way out, and what is gone isn't told of any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

import pg_trickle
from pg_trickle.cli import dev
from pg_trickle.testing import playground
from tests.definition.conftest import Connection


@pytest.fixture
def t(db: Connection) -> Connection:
    db.execute("CREATE TABLE t (a int, b int)")
    db.execute("INSERT INTO t VALUES (1, 2)")
    return db


@pytest.mark.parametrize(
    ("name", "query", "sqlstate", "hint"),
    [
        ("nowhere.s", "SELECT a FROM t", "3F000", "CREATE SCHEMA nowhere"),
        ("s", "SELECT a, b AS a FROM t", "42701", "with AS"),
        ("s", "SELECT ROW(a, b) AS r FROM t", "42P16", "Cast it"),
        ("s", "SELECT ctid FROM t", "42701", "with AS"),
        ("s", "SELECT ctid AS c FROM t", "0A000", ""),
        ("s", "SELECT xmin::text AS x FROM t", "0A000", ""),
    ],
)
def test_every_refusal_has_a_hint(t: Connection, name: str, query: str, sqlstate: str, hint: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        pg_trickle.create_stream_table(t, name, query, refresh_mode="DIFFERENTIAL")
    assert caught.value.sqlstate == sqlstate
    assert hint in (caught.value.diag.message_hint or "")
    assert caught.value.diag.message_hint


def test_a_column_called_as_tables_own_is_told_beforehand(t: Connection) -> None:
    with pytest.raises(psycopg.errors.DuplicateColumn):
        pg_trickle.validate_query(t, 'SELECT a AS "tableoid" FROM t')
    pg_trickle.create_stream_table(t, "s", "SELECT a FROM t")
    with pytest.raises(psycopg.errors.DuplicateColumn) as caught:
        pg_trickle.alter_stream_table(t, "s", query='SELECT a AS "tableoid" FROM t')
    assert "with AS" in (caught.value.diag.message_hint or "")


def test_what_auto_refuses_is_told_beforehand(t: Connection) -> None:
    def warnings(query: str) -> list[str]:
        return [check.check_name for check in pg_trickle.validate_query(t, query) if check.severity == "WARN"]

    volatile, without = "SELECT random() AS r FROM t", "SELECT a FROM t LIMIT 1"
    assert warnings(volatile) == ["volatile function random()", "refresh_mode"]
    assert warnings(without) == ["LIMIT without ORDER BY"]
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.create_stream_table(t, "v", volatile)
    pg_trickle.create_stream_table(t, "v", volatile, refresh_mode="FULL")
    pg_trickle.create_stream_table(t, "w", without)


def test_what_was_dropped_by_hand_is_gone_at_once(t: Connection) -> None:
    pg_trickle.create_stream_table(t, "s", "SELECT a FROM t")
    (number,) = t.execute("SELECT pgt_id FROM pgtrickle.pgt_stream_tables").fetchone() or (0,)
    t.execute("DROP TABLE s")
    assert t.execute("SELECT name FROM pgtrickle.pgt_status()").fetchall() == []
    t.execute("INSERT INTO t VALUES (3, 4)")
    t.autocommit = False
    t.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    told = t.execute("SELECT pgtrickle_changes.worker_refresh(ARRAY[%s], 'SCHEDULER')", (number,)).fetchone()
    assert told is not None
    assert [(one["error"], one["skipped"]) for one in told[0]] == [(None, "suspended or dropped")]
    t.commit()
    assert t.execute("SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE NOT success").fetchone() == (0,)


def test_what_is_set_before_the_first_stream_table_is_kept(t: Connection) -> None:
    """Its owner's runner is there already, and looks like what a dump may have left."""
    pg_trickle.create_stream_table(t, "s", "SELECT a FROM t")
    pg_trickle.drop_stream_table(t, "s")
    t.execute("SELECT pgtrickle.gate_source('t')")
    pg_trickle.create_stream_table(t, "s", "SELECT a FROM t")
    assert t.execute("SELECT source_table FROM pgtrickle.source_gates()").fetchall() == [("public.t",)]


def test_what_was_never_filled_is_told_so(t: Connection) -> None:
    pg_trickle.create_stream_table(t, "s", "SELECT a FROM t", schedule="1s", initialize=False)
    t.execute("UPDATE pgtrickle.pgt_stream_tables SET created_at = now() - interval '1 hour'")
    checks: dict[str, str] = dict(t.execute("SELECT check_name, detail FROM pgtrickle.health_check()").fetchall())
    assert "public.s (never filled)" in checks["stale_tables"]


def deferred(t: Connection, constraint: str) -> Connection:
    """A transaction that has looked for equal rows once, and will again when it commits."""
    t.execute(f"ALTER TABLE t ADD {constraint} DEFERRABLE INITIALLY DEFERRED".encode())
    pg_trickle.create_stream_table(t, "s", "SELECT a FROM t", schedule=None)
    t.autocommit = False
    # Enough events to be seen.
    t.execute("INSERT INTO t SELECT 1, n FROM generate_series(10, 200) AS n")
    t.execute("DELETE FROM t WHERE b > 10 OR b = 2")
    return t


def test_equal_rows_that_are_looked_for_at_the_end_are_no_danger(t: Connection, assert_fresh: Any) -> None:
    conn = deferred(t, "UNIQUE (a)")
    pg_trickle.refresh_stream_table(conn, "s")
    conn.commit()
    assert_fresh(conn, "s")


def test_a_source_with_triggers_that_wait_cannot_be_captured_yet(t: Connection) -> None:
    t.execute("CREATE TABLE u (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    t.autocommit = False
    t.execute("INSERT INTO u VALUES (1), (1); DELETE FROM u")
    with pytest.raises(psycopg.errors.ObjectInUse) as caught:
        pg_trickle.create_stream_table(t, "s", "SELECT a FROM u")
    assert "SET CONSTRAINTS ALL IMMEDIATE" in (caught.value.diag.message_hint or "")


def test_exclusion_constraints_may_call_functions_and_are_refused(t: Connection) -> None:
    conn = deferred(t, "EXCLUDE (a WITH =)")
    with pytest.raises(psycopg.errors.InvalidTransactionState):
        pg_trickle.refresh_stream_table(conn, "s")


def test_a_recomputation_that_contradicts_itself_has_a_code_of_the_list(t: Connection) -> None:
    pg_trickle.create_stream_table(t, "s", "SELECT a FROM t")
    t.execute("SELECT pgtrickle.reinitialize_stream_table('s')")
    t.execute(
        """CREATE OR REPLACE FUNCTION pgtrickle_changes.run_program(
               p_table pgtrickle.pgt_stream_tables, p_program jsonb, p_changed jsonb DEFAULT NULL::jsonb)
           RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RAISE SQLSTATE 'TK002'; END$$"""
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="contradicts itself") as caught:
        pg_trickle.refresh_stream_table(t, "s")
    assert "repair_stream_table" in (caught.value.diag.message_hint or "")


@pytest.mark.parametrize(("options", "is_told"), [([], False), (["--no-worker-schedule"], True)])
def test_dev_up_says_when_nothing_will_be_refreshed(
    monkeypatch: pytest.MonkeyPatch, options: list[str], is_told: bool
) -> None:
    monkeypatch.setattr(playground, "up", lambda *_, **__: SimpleNamespace(dsn="dbname=x", version="18.1"))
    answer = CliRunner().invoke(dev.app, ["up", "--data", "x", *options])
    assert answer.exit_code == 0
    assert ("refreshes nothing by itself" in answer.stdout) == is_told


def test_a_source_that_rests_is_read_as_it_is_and_told(t: Connection) -> None:
    pg_trickle.create_stream_table(t, "lower", "SELECT a FROM t", schedule=None)
    pg_trickle.create_stream_table(t, "upper", "SELECT count(*) AS n FROM lower", schedule=None)
    told: list[tuple[str | None, str | None]] = []
    t.add_notice_handler(lambda notice: told.append((notice.message_primary, notice.message_detail)))
    t.execute("INSERT INTO t VALUES (3, 4)")
    pg_trickle.refresh_stream_table(t, "upper")
    assert told == []
    pg_trickle.suspend_stream_table(t, "lower")
    t.execute("INSERT INTO t VALUES (5, 6)")
    pg_trickle.refresh_stream_table(t, "upper")
    assert told == [('stream table "lower" is read as it is', "It is suspended.")]
    assert t.execute("SELECT n FROM upper").fetchone() == (2,)
