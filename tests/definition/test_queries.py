"""Defining queries: what is one, and that it goes on meaning what it meant to who created it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.definition.conftest import TOTALS, Connection, Fails, rows

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


@pytest.mark.parametrize("creator", ["on", "off"])
@pytest.mark.parametrize("mode", ["AUTO", "FULL", "IMMEDIATE"])
def test_arrays_made_of_texts_are_as_for_the_creator(shop: Any, author: Connection, mode: str, creator: str) -> None:
    """What NULL means in one; and a name is quoted where it must be, as the engine's own printing does it."""
    author.execute("CREATE TABLE texts (id int PRIMARY KEY, list text, name text)")
    author.execute("INSERT INTO texts VALUES (1, '{NULL,a}', 'int4')")
    author.execute(f"SET array_nulls = {creator}".encode())
    query = "SELECT id, list::text[] AS list, (list::text[])[1] AS one, format('%I', name) AS name FROM texts"
    pg_trickle.create_stream_table(author, "st", query, refresh_mode=mode)
    other = {"on": "off", "off": "on"}[creator]
    shop.superuser.execute(f"SET array_nulls = {other}; SET quote_all_identifiers = on".encode())
    for change in ("UPDATE texts SET name = 'int8'", "INSERT INTO texts SELECT 2, list, name FROM texts"):
        shop.superuser.execute(change.encode())
        if mode != "IMMEDIATE":
            pg_trickle.refresh_stream_table(shop.superuser, "st")
        assert rows(author, "TABLE st ORDER BY id") == rows(author, f"{query} ORDER BY id")
    assert pg_trickle.verify_stream_table(shop.superuser, "st").ok


# What is the creator's, as two of them have it, in turns one who creates and one who writes.
SETTINGS = {
    "TimeZone": ("Asia/Tokyo", "America/New_York"), "DateStyle": ("German, DMY", "SQL, MDY"),
    "IntervalStyle": ("iso_8601", "sql_standard"), "extra_float_digits": ("3", "2"), "bytea_output": ("escape", "hex"),
    "lc_monetary": ("POSIX", "C"), "lc_numeric": ("POSIX", "C"), "lc_time": ("POSIX", "C"),
    "default_text_search_config": ("pg_catalog.english", "pg_catalog.german"), "array_nulls": ("off", "on"),
    "xmlbinary": ("hex", "base64"), "xmloption": ("document", "content"),
}  # fmt: skip


@pytest.mark.parametrize("creator", [0, 1])
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL", "IMMEDIATE"])
def test_every_setting_is_the_creators(shop: Any, author: Connection, mode: str, creator: int) -> None:
    """As a function reads it: what goes by some of them isn't in every server (XML)."""
    pinned = "SELECT name FROM pgtrickle_changes.pinned_settings() WHERE is_creators"
    assert {name for (name,) in rows(shop.superuser, pinned)} == SETTINGS.keys()
    author.execute("CREATE TABLE names (name text PRIMARY KEY, at timestamptz)")
    author.execute(
        "CREATE FUNCTION shown(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_setting($1); END'"
    )
    for name, values in SETTINGS.items():
        for conn, value in ((author, values[creator]), (shop.superuser, values[1 - creator])):
            conn.execute("SELECT set_config(%s, %s, false)", (name, value))
    query = "SELECT name, at, public.shown(name) AS value FROM names"
    pg_trickle.create_stream_table(author, "st", query, refresh_mode=mode)
    for name in SETTINGS:
        shop.superuser.execute("INSERT INTO names VALUES (%s)", (name,))
    if mode != "IMMEDIATE":
        pg_trickle.refresh_stream_table(shop.superuser, "st")
    assert sorted(rows(author, "SELECT name, value FROM st")) == sorted(
        (name, values[creator]) for name, values in SETTINGS.items()
    )
    assert pg_trickle.verify_stream_table(shop.superuser, "st").ok


@pytest.mark.parametrize(
    ("setting", "query"),
    [
        ("array_nulls = off", "SELECT id, (name::text[])[1] AS x FROM texts"),
        ("array_nulls = off", "SELECT id, name FROM texts WHERE 'NULL' = ANY (name::text[])"),
        ("quote_all_identifiers = on", "SELECT id, quote_ident(translate(name, '{}NUL,', 'abnulc')) AS x FROM texts"),
        ("extra_float_digits = -14", "SELECT id, (percent_rank() OVER (ORDER BY id))::text AS x FROM texts"),
        ("extra_float_digits = -14", "SELECT id, float8_of(id)::text AS x FROM texts"),
        ("bytea_output = escape", "SELECT id, decode(name, 'escape')::text AS x FROM texts"),
    ],
)
def test_a_writers_settings_are_his_where_no_types_tell_of_them(
    shop: Any, author: Connection, setting: str, query: str
) -> None:
    """All that is read and shown here is numbers and texts, made by functions that PostgreSQL calls immutable."""
    author.execute("CREATE TABLE texts (id int PRIMARY KEY, name text)")
    author.execute(
        "CREATE FUNCTION float8_of(int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 / 3.0; END'"
    )
    pg_trickle.create_stream_table(author, "st", query, refresh_mode="IMMEDIATE")
    shop.superuser.execute(f"SET {setting}".encode())
    shop.superuser.execute("INSERT INTO texts SELECT g, '{NULL}' FROM generate_series(1, 4) AS g")
    shop.superuser.execute("UPDATE texts SET name = '{NULL,int4}' WHERE id = 3")
    assert sorted(rows(author, "TABLE st")) == sorted(rows(author, query))


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


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL", "IMMEDIATE"])
def test_an_index_leaves_nothing_out_whatever_the_session_wants(db: Connection, mode: str) -> None:
    """gin_fuzzy_search_limit is for those whom any of many matches will do."""
    for table in ("docs", "asked"):
        db.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, tags int[])".encode())
    db.execute("INSERT INTO docs SELECT g, ARRAY[1, g + 1] FROM generate_series(1, 5000) AS g")
    db.execute("INSERT INTO asked VALUES (1, '{1}'); CREATE INDEX ON docs USING gin (tags); ANALYZE docs")
    db.execute("SET gin_fuzzy_search_limit = 10; SET enable_seqscan = off")
    query = "SELECT a.id, count(*) AS n FROM asked AS a JOIN docs AS d ON d.tags @> a.tags GROUP BY a.id"
    assert rows(db, query) != [(1, 5000)]
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode=mode)
    assert rows(db, "TABLE st") == [(1, 5000)]
    db.execute("INSERT INTO asked VALUES (2, '{1}')")
    if mode != "IMMEDIATE":
        pg_trickle.refresh_stream_table(db, "st")
    assert rows(db, "TABLE st ORDER BY id") == [(1, 5000), (2, 5000)]


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
