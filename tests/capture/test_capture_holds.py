"""Nobody's DDL makes a writer fail or loses a change unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

REFRESH = "SELECT pgtrickle.refresh_stream_table('public.s')"


@pytest.fixture
def author(database: Any, db: Connection) -> Connection:
    """The owner of a stream table ``s`` on somebody else's table ``t``, with the guide's rights."""
    db.execute("CREATE TABLE t (junk int, a int, b int); INSERT INTO t VALUES (0, 1, 2)")
    make_author(database, db, "st_author")
    conn: Connection = database.connect("st_author")
    pg_trickle.create_stream_table(conn, "public.s", "SELECT a, b FROM t")
    return conn


def make_author(database: Any, db: Connection, name: str) -> None:
    database.make_role(name)
    db.execute(
        sql.SQL(
            """GRANT USAGE ON SCHEMA pgtrickle TO {role};
               GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO {role};
               GRANT CREATE ON SCHEMA public TO {role}; GRANT SELECT ON t TO {role}"""
        ).format(role=sql.Identifier(name))
    )


def source_oid(db: Connection) -> int:
    (oid,) = db.execute("SELECT 't'::regclass::oid::int").fetchone() or (0,)
    return int(oid)


def last_reason(db: Connection) -> str | None:
    """Why the last refresh recomputed; None if it didn't."""
    (reason,) = db.execute(
        "SELECT reason FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1"
    ).fetchone() or (None,)
    return None if reason is None else str(reason)


@pytest.mark.parametrize(
    "ddl",
    [
        "ALTER TABLE t RENAME TO t2",
        "ALTER TABLE t DROP COLUMN junk",
        "ALTER TABLE t ADD COLUMN more int",
        "CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO st_author; ALTER TABLE t SET SCHEMA elsewhere;"
        " SET search_path = elsewhere, public",
    ],
)
def test_ddl_on_the_source_loses_nothing(
    db: Connection, author: Connection, assert_fresh: Oracle, worker: Any, ddl: str
) -> None:
    db.execute(ddl.encode())
    table = "t2" if "t2" in ddl else "t"
    db.execute(f"INSERT INTO {table} (a, b) VALUES (5, 6); UPDATE {table} SET b = 9 WHERE a = 1".encode())
    author.execute(REFRESH)
    assert_fresh(db, "public.s")


def test_a_renamed_column_goes_on_working(
    db: Connection, author: Connection, assert_fresh: Oracle, worker: Any
) -> None:
    db.execute("ALTER TABLE t RENAME a TO a1")
    db.execute("INSERT INTO t VALUES (0, 5, 6)")
    author.execute(REFRESH)
    assert_fresh(db, "public.s")
    db.execute("INSERT INTO t VALUES (0, 7, 8)")
    author.execute(REFRESH)
    assert_fresh(db, "public.s")


def test_columns_that_swap_their_names_are_not_mixed_up(
    db: Connection, author: Connection, assert_fresh: Oracle, worker: Any
) -> None:
    db.execute("ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b")
    db.execute("INSERT INTO t (a, b) VALUES (50, 60)")
    author.execute(REFRESH)
    assert_fresh(db, "public.s")
    db.execute("INSERT INTO t (a, b) VALUES (70, 80)")
    author.execute(REFRESH)
    assert_fresh(db, "public.s")


def test_a_column_renamed_for_a_while_loses_nothing(db: Connection, author: Connection, assert_fresh: Oracle) -> None:
    db.execute("ALTER TABLE t RENAME a TO x")
    db.execute("INSERT INTO t VALUES (0, 5, 6)")
    db.execute("ALTER TABLE t RENAME x TO a")
    author.execute(REFRESH)
    assert_fresh(db, "public.s")


@pytest.mark.parametrize("function", ["ins", "upd", "del", "trunc"])
@pytest.mark.parametrize("how", ["SECURITY INVOKER", "SET search_path = public", "RESET ALL", "COST 1"])
def test_an_altered_function_is_not_called_and_is_repaired(
    db: Connection, author: Connection, assert_fresh: Oracle, function: str, how: str
) -> None:
    author.execute(f"ALTER FUNCTION pgtrickle_changes.capture_{source_oid(db)}_{function}() {how}".encode())
    db.execute("INSERT INTO t VALUES (0, 3, 4); UPDATE t SET a = 10; DELETE FROM t; TRUNCATE t")
    db.execute("INSERT INTO t VALUES (1, 1, 1)")
    author.execute(REFRESH)
    assert "was altered" in str(last_reason(db))
    assert_fresh(db, "public.s")
    db.execute("INSERT INTO t VALUES (1, 2, 1)")
    author.execute(REFRESH)
    assert last_reason(db) is None
    assert_fresh(db, "public.s")


@pytest.mark.parametrize(
    "sabotage",
    [
        "DROP TABLE pgtrickle_changes.changes_{oid}",
        "DROP FUNCTION pgtrickle_changes.capture_{oid}_ins() CASCADE",
        "REVOKE INSERT ON pgtrickle_changes.changes_{oid} FROM st_author",
        "ALTER FUNCTION pgtrickle_changes.capture_{oid}_ins() SET SCHEMA public",
        "ALTER TABLE pgtrickle_changes.changes_{oid} SET SCHEMA public",
    ],
)
def test_what_the_owner_breaks_is_repaired(
    db: Connection, author: Connection, assert_fresh: Oracle, sabotage: str
) -> None:
    author.execute(sabotage.format(oid=source_oid(db)).encode())
    db.execute("INSERT INTO t VALUES (1, 2, 3)")
    author.execute(REFRESH)
    assert_fresh(db, "public.s")
    db.execute("INSERT INTO t VALUES (4, 5, 6)")
    author.execute(REFRESH)
    assert last_reason(db) is None
    assert_fresh(db, "public.s")


