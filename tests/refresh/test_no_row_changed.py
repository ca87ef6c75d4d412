"""What changes a query's result, or may hide a change of it, without any trigger of the source having fired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

pytestmark = pytest.mark.versions

PARENT = "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id)"
ATTACH = "ALTER TABLE p ATTACH PARTITION t FOR VALUES FROM (0) TO (100)"
CASES = {
    "written by way of a new parent": (
        f"CREATE TABLE t (id int, v int); {PARENT}",
        "SELECT id, v FROM t",
        (ATTACH, "INSERT INTO p VALUES (2, 2)", "UPDATE p SET v = 9", "ALTER TABLE p DETACH PARTITION t"),
    ),
    "written by way of a parent that it had for a while": (
        f"CREATE TABLE t (id int, v int); {PARENT}",
        "SELECT count(*) FROM t",
        (f"{ATTACH}; INSERT INTO p VALUES (2, 2); ALTER TABLE p DETACH PARTITION t",),
    ),
    "updated by way of an inherited table": (
        "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 1); CREATE TABLE p (id int, v int)",
        "SELECT id, v FROM t",
        ("ALTER TABLE t INHERIT p; UPDATE p SET v = 7; ALTER TABLE t NO INHERIT p",),
    ),
    "a schema renamed, another in its place": (
        "CREATE SCHEMA one; CREATE TABLE one.t (id int, v int); INSERT INTO one.t VALUES (1, 1), (1, 5)",
        "SELECT id, max(v) AS most FROM one.t GROUP BY id",
        (
            "ALTER SCHEMA one RENAME TO two; CREATE SCHEMA one; CREATE TABLE one.t (id int, v int);"
            "INSERT INTO one.t VALUES (1, 100); DELETE FROM two.t WHERE v = 5",
        ),
    ),
    "a table renamed whose name is shown": (
        "CREATE SCHEMA s; CREATE TABLE s.zz (a int); CREATE TABLE t (id int, r regclass);"
        "INSERT INTO t VALUES (1, 's.zz'), (2, NULL)",
        "SELECT id, r, r::text AS told FROM t",
        ("ALTER TABLE s.zz RENAME TO yy", "INSERT INTO t VALUES (3, 's.yy')", "ALTER TABLE s.yy RENAME TO xx"),
    ),
    "a table renamed that an array names": (
        "CREATE SCHEMA s; CREATE TABLE s.zz (a int); CREATE TABLE t (id int, r regclass[]);"
        "INSERT INTO t VALUES (1, ARRAY['s.zz'::regclass])",
        "SELECT id, r::text AS told FROM t",
        ("ALTER TABLE s.zz RENAME TO yy",),
    ),
    "a table renamed that an oid names": (
        "CREATE SCHEMA s; CREATE TABLE s.zz (a int); CREATE TABLE t (id int, o oid);"
        "INSERT INTO t VALUES (1, 's.zz'::regclass)",
        "SELECT id, 'of ' || o::regclass AS told FROM t",
        ("ALTER TABLE s.zz RENAME TO yy",),
    ),
    "a type renamed": (
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int, m mood); INSERT INTO t VALUES (1, 'a')",
        "SELECT id FROM t WHERE m = 'a'::mood",
        ("ALTER TYPE mood RENAME TO moods; INSERT INTO t VALUES (2, 'a')",),
    ),
    "a label renamed": (
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (id int, m mood); INSERT INTO t VALUES (1, 'a')",
        "SELECT id, m::text AS label FROM t",
        ("ALTER TYPE mood RENAME VALUE 'a' TO 'c'",),
    ),
}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("setup", "query", "steps"), CASES.values(), ids=CASES.keys())
def test_the_next_refresh_is_right(
    db: Connection, assert_fresh: Oracle, setup: str, query: str, steps: tuple[str, ...]
) -> None:
    db.execute(setup.encode())
    pg_trickle.create_stream_table(db, "s", query, schedule=None)
    for step in steps:
        db.execute(step.encode())
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")


@pytest.mark.versions(since=17)
@pytest.mark.usefixtures("worker")
def test_a_new_expression_of_a_stored_column(db: Connection, assert_fresh: Oracle) -> None:
    _check_a_new_generating_expression(db, assert_fresh, "STORED")


@pytest.mark.versions(since=18)
@pytest.mark.usefixtures("worker")
def test_a_new_expression_of_a_virtual_column(db: Connection, assert_fresh: Oracle) -> None:
    _check_a_new_generating_expression(db, assert_fresh, "VIRTUAL")


def _check_a_new_generating_expression(db: Connection, assert_fresh: Oracle, kept: str) -> None:
    db.execute(f"CREATE TABLE t (id int, a int, g int GENERATED ALWAYS AS (a * 2) {kept})".encode())
    db.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    pg_trickle.create_stream_table(db, "s", "SELECT id, g FROM t", schedule=None)
    for step in (
        b"ALTER TABLE t ALTER COLUMN g SET EXPRESSION AS (a * 3)",
        b"INSERT INTO t VALUES (3, 3)",
        b"ALTER TABLE t RENAME COLUMN a TO b; INSERT INTO t VALUES (4, 4)",
        b"ALTER TABLE t ALTER COLUMN g SET EXPRESSION AS (b * 5); UPDATE t SET b = 7",
    ):
        db.execute(step)
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")


def test_writers_go_on_when_a_column_has_another_type(db: Connection) -> None:
    """The definition that forbids it may be gone before the stream table is."""
    db.execute("CREATE TABLE t (a int)")
    pg_trickle.create_stream_table(db, "s", "SELECT a FROM t", schedule=None)
    (view,) = db.execute("SELECT definition_view::regclass FROM pgtrickle.pgt_stream_tables").fetchone() or ("",)
    db.execute(f"DROP VIEW {view}; ALTER TABLE t ALTER COLUMN a TYPE text; INSERT INTO t VALUES ('x')".encode())
    assert db.execute("SELECT a FROM t").fetchall() == [("x",)]


@pytest.mark.parametrize(
    "write",
    [
        "CREATE TRIGGER a AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION refresh_it(); INSERT INTO t VALUES (1)",
        "CREATE TRIGGER a AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION refresh_it(); INSERT INTO t VALUES (1), (2)",
        "WITH i AS (INSERT INTO t VALUES (1) RETURNING k) SELECT (SELECT pgtrickle.refresh_stream_table('s')) FROM i",
    ],
)
def test_a_refresh_amid_a_statement(db: Connection, assert_fresh: Oracle, write: str) -> None:
    """It sees rows whose capture is yet to come."""
    db.execute("CREATE TABLE t (k int); CREATE TABLE u (k int)")
    db.execute("""CREATE FUNCTION refresh_it() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pgtrickle.refresh_stream_table(''s''); RETURN NULL; END'""")
    pg_trickle.create_stream_table(db, "s", "SELECT t.k FROM t JOIN u ON t.k = u.k", schedule=None)
    db.execute("INSERT INTO u VALUES (1), (2)")
    db.execute(write.encode())
    pg_trickle.refresh_stream_table(db, "s")
    assert_fresh(db, "s")
