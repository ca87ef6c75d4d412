"""Who may do what, as the real roles: the security guide's threats against defining stream tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

import pg_trickle
from pg_trickle.api import compile_locally
from tests.definition.conftest import TOTALS, Connection, Fails

FULL = "SELECT customer_id, amount AS total FROM orders LIMIT 1000000"


def minimal(shop: Any, name: str) -> Connection:
    """A role with what the guide says it takes, function by function."""
    shop.database.make_role(name, sql.SQL("LOGIN NOINHERIT"))
    shop.superuser.execute(
        f"""GRANT USAGE, CREATE ON SCHEMA public TO {name};
            GRANT SELECT ON orders, customers TO {name};
            GRANT USAGE ON SCHEMA pgtrickle TO {name};
            GRANT EXECUTE ON FUNCTION pgtrickle.create_stream_table_with_plan, pgtrickle.compile_request,
                                      pgtrickle.create_stream_table TO {name}""".encode()
    )
    conn: Connection = shop.as_(name)
    return conn


@pytest.mark.versions
def test_exactly_the_guides_rights_are_enough(shop: Any) -> None:
    conn = minimal(shop, "minimal")
    pg_trickle.create_stream_table(conn, "st", TOTALS)
    shop.fresh("st")


@pytest.mark.parametrize(
    "missing",
    [
        "USAGE ON SCHEMA public",
        "CREATE ON SCHEMA public",
        "SELECT ON orders",
        "USAGE ON SCHEMA pgtrickle",
        "EXECUTE ON FUNCTION pgtrickle.create_stream_table_with_plan",
        "EXECUTE ON FUNCTION pgtrickle.create_stream_table",
    ],
)
@pytest.mark.parametrize("initialize", [True, False])
def test_none_of_them_can_be_spared(shop: Any, fails: Fails, missing: str, initialize: bool) -> None:
    conn = minimal(shop, "minimal")
    shop.superuser.execute(f"REVOKE {missing} FROM minimal".encode())
    if missing.endswith("SCHEMA public"):
        shop.superuser.execute(f"REVOKE {missing} FROM PUBLIC".encode())
    error = fails(
        "42501",
        pg_trickle.create_stream_table,
        conn,
        "public.st",
        TOTALS.replace("orders", "public.orders"),
        initialize=initialize,
    )
    assert "permission denied" in str(error)
    assert shop.traces() == []


# A4: every way to a table or column that one may not read.

WAYS: dict[str, Callable[..., Any]] = {
    "create": lambda conn, query: pg_trickle.create_stream_table(conn, "st", query),
    "create, not filled": lambda conn, query: pg_trickle.create_stream_table(conn, "st", query, initialize=False),
    "create in FULL": lambda conn, query: pg_trickle.create_stream_table(conn, "st", query, refresh_mode="FULL"),
    "if not exists": lambda conn, query: pg_trickle.create_stream_table_if_not_exists(conn, "st", query),
    "or replace": lambda conn, query: pg_trickle.create_or_replace_stream_table(conn, "st", query),
    "alter": lambda conn, query: pg_trickle.alter_stream_table(conn, "mine", query=query),
    "replace": lambda conn, query: pg_trickle.create_or_replace_stream_table(conn, "mine", query),
    "compile request": lambda conn, query: compile_locally(conn, "st", query),
    "validate": lambda conn, query: pg_trickle.validate_query(conn, query),
    "bridge": lambda conn, query: conn.execute("SELECT pgtrickle.create_stream_table('st', %s)", (query,)),
}
FORBIDDEN = [
    "SELECT id FROM hidden",
    "SELECT secret FROM partly",
    "SELECT * FROM partly",
    "SELECT id FROM partly WHERE secret = 'x'",
    "SELECT id FROM partly ORDER BY secret",
    "SELECT count(*) FROM partly AS p WHERE p IS NOT NULL",
    "SELECT p.id FROM partly AS p JOIN orders USING (id) WHERE p.secret > note",
    "SELECT id FROM hidden_view",
    "SELECT secret FROM own_view_on_partly",
    "SELECT id FROM others_stream_table",
    "SELECT id FROM orders WHERE EXISTS (SELECT FROM hidden)",
    "WITH h AS (SELECT id FROM hidden) SELECT id FROM h",
    "SELECT id FROM closed.open_table",
    "SELECT rolpassword FROM pg_authid",
    "SELECT id FROM pgtrickle_changes.bridge_requests",
]


@pytest.fixture
def forbidden(shop: Any, author: Connection) -> Connection:
    """An author, and things beside him that he may not see."""
    pg_trickle.create_stream_table(author, "mine", "SELECT id FROM orders")
    shop.superuser.execute(
        """CREATE TABLE hidden (id int PRIMARY KEY);
           CREATE TABLE partly (id int PRIMARY KEY, secret text);
           GRANT SELECT (id) ON partly TO st_author;
           CREATE VIEW hidden_view AS SELECT id FROM hidden;
           CREATE SCHEMA closed;
           CREATE TABLE closed.open_table (id int);
           GRANT SELECT ON closed.open_table TO st_author"""
    )
    author.execute("CREATE VIEW own_view_on_partly AS SELECT id, secret FROM partly")
    pg_trickle.create_stream_table(shop.superuser, "others_stream_table", "SELECT id FROM hidden")
    return author


@pytest.mark.parametrize("way", WAYS)
def test_there_is_no_way_to_what_one_may_not_read(shop: Any, forbidden: Connection, fails: Fails, way: str) -> None:
    before = shop.traces()
    for query in FORBIDDEN:
        fails("42501", WAYS[way], forbidden, query)
    assert shop.traces() == before


def test_columns_that_one_may_read_are_enough(shop: Any, forbidden: Connection) -> None:
    for name, query in {
        "incremental": "SELECT id FROM partly",
        "recomputed": "SELECT id FROM partly LIMIT 1000000",
    }.items():
        pg_trickle.create_stream_table(forbidden, name, query)
        shop.superuser.execute("INSERT INTO partly SELECT count(*), 'x' FROM partly")
        shop.fresh(name)
    (columns,) = shop.superuser.execute(
        "SELECT columns FROM pgtrickle.pgt_captures WHERE source_relid = 'partly'::regclass"
    ).fetchone()
    assert columns == ["id"]


# What is opaque: it can be read, but its changes may not be captured.


def test_a_view_that_shows_what_its_reader_may_not_read_is_recomputed(shop: Any, author: Connection) -> None:
    shop.superuser.execute(
        """CREATE TABLE hidden (id int PRIMARY KEY, secret text);
           INSERT INTO hidden VALUES (1, 'a'), (2, 'b');
           CREATE VIEW shown AS SELECT id FROM hidden;
           CREATE VIEW above AS SELECT id AS renamed FROM shown;
           GRANT SELECT ON shown, above TO st_author"""
    )
    for name, query in {
        "st": "SELECT id FROM shown",
        "st2": "SELECT renamed, count(*) AS n FROM above GROUP BY 1",
    }.items():
        pg_trickle.create_stream_table(author, name, query)
        row = shop.catalog(name)
        assert row["effective_refresh_mode"] == "FULL"
        assert "may not read" in row["downgrade_reason"]
        shop.superuser.execute("INSERT INTO hidden SELECT max(id) + 1, 'c' FROM hidden")
        shop.fresh(name)
        pg_trickle.verify_stream_table(author, name)
    assert shop.superuser.execute("SELECT count(*) FROM pgtrickle.pgt_captures").fetchone() == (0,)
    shop.superuser.execute("REVOKE SELECT ON shown FROM st_author")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pg_trickle.refresh_stream_table(author, "st")


@pytest.mark.parametrize(("query", "mode"), [(TOTALS, "DIFFERENTIAL"), (FULL, "FULL")])
def test_rows_that_a_policy_hides_are_not_captured(shop: Any, author: Connection, query: str, mode: str) -> None:
    shop.superuser.execute(
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON orders TO st_author USING (id < 5)"
    )
    pg_trickle.create_stream_table(author, "st", query)
    assert shop.catalog("st")["effective_refresh_mode"] == mode
    for change in ("UPDATE orders SET amount = amount + 1", "INSERT INTO orders VALUES (-1, 7, 7, ''), (70, 7, 7, '')"):
        shop.superuser.execute(change.encode())
        for conn in (author, shop.superuser):
            pg_trickle.refresh_stream_table(conn, "st")
            assert (
                author.execute("SELECT sum(total) FROM st").fetchone()
                == author.execute(f"SELECT sum(total) FROM ({query}) AS q".encode()).fetchone()
            )
    # Of the update four rows, twice each; of the new rows one.
    (buffer,) = shop.superuser.execute("SELECT buffer FROM pgtrickle.pgt_captures").fetchone()
    count = sql.SQL("SELECT count(*) FROM {} WHERE w <> 0").format(sql.Identifier("pgtrickle_changes", buffer))
    assert shop.superuser.execute(count).fetchone() == (9,)


# A5: what is revoked later.

REVOKED = {
    "the table": ("SELECT ON orders", TOTALS),
    "the schema": ("USAGE ON SCHEMA public", TOTALS.replace("orders", "public.orders")),
    "a column": ("SELECT (amount) ON orders", TOTALS),
    "a view": ("SELECT ON v", "SELECT customer_id, sum(amount) AS total FROM v GROUP BY 1"),
    "a recomputed table": ("SELECT ON orders", FULL),
}


@pytest.mark.parametrize("changed", [True, False], ids=["changed", "unchanged"])
@pytest.mark.parametrize("what", REVOKED)
def test_without_the_right_to_read_a_refresh_fails_and_the_rows_stay(
    shop: Any, author: Connection, fails: Fails, what: str, changed: bool
) -> None:
    right, query = REVOKED[what]
    if what == "a column":
        shop.superuser.execute("REVOKE SELECT ON orders FROM st_author")
        shop.superuser.execute("GRANT SELECT (customer_id), SELECT (amount) ON orders TO st_author")
    shop.superuser.execute("CREATE VIEW v AS SELECT * FROM orders; GRANT SELECT ON v TO st_author")
    pg_trickle.create_stream_table(author, "st", query)
    before = shop.superuser.execute("SELECT * FROM st ORDER BY 1").fetchall()
    shop.superuser.execute(f"REVOKE {right} FROM st_author".encode())
    if "SCHEMA" in right:
        shop.superuser.execute(f"REVOKE {right} FROM PUBLIC".encode())
    if changed:
        shop.superuser.execute("UPDATE orders SET amount = amount * 2")
    for conn in (author, shop.superuser):
        fails("42501", pg_trickle.refresh_stream_table, conn, "public.st")
    pg_trickle.reinitialize_stream_table(shop.superuser, "public.st")
    fails("42501", pg_trickle.refresh_stream_table, shop.superuser, "public.st")
    fails("42501", pg_trickle.verify_stream_table, shop.superuser, "public.st")
    assert shop.superuser.execute("SELECT * FROM st ORDER BY 1").fetchall() == before
    shop.superuser.execute(f"GRANT {right} TO st_author".encode())
    shop.fresh("st")


# A7: whose stream table it is.

DEEDS: dict[str, Callable[..., Any]] = {
    "refresh": lambda conn: pg_trickle.refresh_stream_table(conn, "st"),
    "alter": lambda conn: pg_trickle.alter_stream_table(conn, "st", schedule="5m"),
    "new query": lambda conn: pg_trickle.alter_stream_table(conn, "st", query="SELECT 1 AS one"),
    "alter with a plan": lambda conn: conn.execute(
        "SELECT pgtrickle.alter_stream_table_with_plan('st', plan => %s)", (Jsonb({}),)
    ),
    "drop": lambda conn: pg_trickle.drop_stream_table(conn, "st"),
    "drop cascade": lambda conn: pg_trickle.drop_stream_table(conn, "st", cascade=True),
    "suspend": lambda conn: pg_trickle.suspend_stream_table(conn, "st"),
    "resume": lambda conn: pg_trickle.resume_stream_table(conn, "st"),
    "reinitialize": lambda conn: pg_trickle.reinitialize_stream_table(conn, "st"),
    "verify": lambda conn: pg_trickle.verify_stream_table(conn, "st"),
    "replace": lambda conn: pg_trickle.create_or_replace_stream_table(conn, "st", "SELECT 1 AS one"),
    "stale plans": lambda conn: conn.execute(
        "INSERT INTO pgtrickle.gate (action, args) VALUES ('stale_plans', %s)", (Jsonb({"name": "st"}),)
    ),
    "compile request": lambda conn: conn.execute("SELECT pgtrickle.compile_request('st', 'SELECT 1', true)"),
    "appoint a worker": lambda conn: conn.execute("SELECT pgtrickle.grant_worker(current_user)"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_other_peoples_stream_tables_are_theirs(shop: Any, author: Connection, fails: Fails, deed: str) -> None:
    other = shop.author("other")
    shop.superuser.execute(
        "GRANT USAGE ON SCHEMA pgtrickle_changes TO other; GRANT SELECT ON ALL TABLES IN SCHEMA public TO other"
    )
    pg_trickle.create_stream_table(author, "st", TOTALS)
    before = shop.catalog("st"), shop.traces()
    fails("42501", DEEDS[deed], other)
    assert (shop.catalog("st"), shop.traces()) == before


def test_no_helper_can_be_called_directly(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    shop.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO st_author")
    (open_to_author,) = shop.superuser.execute(
        """SELECT array_agg(p.proname::text ORDER BY p.proname) FROM pg_proc AS p
            WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
              AND has_function_privilege('st_author', p.oid, 'EXECUTE')"""
    ).fetchone()
    (oid,) = shop.superuser.execute("SELECT 'st_author'::regrole::oid::text").fetchone()
    assert [name for name in open_to_author if not name.startswith("capture_")] == [f"as_{oid}"]


def test_members_of_the_owning_role_may_do_it(shop: Any, author: Connection, fails: Fails) -> None:
    shop.author("colleague").execute("SELECT 1")
    shop.superuser.execute("ALTER ROLE colleague INHERIT; GRANT st_author TO colleague")
    colleague = shop.as_("colleague")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    pg_trickle.refresh_stream_table(colleague, "st")
    pg_trickle.alter_stream_table(colleague, "st", query=TOTALS + " HAVING count(*) > 1")
    assert shop.superuser.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'st'").fetchone() == (
        "st_author",
    )
    assert shop.superuser.execute("SELECT owner_oid::regrole::text FROM pgtrickle.pgt_stream_tables").fetchone() == (
        "st_author",
    )
    pg_trickle.drop_stream_table(colleague, "st")


def test_set_role_is_who_one_is(shop: Any, author: Connection, fails: Fails) -> None:
    shop.superuser.execute("SET ROLE st_author")
    pg_trickle.create_stream_table(shop.superuser, "st", TOTALS)
    fails("42501", pg_trickle.create_stream_table, shop.superuser, "st2", "SELECT rolpassword FROM pg_authid")
    shop.superuser.execute("RESET ROLE")
    assert shop.superuser.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'st'").fetchone() == (
        "st_author",
    )


def test_two_authors_have_two_buffers(shop: Any, author: Connection, fails: Fails) -> None:
    other = shop.author("other")
    pg_trickle.create_stream_table(author, "a", TOTALS)
    pg_trickle.create_stream_table(other, "b", "SELECT id, note FROM orders")
    buffers = shop.superuser.execute(
        """SELECT 'pgtrickle_changes.' || buffer, owner_oid::regrole::text, columns
             FROM pgtrickle.pgt_captures ORDER BY 2"""
    ).fetchall()
    assert [(owner, columns) for _, owner, columns in buffers] == [
        ("other", ["id", "note"]),
        ("st_author", ["customer_id", "amount"]),
    ]
    for conn, (buffer, _, _) in ((author, buffers[0]), (other, buffers[1])):
        for statement in (
            "SELECT * FROM {}",
            "DELETE FROM {}",
            "DROP TABLE {}",
            "TRUNCATE {}",
            "INSERT INTO {} (w) VALUES (1)",
        ):
            fails("42501", conn.execute, statement.format(buffer).encode())
    shop.superuser.execute("UPDATE orders SET note = 'x', amount = 1")
    other.execute(sql.SQL("DROP TABLE {} CASCADE").format(sql.Identifier(*buffers[0][0].split("."))))
    shop.superuser.execute("UPDATE orders SET amount = 2")
    shop.fresh("a", "b")