@pytest.mark.parametrize("again", ["ENABLE", "ENABLE REPLICA", None])
def test_a_trigger_disabled_for_a_while_is_noticed(
    db: Connection, author: Connection, assert_fresh: Oracle, again: str | None
) -> None:
    db.execute("ALTER TABLE t DISABLE TRIGGER ALL")
    db.execute("INSERT INTO t VALUES (1, 2, 3)")
    if again:
        db.execute(f"ALTER TABLE t {again} TRIGGER pg_trickle_cdc_ins".encode())
    author.execute(REFRESH)
    assert_fresh(db, "public.s")


@pytest.mark.parametrize("trick", ["SET quote_all_identifiers = on", "CREATE TEMP TABLE trigger (a int)"])
def test_no_setting_of_the_writer_switches_capture_off(
    db: Connection, author: Connection, assert_fresh: Oracle, trick: str
) -> None:
    db.execute(trick.encode())
    db.execute("INSERT INTO t VALUES (1, 2, 3)")
    author.execute(REFRESH)
    assert last_reason(db) is None
    assert_fresh(db, "public.s")


def test_capture_needs_no_rights_of_the_writer(
    database: Any, db: Connection, author: Connection, assert_fresh: Oracle
) -> None:
    database.make_role("app")
    db.execute("GRANT INSERT, UPDATE, DELETE, SELECT, TRUNCATE ON t TO app")
    database.connect("app").execute("INSERT INTO t VALUES (1, 2, 3); UPDATE t SET a = 3; DELETE FROM t WHERE b = 2")
    author.execute(REFRESH)
    assert_fresh(db, "public.s")


def test_two_owners_have_two_buffers_and_cannot_read_each_others(
    database: Any, db: Connection, author: Connection, assert_fresh: Oracle
) -> None:
    make_author(database, db, "other")
    other = database.connect("other")
    pg_trickle.create_stream_table(other, "public.o", "SELECT junk FROM t")
    found = db.execute(
        """SELECT c.relname, pg_get_userbyid(c.relowner), coalesce(c.relacl::text, '')
             FROM pgtrickle.pgt_captures AS k JOIN pg_class AS c ON c.oid = k.buffer_relid ORDER BY length(c.relname)"""
    ).fetchall()
    assert [row[1] for row in found] == ["st_author", "other"]
    assert [row[2] for row in found] == ["", ""]
    for conn, buffer in ((author, found[1][0]), (other, found[0][0])):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"SELECT FROM pgtrickle_changes.{buffer}".encode())
    # What one breaks doesn't reach the other.
    other.execute(f"DROP TABLE pgtrickle_changes.{found[1][0]}".encode())
    db.execute("INSERT INTO t VALUES (1, 2, 3)")
    author.execute(REFRESH)
    assert last_reason(db) is None
    assert_fresh(db, "public.s")


def test_default_privileges_of_the_superuser_do_not_open_a_buffer(
    database: Any, db: Connection, author: Connection
) -> None:
    db.execute(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; CREATE TABLE u (a int); GRANT SELECT ON u TO st_author"
    )
    pg_trickle.create_stream_table(author, "public.u_s", "SELECT a FROM u")
    (leaks,) = db.execute(
        """SELECT count(*) FROM pgtrickle.pgt_captures AS k JOIN pg_class AS c ON c.oid = k.buffer_relid
            CROSS JOIN LATERAL aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner"""
    ).fetchone() or (1,)
    assert leaks == 0


def test_columns_and_captures_that_nobody_needs_any_more_go(db: Connection, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "public.s2", "SELECT junk FROM t")
    columns = "SELECT columns FROM pgtrickle.pgt_captures"
    assert db.execute(columns).fetchone() == (["junk", "a", "b"],)
    author.execute("SELECT pgtrickle.drop_stream_table('public.s')")
    assert db.execute(columns).fetchone() == (["junk"],)
    author.execute("SELECT pgtrickle.drop_stream_table('public.s2')")
    assert db.execute(columns).fetchone() is None
    (left,) = db.execute(
        """SELECT (SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass)
                + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture\\_%\\_ins')
                + (SELECT count(*) FROM pg_class WHERE relname LIKE 'changes\\_%')"""
    ).fetchone() or (1,)
    assert left == 0


def test_a_new_column_in_the_buffer_starts_nobody_else_afresh(
    db: Connection, author: Connection, assert_fresh: Oracle
) -> None:
    db.execute("INSERT INTO t VALUES (1, 2, 3)")
    pg_trickle.create_stream_table(author, "public.s2", "SELECT junk, a FROM t")
    db.execute("INSERT INTO t VALUES (4, 5, 6)")
    author.execute(REFRESH)
    assert last_reason(db) is None
    assert_fresh(db, "public.s")
    author.execute("SELECT pgtrickle.refresh_stream_table('public.s2')")
    assert_fresh(db, "public.s2")
