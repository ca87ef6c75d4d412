"""One script, three doors: CREATE EXTENSION from the package, copied files, plain SQL; and out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pg_trickle import PgTrickleError, create_stream_table
from pg_trickle.install import install as installer

Connection = psycopg.Connection[tuple[Any, ...]]

pytestmark = pytest.mark.versions

OBJECTS = """
    SELECT p.oid::regprocedure::text, md5(pg_get_functiondef(p.oid)), p.proacl::text, obj_description(p.oid, 'pg_proc')
      FROM pg_proc AS p
     WHERE p.pronamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace)
    UNION ALL
    SELECT c.oid::regclass::text, c.relkind::text, c.relacl::text, obj_description(c.oid, 'pg_class')
      FROM pg_class AS c
     WHERE c.relnamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace)
     ORDER BY 1
"""


def with_stream_table(conn: Connection) -> None:
    conn.execute("CREATE TABLE t (a int PRIMARY KEY)")
    conn.execute("INSERT INTO t VALUES (1), (2)")
    create_stream_table(conn, "s", "SELECT a FROM t")


def assert_only_tables_are_left(conn: Connection) -> None:
    assert conn.execute("SELECT a FROM s ORDER BY a").fetchall() == [(1,), (2,)]
    assert conn.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall() == []
    assert conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgtrickle%'").fetchall() == []
    conn.execute("INSERT INTO t VALUES (3)")
    conn.execute("INSERT INTO s VALUES (3)")
    conn.execute("DROP TABLE s, t")


def test_the_plain_script_makes_what_the_extension_makes(bare_database: Any) -> None:
    conn = bare_database.connect()
    installer.install(conn)
    assert conn.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trickle'").fetchall() == []
    by_script = conn.execute(OBJECTS).fetchall()
    installer.uninstall(conn)
    conn.execute("CREATE EXTENSION pg_trickle")
    assert conn.execute(OBJECTS).fetchall() == by_script


def test_dropping_the_extension_leaves_ordinary_tables(db: Connection) -> None:
    with_stream_table(db)
    db.execute("DROP EXTENSION pg_trickle CASCADE")
    assert_only_tables_are_left(db)


@pytest.mark.parametrize("how", ["extension", "script"])
def test_uninstalling_leaves_ordinary_tables(bare_database: Any, how: str) -> None:
    conn = bare_database.connect()
    doors: dict[str, Callable[[], Any]] = {
        "extension": lambda: conn.execute("CREATE EXTENSION pg_trickle"),
        "script": lambda: installer.install(conn),
    }
    doors[how]()
    with_stream_table(conn)
    installer.uninstall(conn)
    assert_only_tables_are_left(conn)


def test_it_can_be_installed_again(bare_database: Any) -> None:
    conn = bare_database.connect()
    for _ in range(2):
        installer.install(conn)
        installer.uninstall(conn)
    conn.execute("CREATE EXTENSION pg_trickle")


@pytest.mark.parametrize("schema", ["pgtrickle", "pgtrickle_changes"])
def test_what_dropping_a_schema_by_hand_left_is_removed(bare_database: Any, schema: str) -> None:
    conn = bare_database.connect()
    installer.install(conn)
    with_stream_table(conn)
    create_stream_table(conn, "i", "SELECT a FROM t", refresh_mode="IMMEDIATE")
    conn.execute(f"DROP SCHEMA {schema} CASCADE".encode())
    with pytest.raises(PgTrickleError, match="already installed"):
        installer.install(conn)
    installer.uninstall(conn)
    assert_only_tables_are_left(conn)
    with pytest.raises(PgTrickleError, match="not installed"):
        installer.uninstall(conn)


def test_only_a_superuser_may_install(bare_database: Any) -> None:
    plain = bare_database.make_role("pgt_plain_installer")
    with bare_database.connect() as admin:
        admin.execute(f"GRANT CREATE ON DATABASE {bare_database.name} TO {plain}".encode())
    conn = bare_database.connect(plain)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("CREATE EXTENSION pg_trickle")
    with pytest.raises(PgTrickleError) as caught:
        installer.install(conn)
    assert caught.value.sqlstate == "42501"
    assert conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgtrickle%'").fetchall() == []
    conn.close()
