"""Snapshots: what a stream table held, kept and brought back; a definition as SQL; writing with refreshing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

GROUPS = 'SELECT g, count(*) AS n, sum(x) AS "Sum" FROM t GROUP BY g'
LISTED = "SELECT snapshot, stream_table, owner::text, row_count FROM pgtrickle.list_snapshots()"


@pytest.fixture
def source(db: Connection) -> Connection:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, g int, x int)")
    db.execute("INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n")
    return db


@pytest.fixture
def author(source: Connection, database: Any) -> Any:
    """A role with the guide's grants."""
    name = database.make_role("st_author")
    source.execute("GRANT CREATE, USAGE ON SCHEMA public TO st_author; GRANT SELECT ON t TO st_author")
    source.execute("GRANT USAGE ON SCHEMA pgtrickle TO st_author")
    source.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO st_author")
    conn = database.connect(name)
    yield conn
    conn.close()
    source.execute("DROP OWNED BY st_author CASCADE")


def take(db: Connection, target: str | None = None) -> str:
    (name,) = db.execute("SELECT pgtrickle.snapshot_stream_table('st', %s)", (target,)).fetchone() or ("",)
    return str(name)


def rows(db: Connection, table: str) -> list[Any]:
    return db.execute(f"SELECT g, n FROM {table} ORDER BY g, n".encode()).fetchall()


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL", "IMMEDIATE"])
def test_what_is_restored_is_the_query_again_after_a_refresh(
    source: Connection, assert_fresh: Oracle, mode: str
) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None, refresh_mode=mode)
    pg_trickle.create_stream_table(source, "above", "SELECT sum(n) AS n FROM st", schedule=None)
    before = rows(source, "st")
    kept = take(source, "kept")
    assert kept == "public.kept"
    assert source.execute(LISTED).fetchall() == [("public.kept", "public.st", "postgres", 3)]
    source.execute("DELETE FROM t WHERE g = 1; INSERT INTO t VALUES (10, 5, 5)")
    pg_trickle.refresh_stream_table(source, "above")
    assert rows(source, "st") != before
    assert source.execute("SELECT pgtrickle.restore_from_snapshot('st', 'kept')").fetchone() == (3,)
    assert rows(source, "st") == before
    status = "SELECT needs_reinit, reinit_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'st'"
    assert source.execute(status).fetchone() == (True, "restored from snapshot public.kept")
    (reason,) = source.execute("SELECT reason FROM pgtrickle.get_refresh_history('st', 1)").fetchone() or ("",)
    assert reason == "restored from snapshot public.kept"
    source.execute("UPDATE t SET x = x + 1")
    for name in ("st", "above"):
        pg_trickle.refresh_stream_table(source, name)
        assert_fresh(source, name)
    source.execute("DELETE FROM t WHERE g = 2")
    pg_trickle.refresh_stream_table(source, "above")
    for name in ("st", "above"):
        assert_fresh(source, name)


def test_the_worker_brings_it_back_to_its_query(source: Connection, worker: Any, assert_fresh: Oracle) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS)
    pg_trickle.create_stream_table(source, "now", GROUPS, refresh_mode="IMMEDIATE")
    take(source, "kept")
    source.execute("SELECT pgtrickle.snapshot_stream_table('now', 'kept_now')")
    source.execute("DELETE FROM t WHERE g = 1")
    worker.wait_until_idle()
    source.execute(
        "SELECT pgtrickle.restore_from_snapshot('st', 'kept'), pgtrickle.restore_from_snapshot('now', 'kept_now')"
    )
    source.execute("INSERT INTO t VALUES (20, 8, 8)")
    behind = "SELECT FROM pgtrickle.pgt_stream_tables WHERE needs_reinit"
    worker.wait_for(lambda: source.execute(behind).rowcount == 0)
    source.execute("INSERT INTO t VALUES (21, 8, 8)")
    worker.wait_until_idle()
    assert_fresh(source, "st")
    assert_fresh(source, "now")


def test_without_a_name_it_gets_one_with_the_time(source: Connection) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None)
    first, second = take(source), take(source)
    assert first.startswith("public.st_snapshot_2")
    assert first != second
    source.execute("SELECT pgtrickle.drop_snapshot(%s)", (first,))
    assert [snapshot for snapshot, *_ in source.execute(LISTED)] == [second]
    source.execute(f"DROP TABLE {second}".encode())
    assert source.execute(LISTED).fetchall() == []
    with pytest.raises(psycopg.errors.UndefinedObject):
        source.execute("SELECT pgtrickle.drop_snapshot(%s)", (second,))
    kept = take(source, '"Kept ""it"""')
    assert kept == 'public."Kept ""it"""'


