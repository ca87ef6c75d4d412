"""Creating stream tables: all variants, names, settings, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from cronsim import CronSim, CronSimError
from psycopg import sql

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Fails = Callable[..., psycopg.Error]

TOTALS = "SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id"


def rows(conn: Connection, query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode()).fetchall()


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


SCHEDULES = [
    ("30s", 30),
    ("1h30m", 5400),
    ("1h 30m", 5400),
    ("2w", 1209600),
    ("90", 90),
    ("1.5", 1.5),
    (" 5m ", 300),
    ("calculated", None),
    ("CALCULATED", None),
    (None, None),
    ("*/5 * * * *", None),
    ("0 0 1,15 * MON-FRI", None),
    ("30 0 12 * * 0", None),
    ("0 12 L * *", None),
    ("0 12 * JAN-MAR 1#2", None),
    ("@hourly", None),
    ("@Daily", None),
]


def test_schedules(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT id FROM orders", initialize=False)
    for schedule, seconds in SCHEDULES:
        pg_trickle.create_or_replace_stream_table(author, "st", "SELECT id FROM orders", schedule=schedule)
        row = shop.catalog("st")
        assert row["schedule_seconds"] == seconds, schedule
        assert row["schedule"] == (schedule and (schedule.lower() if schedule[0] in "cC@" else schedule).strip())


BAD_SCHEDULES = [
    "", " ", "0", "0.5", "0s", "-5", "5x", "s", "1m30", "5 m", "1e3", "NaN", "infinity", "@sometimes", "@", "* * * *",
    "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 * ", "* * * * 8", "5-1 * * * *",
    "*/0 * * * *", "a b c d e", "1,,2 * * * *", "* * * * MONDAY", "' OR 1=1 --", "* * * * *;",
    "0 0 30 2 *", "0 0 31 4,FEB *", "0 0 0 31 9-11/2 */2",
]  # fmt: skip


def test_a_day_that_never_comes_is_told_as_the_worker_understands_it(db: Connection) -> None:
    expressions = [
        f"0 0 {day} {month} {weekday}"
        for day in ("1", "29", "30", "31", "30,31", "29-31", "30/1", "L", "31,L", "*")
        for month in ("2", "FEB", "4", "2,4", "1-2", "2-4", "9-11/2", "9/2", "2,12", "*/3", "*")
        for weekday in ("*", "*/2", "1", "MON-FRI")
    ]
    found = db.execute("SELECT e, pgtrickle_changes.is_cron(e) FROM unnest(%s::text[]) AS e", (expressions,)).fetchall()
    assert dict(found) == {text: _comes(text) for text in expressions}


def _comes(expression: str) -> bool:
    try:
        CronSim(expression, datetime.fromtimestamp(0, UTC))
    except CronSimError:
        return False
    return True


def test_bad_schedules(shop: Any, author: Connection, fails: Fails) -> None:
    for schedule in BAD_SCHEDULES:
        error = fails("22023", pg_trickle.create_stream_table, author, "st", "SELECT id FROM orders", schedule=schedule)
        assert error.diag.message_hint, schedule
    assert shop.traces() == []


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


# One query and nothing else.

NO_QUERY = [
    "", "   ", ";", ";;", "\n", "-- nothing", "/* nothing */",
    "SELECT 1 AS a; SELECT 2 AS a", "SELECT 1 AS a; DROP TABLE orders", "DROP TABLE orders",
    "INSERT INTO orders VALUES (99) RETURNING id", "DELETE FROM orders", "UPDATE orders SET note = '' RETURNING id",
    "WITH gone AS (DELETE FROM orders RETURNING id) SELECT id FROM gone", "SELECT id INTO other FROM orders",
    "CREATE TABLE x AS SELECT 1", "EXPLAIN SELECT 1", "SHOW search_path", "COPY orders TO STDOUT", "DO 'BEGIN END'",
    "TRUNCATE orders", "SELEC 1", "SELECT 1 AS a FROM", "SELECT 1 AS a) AS q; --", "BEGIN", "COMMIT", "VACUUM",
    "EXECUTE something", "FETCH 1 FROM c", "LISTEN x", "SELECT 1 AS a WITH CHECK OPTION",
]  # fmt: skip


@pytest.mark.parametrize("query", NO_QUERY)
def test_what_is_no_query(shop: Any, author: Connection, fails: Fails, query: str) -> None:
    error = fails("42601", pg_trickle.create_stream_table, author, "st", query)
    assert "cursor" not in str(error.diag.message_primary)
    assert shop.traces() == []
    assert rows(shop.superuser, "SELECT count(*) FROM orders") == [(20,)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM orders;",
        "SELECT id FROM orders ; ; ",
        "SELECT id FROM orders -- a comment",
        "SELECT id FROM orders; -- a comment",
        "/* a */ SELECT /* ; */ id FROM orders /* b */",
        "(SELECT id FROM orders)",
        "TABLE orders",
        "VALUES (1, 'a'), (2, 'b')",
        "WITH o AS (SELECT id FROM orders) SELECT id FROM o",
        "SELECT ';' AS semicolon, '--' AS dashes, $$;$$ AS dollars",
    ],
)
def test_what_is_a_query(shop: Any, author: Connection, query: str) -> None:
    pg_trickle.create_stream_table(author, "st", query)
    shop.superuser.execute("INSERT INTO orders VALUES (77)")
    shop.fresh("st")


@pytest.mark.parametrize(
    ("sqlstate", "query"),
    [
        ("42P01", "SELECT 1 AS a FROM nowhere"),
        ("42703", "SELECT nothing FROM orders"),
        ("42701", "SELECT id, id FROM orders"),
        ("42601", "SELECT FROM orders"),
        ("42P16", "SELECT ROW(1, 2) AS r"),
        ("42P02", "SELECT $1 AS a"),
        ("42501", "SELECT rolpassword FROM pg_authid"),
    ],
)
def test_postgresqls_own_refusals(shop: Any, author: Connection, fails: Fails, sqlstate: str, query: str) -> None:
    fails(sqlstate, pg_trickle.create_stream_table, author, "st", query)
    assert shop.traces() == []


def test_temporary_tables_are_refused(shop: Any, author: Connection, fails: Fails) -> None:
    author.execute("CREATE TEMPORARY TABLE mine (a int)")
    for query in ("SELECT a FROM mine", "SELECT 1 AS a WHERE EXISTS (SELECT FROM pg_temp.mine)"):
        error = fails("0A000", pg_trickle.create_stream_table, author, "st", query)
        assert "temporary" in str(error)
    author.execute("CREATE TEMPORARY VIEW seen AS SELECT id FROM public.orders")
    fails("0A000", pg_trickle.create_stream_table, author, "st", "SELECT id FROM seen")
    assert shop.traces() == []


# What the creator's session says is what holds at every refresh.


def test_constants_mean_what_they_meant_to_the_creator(shop: Any, author: Connection) -> None:
    author.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard'")
    query = """SELECT id, '2024-01-01 00:00'::timestamptz AS at, '03/04/2024'::date AS day, '-1 2:00:00'::interval AS i,
                      to_char('2024-01-01 00:00'::timestamptz, 'HH24:MI') AS clock FROM orders"""
    as_text = "SELECT q::text FROM ({}) AS q WHERE id = 1"
    expected = author.execute(as_text.format(query).encode()).fetchone()
    pg_trickle.create_stream_table(author, "st", query)
    shop.superuser.execute("SET TimeZone = 'America/New_York'; SET DateStyle = 'ISO, YMD'")
    for _ in range(3):
        assert author.execute(as_text.format("TABLE st").encode()).fetchone() == expected
        shop.superuser.execute("UPDATE orders SET id = -id WHERE id = 1; UPDATE orders SET id = -id WHERE id = -1")
        # Every catalog row is new to the fingerprint: the plan is checked against the definition again.
        shop.superuser.execute("ALTER TABLE orders ALTER COLUMN note SET STATISTICS 10")
        pg_trickle.refresh_stream_table(shop.superuser, "st")
    assert pg_trickle.verify_stream_table(shop.superuser, "st").ok


@pytest.mark.parametrize("mode", ["AUTO", "FULL"])
def test_text_that_depends_on_settings_is_the_creators(shop: Any, author: Connection, mode: str) -> None:
    author.execute("CREATE TABLE moments (id int PRIMARY KEY, at timestamptz, i interval, f float8, b bytea)")
    author.execute("INSERT INTO moments VALUES (1, '2024-06-01 12:00+00', '-1 day 2 h', 0.1::float4, 'x')")
    author.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'")
    author.execute("SET bytea_output = 'escape'")
    query = "SELECT id, at::text AS at, i::text AS i, date_trunc('day', at) AS day, concat(at, b) AS both FROM moments"
    pg_trickle.create_stream_table(author, "st", query, refresh_mode=mode)
    for change in (
        "UPDATE moments SET at = at + interval '1 day'",
        "INSERT INTO moments SELECT 2, at, i, f, b FROM moments",
    ):
        author.execute(change.encode())
        pg_trickle.refresh_stream_table(shop.superuser, "st")
        as_text = "SELECT q::text FROM ({}) AS q ORDER BY 1"
        assert rows(author, as_text.format("TABLE st")) == rows(author, as_text.format(query))


def test_a_table_that_comes_first_on_the_path_later_is_not_read(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "public.st", TOTALS)
    shop.superuser.execute("CREATE SCHEMA own AUTHORIZATION st_author")
    author.execute("CREATE TABLE own.orders (customer_id int, amount numeric)")
    author.execute("SET search_path = own, public")
    shop.superuser.execute("SET search_path = own, public")
    shop.superuser.execute("INSERT INTO public.orders VALUES (50, 1, 1, '')")
    for _ in range(2):
        pg_trickle.refresh_stream_table(author, "public.st")
        assert rows(author, "SELECT sum(total) FROM public.st") == [(211,)]
        pg_trickle.reinitialize_stream_table(author, "public.st")


@pytest.mark.parametrize(
    "setting", ["standard_conforming_strings = off", "quote_all_identifiers = on", "transform_null_equals = on"]
)
def test_the_callers_parser_settings_do_not_matter(shop: Any, author: Connection, setting: str) -> None:
    author.execute(f"SET {setting}; SET client_min_messages = error".encode())
    query = "SELECT customer_id, max(note) AS note FROM public.orders WHERE note <> 'a' GROUP BY customer_id"
    pg_trickle.create_stream_table(author, "st", query, schedule="5m")
    shop.superuser.execute("UPDATE orders SET note = 'zz'")
    pg_trickle.refresh_stream_table(author, "st")
    shop.fresh("st")
    pg_trickle.create_or_replace_stream_table(author, "st", query, schedule="5m")
    pg_trickle.drop_stream_table(author, "st")


def test_a_refusal_says_what_where_why_and_what_to_write_instead(db):
    db.execute("CREATE TABLE t (id int)")
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        pg_trickle.create_stream_table(db, "s", "SELECT id FROM t LIMIT 3", refresh_mode="DIFFERENTIAL")
    told = caught.value.diag
    assert told.message_primary == "LIMIT without ORDER BY can't be maintained incrementally"
    why, where = (told.message_detail or "").splitlines()
    assert why == "which rows come first is up to PostgreSQL, and another choice whenever it likes."
    assert where.startswith("It stands at character ")
    assert where.endswith(" of the query as PostgreSQL prints it: LIMIT 3")
    assert told.message_hint == "Add an ORDER BY that says which rows are meant."


def test_a_difference_that_a_tie_may_be_is_told_as_one(db, assert_fresh):
    """Of rows that tie at the limit another is shown than the query would: verifying counts it, and says what it is."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 1)")
    pg_trickle.create_stream_table(db, "s", "SELECT id, a FROM t ORDER BY a LIMIT 1", refresh_mode="DIFFERENTIAL")
    notices: list[str] = []
    db.add_notice_handler(lambda one: notices.append(f"{one.message_primary}\n{one.message_detail}"))
    assert pg_trickle.verify_stream_table(db, "s").ok
    assert notices == []
    db.execute("UPDATE s SET id = 3 - id")
    assert tuple(pg_trickle.verify_stream_table(db, "s")) == (1, 1, False)
    first, detail = notices[-1].split("\n")
    assert first.endswith("a difference need not be a mistake")
    assert detail.startswith("LIMIT by a leaves rows undecided")
    with pytest.raises(AssertionError, match="LIMIT by a leaves rows undecided"):
        assert_fresh(db, "s")
