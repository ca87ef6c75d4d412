"""Creating stream tables: all variants, names, settings, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import sql

import pg_trickle
from tests.definition.conftest import TOTALS, Connection, Fails, rows


@pytest.mark.versions
def test_an_author_with_the_guides_grants_can_do_everything(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "order_summary", TOTALS)
    shop.superuser.execute("INSERT INTO orders VALUES (100, 1, 5, '')")
    pg_trickle.refresh_stream_table(author, "order_summary")
    assert pg_trickle.verify_stream_table(author, "order_summary") == (0, 0, True)
    shop.fresh("order_summary")
    pg_trickle.alter_stream_table(author, "order_summary", schedule="5m", tier="warm")
    pg_trickle.alter_stream_table(author, "order_summary", query=TOTALS.replace("sum", "max"))
    shop.fresh("order_summary")
    pg_trickle.suspend_stream_table(author, "order_summary")
    pg_trickle.resume_stream_table(author, "order_summary")
    pg_trickle.drop_stream_table(author, "order_summary")
    assert shop.traces() == []


def test_a_table_keeps_no_order_and_that_is_said(shop: Any, author: Connection) -> None:
    told: list[str | None] = []
    author.add_notice_handler(lambda diag: told.append(diag.message_primary))
    pg_trickle.create_stream_table(author, "plain", TOTALS)
    pg_trickle.create_stream_table(
        author, "within", "SELECT q.id FROM (SELECT id FROM orders ORDER BY id LIMIT 2) AS q"
    )
    assert told == []
    pg_trickle.create_stream_table(author, "st", "SELECT id FROM orders ORDER BY id DESC")
    assert told == ['stream table "st" has no order of its own']
    shop.fresh("st")


def test_the_catalog_says_what_was_asked_for(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(
        author,
        "st",
        TOTALS + " -- by customer",
        schedule=" Calculated ",
        refresh_mode="auto",
        diamond_consistency="none",
        diamond_schedule_policy="slowest",
        cdc_mode="trigger",
        append_only=True,
    )
    row = shop.catalog("st")
    expected = {
        "pgt_schema": "public",
        "pgt_name": "st",
        "defining_query": TOTALS + " -- by customer",
        "schedule": "calculated",
        "schedule_seconds": None,
        "refresh_mode": "AUTO",
        "effective_refresh_mode": "DIFFERENTIAL",
        "downgrade_reason": None,
        "status": "ACTIVE",
        "is_populated": True,
        "needs_reinit": False,
        "diamond_consistency": "none",
        "diamond_schedule_policy": "slowest",
        "cdc_mode": "trigger",
        "append_only": True,
    }
    assert {name: row[name] for name in expected} == expected
    history = rows(
        shop.superuser, "SELECT refresh_mode, initiated_by, success, rows_out FROM pgtrickle.pgt_refresh_history"
    )
    assert history == [("FULL", "INITIAL", True, 5)]


def test_without_initialize_the_first_refresh_fills_it(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS, initialize=False)
    assert rows(author, "SELECT * FROM st") == []
    assert (shop.catalog("st")["status"], shop.catalog("st")["is_populated"]) == ("INITIALIZING", False)
    shop.superuser.execute("DELETE FROM orders WHERE id = 1")
    shop.fresh("st")
    assert shop.catalog("st")["status"] == "ACTIVE"


def test_if_not_exists_leaves_alone_what_is_there(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table_if_not_exists(author, "st", TOTALS)
    before = shop.catalog("st")
    pg_trickle.create_stream_table_if_not_exists(author, "st", "SELECT 1 AS one", schedule="5m")
    assert shop.catalog("st") == before


def test_or_replace_creates_keeps_and_changes(shop: Any, author: Connection) -> None:
    pg_trickle.create_or_replace_stream_table(author, "st", TOTALS)
    before = shop.catalog("st")
    compiled = rows(shop.superuser, "SELECT compiled_at FROM pgtrickle.pgt_plans")
    pg_trickle.create_or_replace_stream_table(author, "st", TOTALS)
    assert shop.catalog("st") == before
    assert rows(shop.superuser, "SELECT compiled_at FROM pgtrickle.pgt_plans") == compiled
    pg_trickle.create_or_replace_stream_table(author, "st", TOTALS + " HAVING sum(amount) > 40", schedule=None)
    assert shop.catalog("st")["pgt_relid"] == before["pgt_relid"]
    assert shop.catalog("st")["schedule"] is None
    shop.fresh("st")


def test_or_replace_knows_that_the_same_text_may_mean_something_else(shop: Any, author: Connection) -> None:
    shop.superuser.execute("CREATE SCHEMA own AUTHORIZATION st_author")
    author.execute("CREATE TABLE own.orders (customer_id int, amount numeric(10, 2))")
    pg_trickle.create_or_replace_stream_table(author, "public.st", TOTALS)
    author.execute("SET search_path = own, public")
    pg_trickle.create_or_replace_stream_table(author, "public.st", TOTALS)
    assert rows(author, "SELECT * FROM public.st") == []


def test_rolling_back_leaves_nothing(shop: Any, author: Connection) -> None:
    before = shop.traces()
    with author.transaction(force_rollback=True):
        author.execute("CREATE TABLE t (a int PRIMARY KEY)")
        author.execute("INSERT INTO t VALUES (1), (2)")
        pg_trickle.create_stream_table(author, "st", "SELECT a, count(*) AS n FROM t GROUP BY a")
        pg_trickle.create_stream_table(author, "st2", "SELECT sum(n) AS n FROM st")
        assert rows(author, "SELECT n FROM st2") == [(2,)]
        author.execute("INSERT INTO t VALUES (3)")
        pg_trickle.refresh_stream_table(author, "st2")
        assert rows(author, "SELECT n FROM st2") == [(3,)]
        pg_trickle.drop_stream_table(author, "st", cascade=True)
    assert shop.traces() == before == []


def test_a_dropped_name_can_be_used_again_in_one_transaction(shop: Any, author: Connection) -> None:
    with author.transaction():
        pg_trickle.create_stream_table(author, "st", TOTALS)
        pg_trickle.drop_stream_table(author, "st")
        pg_trickle.create_stream_table(author, "st", "SELECT id FROM orders")
    shop.fresh("st")


@pytest.mark.parametrize(
    "what", ["TABLE st (a int)", "VIEW st AS SELECT 1 AS a", "SEQUENCE st", "INDEX st ON orders (id)"]
)
def test_a_name_that_is_taken(shop: Any, author: Connection, fails: Fails, what: str) -> None:
    shop.superuser.execute(f"CREATE {what}".encode())
    for create in (
        pg_trickle.create_stream_table,
        pg_trickle.create_stream_table_if_not_exists,
        pg_trickle.create_or_replace_stream_table,
    ):
        fails("42P07", create, author, "st", TOTALS)
    assert shop.traces() == []


def test_a_stream_table_of_somebody_else(shop: Any, author: Connection, fails: Fails) -> None:
    other = shop.author("other")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    before = shop.catalog("st")
    fails("42P07", pg_trickle.create_stream_table, other, "st", TOTALS)
    fails("42501", pg_trickle.create_or_replace_stream_table, other, "st", "SELECT 1 AS one")
    pg_trickle.create_stream_table_if_not_exists(other, "st", TOTALS)
    assert shop.catalog("st") == before


def test_the_first_schema_of_the_path_is_where_it_goes(shop: Any, author: Connection) -> None:
    """Even when a schema further down has one of that name."""
    shop.superuser.execute("CREATE SCHEMA own AUTHORIZATION st_author")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    author.execute("SET search_path = own, public")
    pg_trickle.create_stream_table(author, "st", "SELECT id FROM orders")
    assert shop.columns("own.st") == [("id", "integer")]
    pg_trickle.drop_stream_table(author, "st")
    pg_trickle.alter_stream_table(author, "st", query="SELECT id FROM customers")
    assert shop.columns("public.st") == [("id", "integer")]


BAD_ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("22023", {"refresh_mode": "SOMETIMES"}),
    ("22023", {"diamond_consistency": "x"}),
    ("22023", {"diamond_schedule_policy": "x"}),
    ("22023", {"cdc_mode": "x"}),
    ("55000", {"cdc_mode": "wal"}),
    ("22023", {"schedule": "soon"}),
    ("22023", {"name": ""}),
    ("22023", {"name": "a.b.c"}),
    ("22023", {"name": 'a"b'}),
    ("22023", {"name": "a b"}),
    ("22023", {"name": "1a"}),
    ("22023", {"name": '""'}),
    ("22023", {"name": "st; DROP TABLE orders"}),
    ("22023", {"name": None}),
    ("3F000", {"name": "nowhere.st"}),
    ("22023", {"name": "pgtrickle.st"}),
    ("22023", {"name": "pgtrickle_changes.st"}),
    ("22023", {"name": "pg_catalog.st"}),
    ("3F000", {"name": "pg_temp.st"}),
    ("42601", {"query": None}),
]


@pytest.mark.parametrize(("sqlstate", "arguments"), BAD_ARGUMENTS, ids=lambda value: str(value))
def test_bad_arguments(shop: Any, author: Connection, fails: Fails, sqlstate: str, arguments: dict[str, Any]) -> None:
    error = fails(sqlstate, pg_trickle.create_stream_table, author, **{"name": "st", "query": TOTALS, **arguments})
    assert error.diag.message_hint or error.diag.message_detail or sqlstate == "3F000"
    assert shop.traces() == []


def test_no_schema_to_create_in(author: Connection, fails: Fails) -> None:
    author.execute("SET search_path = nowhere")
    fails("3F000", pg_trickle.create_stream_table, author, "st", "SELECT id FROM public.orders")


NAMES = [
    "Upper Case",
    'quo"te',
    "do.t",
    "$$",
    "a$$b$body$",
    "';--",
    "'); DROP TABLE orders; --",
    "%I %s %%",
    "back\\slash",
    "emoji 😀",
    "x" * 63,
    "ä" * 31,
    "select",
    "new\nline",
    "{brace}",
    "@extschema@",
]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", NAMES)
def test_names_are_names(shop: Any, name: str) -> None:
    """As role, schema, source, column and stream table; and after a refresh, a new query and a drop."""
    role = shop.database.make_role(f"{name}"[:60])
    i = sql.Identifier(name)
    su = shop.superuser
    su.execute(sql.SQL("CREATE SCHEMA {s} AUTHORIZATION {r}").format(s=i, r=sql.Identifier(role)))
    su.execute(sql.SQL("GRANT USAGE ON SCHEMA pgtrickle TO {r}").format(r=sql.Identifier(role)))
    su.execute(sql.SQL("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO {r}").format(r=sql.Identifier(role)))
    conn = shop.as_(role)
    source = sql.Identifier(name, name[:59] + "_src" if len(name) < 60 else name[:59])
    conn.execute(sql.SQL("CREATE TABLE {t} ({c} text PRIMARY KEY, w int, xid int, n numeric)").format(t=source, c=i))
    conn.execute(sql.SQL("INSERT INTO {t} VALUES ('a', 1, 2, 3), ('b', 2, 3, 4)").format(t=source))
    target = f"{quoted(name)}.{quoted(name)}"
    whole = sql.SQL("SELECT {c}, w, xid, n FROM {t} WHERE w > 0").format(c=i, t=source).as_string(conn)
    grouped = sql.SQL("SELECT w AS {c}, count(*) AS n, max({c}) AS xid FROM {t} GROUP BY w").format(c=i, t=source)
    pg_trickle.create_stream_table(conn, target, whole)
    conn.execute(sql.SQL("INSERT INTO {t} VALUES ('c', 1, 2, 3)").format(t=source))
    shop.fresh(target)
    assert shop.catalog(target)["pgt_name"] == name
    pg_trickle.alter_stream_table(conn, target, query=grouped.as_string(conn))
    conn.execute(sql.SQL("UPDATE {t} SET w = 5 WHERE xid = 2").format(t=source))
    shop.fresh(target)
    reader = sql.SQL("SELECT {c} FROM {t} GROUP BY {c}").format(c=i, t=sql.Identifier(name, name)).as_string(conn)
    pg_trickle.create_stream_table(conn, f"{quoted(name)}.reader", reader)
    conn.execute(sql.SQL("DELETE FROM {t} WHERE xid = 3").format(t=source))
    shop.fresh(f"{quoted(name)}.reader")
    pg_trickle.drop_stream_table(conn, target, cascade=True)
    assert shop.traces() == []
    conn.close()


def test_unquoted_names_fold_and_long_ones_are_cut(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "PUBLIC.St", "SELECT id FROM orders")
    pg_trickle.create_stream_table(author, "y" * 70, "SELECT id FROM orders")
    assert shop.catalog("public.st")
    assert shop.catalog("y" * 63)["pgt_name"] == "y" * 63
    shop.fresh("st", "y" * 63)
