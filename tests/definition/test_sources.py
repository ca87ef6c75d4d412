"""What a query may read, and what that makes of it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.api import compile_locally
from pg_trickle.testing.oracle import assert_fresh
from tests.definition.conftest import TOTALS, Connection, rows

UNWATCHED = {
    "system catalog": (
        "SELECT relname::text FROM pg_class WHERE relname LIKE 'new_table%'",
        "CREATE TABLE new_table{} ()",
    ),
    "information schema": (
        "SELECT table_name::text FROM information_schema.tables WHERE table_name LIKE 'new_table%'",
        "CREATE TABLE new_table{0} (); GRANT SELECT ON new_table{0} TO st_author",
    ),
    "catalog beside a table": (
        "SELECT o.id, (SELECT count(*) FROM pg_class WHERE relname LIKE 'new_table%') AS n FROM orders AS o",
        "CREATE TABLE new_table{} ()",
    ),
    "system view": (
        "SELECT viewname FROM pg_views WHERE viewname LIKE 'new_view%'",
        "CREATE VIEW new_view{} AS SELECT 1 AS a",
    ),
    "sequence": ("SELECT last_value FROM numbers", "SELECT nextval('numbers') + {}"),
    "unlogged table": ("SELECT a FROM unlogged", "INSERT INTO unlogged VALUES ({})"),
}
# What is known to whoever looks, though no trigger tells.
LOOKED_AT = {
    "function that reads": ("SELECT id, how_many() AS n FROM orders", "INSERT INTO customers VALUES (100 + {})"),
    "setting": (
        "SELECT id, current_setting('server_version') AS v FROM orders",
        "INSERT INTO orders VALUES (100 + {})",
    ),
    "session value": ("SELECT id, CURRENT_USER AS u FROM orders", "INSERT INTO orders VALUES (100 + {})"),
    "statement's time": (
        "SELECT o.id FROM orders AS o WHERE o.id < 100 + extract(year FROM statement_timestamp())",
        "INSERT INTO orders VALUES (100 + {})",
    ),
}


@pytest.fixture
def sources(shop: Any, author: Connection) -> Connection:
    shop.superuser.execute(
        """CREATE SEQUENCE numbers;
           CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM orders;
           CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY);
           CREATE TABLE parted (a int, b int) PARTITION BY LIST (b);
           CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
           CREATE TABLE parent (a int);
           CREATE TABLE child () INHERITS (parent);
           CREATE FUNCTION how_many() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM public.customers';
           GRANT SELECT ON ALL TABLES IN SCHEMA public TO st_author;
           GRANT SELECT ON SEQUENCE numbers TO st_author"""
    )
    return author


@pytest.mark.versions
@pytest.mark.parametrize("what", UNWATCHED)
def test_what_cant_be_watched_is_never_taken_for_unchanged(shop: Any, sources: Connection, what: str) -> None:
    query, change = UNWATCHED[what]
    pg_trickle.create_stream_table(sources, "st", query)
    row = shop.catalog("st")
    assert row["effective_refresh_mode"] == "FULL"
    assert row["downgrade_reason"]
    for number in (1, 2):
        shop.superuser.execute(change.format(number).encode())
        shop.fresh("st")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.create_stream_table(sources, "st2", query, refresh_mode="DIFFERENTIAL")


@pytest.mark.parametrize("mode", ["AUTO", "DIFFERENTIAL"])
def test_what_is_volatile_is_refused_whatever_stands_beside_it(shop: Any, sources: Connection, mode: str) -> None:
    shop.superuser.execute("CREATE FUNCTION chance() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'")
    for query in (
        "SELECT id, how_many() AS n, chance() AS c FROM orders",
        "SELECT id, chance() AS c, current_setting('server_version') AS v FROM orders",
        "SELECT id, CURRENT_USER AS u, chance() AS c FROM orders",
    ):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="volatile"):
            pg_trickle.create_stream_table(sources, "st", query, refresh_mode=mode)


@pytest.mark.versions
@pytest.mark.parametrize("what", LOOKED_AT)
@pytest.mark.parametrize("mode", ["AUTO", "DIFFERENTIAL"])
def test_what_no_trigger_tells_is_looked_at_by_each_refresh(
    shop: Any, sources: Connection, what: str, mode: str
) -> None:
    query, change = LOOKED_AT[what]
    heard: list[str] = []
    sources.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
    pg_trickle.create_stream_table(sources, "st", query, refresh_mode=mode)
    assert ('each refresh of "st" runs its query and compares' in heard) == (mode == "DIFFERENTIAL")
    row = shop.catalog("st")
    assert row["effective_refresh_mode"] == "FULL"
    assert "can't be maintained incrementally" in row["downgrade_reason"]
    for number in (1, 2):
        shop.superuser.execute(change.format(number).encode())
        pg_trickle.refresh_stream_table(sources, "st")
        assert_fresh(sources, "st")
    limited = f"SELECT * FROM ({query} LIMIT 1) AS q"
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.create_stream_table(sources, "st2", limited, refresh_mode="DIFFERENTIAL")


ONLY = {
    "only a partitioned table": ("SELECT a, b FROM ONLY parted", "INSERT INTO parted VALUES ({}, 1)"),
    "only an inheritance parent": (
        "SELECT a FROM ONLY parent",
        "INSERT INTO child VALUES ({0}); INSERT INTO parent VALUES ({0})",
    ),
}


@pytest.mark.parametrize("what", ONLY)
def test_what_is_captured_with_more_than_is_read_is_recomputed(shop: Any, sources: Connection, what: str) -> None:
    query, change = ONLY[what]
    pg_trickle.create_stream_table(sources, "st", query, refresh_mode="DIFFERENTIAL")
    for number in (1, 2):
        shop.superuser.execute(change.format(number).encode())
        shop.fresh("st")


VOLATILE = {"clock_timestamp", "random", "gen_random_uuid", "nextval", "pg_sleep", "pg_relation_size"}


def skipped(conn: Connection) -> list[Any]:
    return [
        reason
        for (reason,) in conn.execute(
            "SELECT skipped_reason FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'MANUAL' ORDER BY refresh_id"
        )
    ]


AGES = {"age(now())", "age('2020-01-01'::timestamptz)"}
TIMES = {"now()", "CURRENT_TIMESTAMP", "CURRENT_DATE", "LOCALTIME", *AGES}


@pytest.mark.parametrize(
    "expression",
    ["now()", "CURRENT_TIMESTAMP", "CURRENT_DATE", "LOCALTIME", "clock_timestamp()", "random()", "gen_random_uuid()",
     *sorted(AGES), "txid_current()", "pg_backend_pid()",
     "CURRENT_USER", "current_schema()", "nextval('numbers')", "to_regclass('x')", "pg_sleep(0)",
     "version()", "pg_relation_size('orders')",
     "(SELECT count(*) FROM pg_class)"],
)  # fmt: skip
def test_what_changes_by_itself_is_recomputed(shop: Any, sources: Connection, expression: str) -> None:
    shop.superuser.execute("GRANT USAGE ON SEQUENCE numbers TO st_author")
    query = f"SELECT id, ({expression})::text AS x FROM orders WHERE id < 3"
    volatile = expression.partition("(")[0] in VOLATILE
    if volatile:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="volatile"):
            pg_trickle.create_stream_table(sources, "st", query)
    heard: list[str] = []
    sources.add_notice_handler(lambda notice: heard.append(f"{notice.severity}: {notice.message_primary}"))
    pg_trickle.create_stream_table(sources, "st", query, refresh_mode="FULL" if volatile else "AUTO")
    assert [one for one in heard if one.startswith("WARNING") and "volatile" in one] == heard[: int(volatile)]
    # Of the time a part can be computed anew at each refresh, and compared.
    assert shop.catalog("st")["effective_refresh_mode"] == ("DIFFERENTIAL" if expression in TIMES else "FULL")
    pg_trickle.refresh_stream_table(sources, "st")
    pg_trickle.refresh_stream_table(sources, "st")
    assert skipped(shop.superuser) == [None, None]


@pytest.mark.parametrize(
    ("query", "construct"),
    [
        ("SELECT id FROM orders LIMIT 2", "LIMIT without ORDER BY"),
        ("SELECT id FROM orders OFFSET 2", "OFFSET without ORDER BY"),
        ("SELECT id FROM orders TABLESAMPLE system (50)", "TABLESAMPLE"),
        ("SELECT id, CURRENT_USER AS u FROM (SELECT id FROM orders LIMIT 2) AS o", "LIMIT without ORDER BY"),
        ("SELECT id, CURRENT_USER AS u FROM (SELECT id FROM orders ORDER BY id LIMIT 2) AS o", None),
        ("SELECT count(*) AS n FROM orders LIMIT 2", None),
    ],
)
@pytest.mark.parametrize("mode", ["AUTO", "FULL"])
def test_what_the_rows_do_not_decide_is_warned_of(
    sources: Connection, query: str, construct: str | None, mode: str
) -> None:
    heard: list[str] = []
    sources.add_notice_handler(lambda notice: heard.append(f"{notice.severity}: {notice.message_primary}"))
    pg_trickle.create_stream_table(sources, "st", query, refresh_mode=mode)
    assert heard == ([] if construct is None else [f'WARNING: the query of "st" has a {construct}'])
    (text,) = sources.execute("SELECT pgtrickle.explain_stream_table('st')").fetchone() or ("",)
    assert (f"its rows don't decide its result ({construct})" in text) is (construct is not None)


@pytest.mark.parametrize("query", [TOTALS, "SELECT DISTINCT note FROM orders", "SELECT id FROM orders LIMIT 1000000"])
def test_what_does_not_change_is_not(shop: Any, author: Connection, query: str) -> None:
    pg_trickle.create_stream_table(author, "st", query)
    pg_trickle.refresh_stream_table(author, "st")
    shop.superuser.execute("UPDATE customers SET name = 'x'")
    pg_trickle.refresh_stream_table(author, "st")
    assert skipped(shop.superuser) == ["no changes", "no changes"]


@pytest.mark.versions
def test_views_on_views_with_other_names(shop: Any, author: Connection) -> None:
    author.execute(
        """CREATE VIEW v1 (a, b, c) AS SELECT id, customer_id, amount FROM orders WHERE amount > 1;
           CREATE VIEW v2 AS SELECT b AS a, c AS b, a AS c FROM v1 WHERE a <> 3;
           CREATE VIEW v3 AS SELECT v2.a, c.name, v2.b FROM v2 JOIN customers AS c ON c.id = v2.a"""
    )
    pg_trickle.create_stream_table(author, "st", "SELECT name AS who, sum(b) AS total FROM v3 GROUP BY name")
    assert shop.catalog("st")["effective_refresh_mode"] == "DIFFERENTIAL"
    for change in (
        "UPDATE orders SET amount = amount + 1 WHERE id % 2 = 0",
        "UPDATE customers SET name = 'customer 1' WHERE id = 2",
        "DELETE FROM customers WHERE id = 3; INSERT INTO orders VALUES (50, 1, 4, '')",
    ):
        shop.superuser.execute(change.encode())
        shop.fresh("st")
    # PostgreSQL keeps the columns; what they mean may change.
    author.execute(
        """CREATE OR REPLACE VIEW v1 (a, b, c) AS
           SELECT id, customer_id, (amount * 2)::numeric(10, 2) FROM orders WHERE amount > 3"""
    )
    shop.fresh("st")
    shop.superuser.execute("UPDATE orders SET amount = amount + 1")
    shop.fresh("st")


@pytest.mark.versions
def test_a_row_of_every_type(shop: Any, author: Connection) -> None:
    """Generated columns, domains, dropped columns, enums, composites, arrays, ranges; as key and as value."""
    author.execute(
        """CREATE TYPE mood AS ENUM ('sad', 'happy');
           CREATE TYPE pair AS (a int, b text);
           CREATE DOMAIN positive AS int CHECK (VALUE > 0);
           CREATE DOMAIN more_positive AS positive NOT NULL CHECK (VALUE > 1);
           CREATE TABLE kinds (
               dropped text, id int PRIMARY KEY, gone int, m mood, p pair, d positive, dd more_positive,
               g int GENERATED ALWAYS AS (id * 2) STORED, n numeric, n2 numeric(6, 2), f float8, t timestamptz,
               i interval, j json, jb jsonb, pt point, r int4range, a int[], ta text[], na numeric[], c char(5),
               v varchar(7), b bytea, bt bit(3), u uuid, ip inet, ts tsvector, mr int4multirange, tid tid,
               "char" "char");
           ALTER TABLE kinds DROP COLUMN dropped, DROP COLUMN gone;
           INSERT INTO kinds (id, m, p, d, dd, n, n2, f, t, i, j, jb, pt, r, a, ta, na, c, v, b, bt, u, ip, ts, mr,
                              tid, "char")
           VALUES (1, 'sad', (1, 'x'), 3, 4, 1.0, 2.5, 0.1, '2024-01-01', '24 h', '{"a": 1}', '{"a": 1.0}', '(1,2)',
                   '[1,3)', '{1,2}', '{a,NULL}', '{1.0}', 'ab', 'ab', 'x', '101', gen_random_uuid(), '10.0.0.1/8',
                   'a b', '{[1,2]}', '(1,1)', 'q'),
                  (2, 'sad', (1, 'x'), 3, 4, 1.00, 2.50, '-0', '2024-01-01', '1 day', '{"a":1}', '{"a": 1.00}',
                   '(1,2)', '[1,2]', '{1,2}', '{a,NULL}', '{1.00}', 'ab ', 'ab', 'x', '101', gen_random_uuid(),
                   '10.0.0.1', 'b a', '{[1,3)}', '(1,1)', 'q')"""
    )
    columns = [
        name
        for (name,) in author.execute(
            """SELECT quote_ident(attname) FROM pg_attribute
                WHERE attrelid = 'kinds'::regclass AND attnum > 0 AND NOT attisdropped"""
        )
    ]
    identities = {c.name: c.identity for c in compile_request(author, "SELECT * FROM kinds").columns}
    for name in ("n", "n2"):
        assert identities[name] == "scale"
    for name in ("j", "pt"):
        assert identities[name] == "none"
    for name in ("f", "i", "jb", "p", "na", "r"):
        assert identities[name] == "text", name
    for name in ("id", "m", "d", "dd", "g", "t", "a", "ta", "v", "b", "bt", "u", "ip"):
        assert identities[name] == "equal", name
    pg_trickle.create_stream_table(author, "everything", f"SELECT {', '.join(columns)} FROM kinds")
    pg_trickle.create_stream_table(
        author, "filtered", f"SELECT {', '.join(columns)} FROM kinds WHERE d > 1 AND m = 'sad'"
    )
    pg_trickle.create_stream_table(
        author, "groups", "SELECT m, d, dd, g, p, a, r, count(*) AS n FROM kinds GROUP BY 1, 2, 3, 4, 5, 6, 7"
    )
    for change in (
        "UPDATE kinds SET n = 1.000, f = '0', i = '23:59:60', na = '{1}', jb = '{\"a\": 1}' WHERE id = 2",
        "UPDATE kinds SET id = id + 10, p = (2, NULL), m = 'happy', d = d + 1",
        "INSERT INTO kinds (id, dd, m, d) SELECT id + 100, dd, 'sad', d FROM kinds",
        "DELETE FROM kinds WHERE id = 11",
    ):
        author.execute(change.encode())
        shop.fresh("everything", "filtered", "groups")


def compile_request(conn: Connection, query: str) -> Any:
    from pg_trickle.catalog.model import CompileRequest

    (request,) = conn.execute("SELECT pgtrickle.compile_request('x', %s)", (query,)).fetchone() or (None,)
    return CompileRequest.from_json(request)


def test_facts_are_exact(shop: Any, author: Connection) -> None:
    """What the compiler relies on: keys and NOT NULL only where they hold."""
    author.execute(
        """CREATE TABLE keys (a int PRIMARY KEY, b int UNIQUE, c int NOT NULL UNIQUE, d int, e int, f text,
                               g int NOT NULL);
           CREATE UNIQUE INDEX ON keys (d) NULLS NOT DISTINCT;
           CREATE UNIQUE INDEX ON keys (e) WHERE e > 0;
           CREATE UNIQUE INDEX ON keys (lower(f));
           CREATE UNIQUE INDEX ON keys (c, g) INCLUDE (f);
           ALTER TABLE keys ADD UNIQUE (g) DEFERRABLE"""
    )
    (relation,) = compile_request(author, "SELECT * FROM keys").relations
    assert relation.keys == (("a",), ("c",), ("d",), ("c", "g"))
    assert [one.name for one in relation.columns if one.not_null] == ["a", "c", "g"]


@pytest.mark.versions(since=18)
def test_not_null_that_does_not_hold_yet_is_no_fact(shop: Any, author: Connection) -> None:
    author.execute(
        """CREATE TABLE keys (a int UNIQUE, b int); INSERT INTO keys VALUES (NULL, 1), (NULL, 1);
           ALTER TABLE keys ADD CONSTRAINT n NOT NULL a NOT VALID"""
    )
    (relation,) = compile_request(author, "SELECT * FROM keys").relations
    assert relation.keys == ()
    assert not relation.columns[0].not_null
    pg_trickle.create_stream_table(author, "st", "SELECT a, b FROM keys")
    author.execute("DELETE FROM keys WHERE ctid = '(0,1)'")
    shop.fresh("st")


def test_harmless_ddl_recomputes_nothing(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    for statement in (
        "ALTER TABLE orders ADD COLUMN more int DEFAULT 5",
        "CREATE INDEX ON orders (note)",
        "ALTER TABLE orders DROP COLUMN note",
        "VACUUM orders",
        "ANALYZE orders",
        "GRANT SELECT ON orders TO PUBLIC",
        "COMMENT ON TABLE orders IS 'x'",
    ):
        shop.superuser.execute(statement.encode())
        shop.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id = 1")
        shop.fresh("st")
    assert shop.superuser.execute(
        """SELECT refresh_mode, reason, count(*) FROM pgtrickle.pgt_refresh_history
            WHERE initiated_by = 'MANUAL' GROUP BY 1, 2"""
    ).fetchall() == [("DIFFERENTIAL", None, 7)]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE orders RENAME TO sold",
        "ALTER TABLE orders RENAME COLUMN amount TO paid",
        "ALTER TABLE orders SET SCHEMA elsewhere",
        "ALTER TABLE st RENAME TO st_renamed; ALTER TABLE st_renamed RENAME TO st",
        "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON orders USING (id < 5)",
        "TRUNCATE orders",
    ],
)
@pytest.mark.parametrize("query", [TOTALS, "SELECT id, amount FROM orders"])
def test_ddl_that_matters(shop: Any, author: Connection, statement: str, query: str) -> None:
    shop.superuser.execute("CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO st_author")
    pg_trickle.create_stream_table(author, "st", query)
    shop.superuser.execute(statement.encode())
    (source,) = shop.superuser.execute("SELECT source_relid::regclass::text FROM pgtrickle.pgt_dependencies").fetchone()
    shop.superuser.execute(f"INSERT INTO {source} VALUES (90, 1, 3, ''), (-3, 1, 3, '')".encode())
    pg_trickle.refresh_stream_table(author, "st")
    author.execute("SET search_path = elsewhere, public")
    definition = "pgtrickle_changes.query_{}".format(shop.catalog("st")["pgt_id"])
    assert rows(author, "SELECT count(*) FROM public.st") == rows(author, f"SELECT count(*) FROM {definition}")
    assert pg_trickle.verify_stream_table(author, "st").ok
    shop.superuser.execute(f"DELETE FROM {source} WHERE id = -3".encode())
    pg_trickle.refresh_stream_table(author, "st")
    assert pg_trickle.verify_stream_table(author, "st").ok


def test_stream_tables_read_stream_tables(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "first", TOTALS)
    author.execute("CREATE VIEW between_them AS SELECT customer_id AS c, total AS t FROM first WHERE total > 40")
    pg_trickle.create_stream_table(author, "second", "SELECT count(*) AS n, sum(t) AS t FROM between_them")
    other = shop.author("other")
    author.execute("GRANT SELECT ON second TO other")
    pg_trickle.create_stream_table(other, "third", "SELECT n FROM second WHERE t > 0")
    for change in ("UPDATE orders SET amount = amount * 2", "DELETE FROM orders WHERE id < 15", "TRUNCATE orders"):
        shop.superuser.execute(change.encode())
        shop.fresh("third")
        assert_fresh(shop.superuser, "first")
        assert_fresh(shop.superuser, "second")
    assert compile_locally(other, "x", "SELECT n FROM second").incremental