def test_a_snapshot_is_its_owners_alone(source: Connection, author: Connection, database: Any) -> None:
    """Default privileges and policies of the stream table notwithstanding; and made with no more than his rights."""
    reader = database.make_role("st_reader")
    author.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO st_reader, PUBLIC")
    pg_trickle.create_stream_table(author, "st", GROUPS, schedule=None)
    author.execute("ALTER TABLE st ENABLE ROW LEVEL SECURITY; ALTER TABLE st FORCE ROW LEVEL SECURITY")
    author.execute("CREATE POLICY one ON st USING (g = 1)")
    take(author, "kept")
    assert len(rows(author, "kept")) == 3, "what a refresh writes, not what policies show"
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'kept'"
    assert author.execute(owner).fetchone() == ("st_author",)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), database.connect(reader) as conn:
        conn.execute("TABLE kept")
    assert author.execute("SELECT pgtrickle.restore_from_snapshot('st', 'kept')").fetchone() == (3,)
    assert len(rows(author, "st")) == 1
    assert len(rows(source, "st")) == 3
    source.execute("CREATE SCHEMA closed")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        take(author, "closed.kept")
    for schema in ("pgtrickle", "pgtrickle_changes", "pg_catalog"):
        pg_trickle.create_stream_table(source, f"st_{schema}", GROUPS, schedule=None)
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            source.execute(f"SELECT pgtrickle.snapshot_stream_table('st_{schema}', '{schema}.x')".encode())


def test_what_cant_be_kept_or_restored_is_said(source: Connection) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None, initialize=False)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="never filled"):
        take(source)
    pg_trickle.refresh_stream_table(source, "st")
    take(source, "kept")
    with pytest.raises(psycopg.errors.DuplicateTable):
        take(source, "kept")
    pg_trickle.create_stream_table(source, "other", GROUPS, schedule=None)
    restore = "SELECT pgtrickle.restore_from_snapshot(%s, %s)"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no snapshot of"):
        source.execute(restore, ("other", "kept"))
    with pytest.raises(psycopg.errors.UndefinedObject):
        source.execute(restore, ("st", "t"))
    pg_trickle.alter_stream_table(source, "st", query="SELECT g, max(x) AS most FROM t GROUP BY g")
    with pytest.raises(psycopg.errors.InvalidObjectDefinition, match="has other columns"):
        source.execute(restore, ("st", "kept"))
    pg_trickle.drop_stream_table(source, "st")
    assert len(rows(source, "kept")) == 3, "a table like any other"
    assert source.execute(LISTED).fetchall() == []


def test_an_exported_definition_makes_it_anew(source: Connection, worker: Any, assert_fresh: Oracle) -> None:
    source.execute('CREATE SCHEMA "Odd one"; SET "TimeZone" = \'Europe/Berlin\'')
    query = "SELECT g, timestamptz '2024-01-01 00:00' AS since, 'it''s\\' AS text FROM t WHERE x > 3"
    pg_trickle.create_stream_table(source, '"Odd one"."S T"', query, schedule="1h30m", refresh_mode="DIFFERENTIAL")
    pg_trickle.alter_stream_table(source, '"Odd one"."S T"', tier="cold")
    export = 'SELECT pgtrickle.export_definition(\'"Odd one"."S T"\')'
    before = source.execute('SELECT * FROM "Odd one"."S T" ORDER BY 1, 2').fetchall()
    (script,) = source.execute(export).fetchone() or ("",)
    pg_trickle.drop_stream_table(source, '"Odd one"."S T"')
    source.execute('RESET "TimeZone"; SET search_path = pg_catalog')
    source.execute(script.encode())
    source.execute("SET quote_all_identifiers = on")
    assert source.execute(export).fetchone() == (script,)
    source.execute("RESET search_path; SET \"TimeZone\" = 'Europe/Berlin'")
    assert source.execute('SELECT * FROM "Odd one"."S T" ORDER BY 1, 2').fetchall() == before
    assert_fresh(source, '"Odd one"."S T"')


def test_a_write_and_its_refresh_are_one(source: Connection, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", GROUPS, schedule=None)
    source.execute("GRANT INSERT ON t TO st_author")
    author.execute("SELECT pgtrickle.write_and_refresh('INSERT INTO t VALUES (10, 9, 1)', 'st')")
    assert (9, 1) in rows(source, "st")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        author.execute("SELECT pgtrickle.write_and_refresh('DELETE FROM t', 'st')")
    pg_trickle.create_stream_table(source, "theirs", GROUPS, schedule=None)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        author.execute("SELECT pgtrickle.write_and_refresh('INSERT INTO t VALUES (11, 9, 1)', 'theirs')")
    assert source.execute("SELECT count(*) FROM t WHERE id = 11").fetchone() == (0,)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the statement is NULL"):
        author.execute("SELECT pgtrickle.write_and_refresh(NULL, 'st')")
