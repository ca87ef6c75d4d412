"""What the compiler must not conclude: NOT NULL from a cast, a key from a comparison, a product that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

pytestmark = pytest.mark.versions

LEAST = -(2**63)
CASES = {
    "two clocks, one moment": (
        "SET TimeZone = 'Europe/Berlin'; CREATE TABLE a (id int PRIMARY KEY, x timestamptz NOT NULL);"
        "CREATE TABLE b (y timestamp PRIMARY KEY);"
        "INSERT INTO a VALUES (1, '2024-03-31 03:30+02'); INSERT INTO b VALUES ('2024-03-31 02:30')",
        "SELECT a.id FROM a JOIN b ON a.x = b.y",
        ("INSERT INTO b VALUES ('2024-03-31 03:30')", "DELETE FROM b WHERE y = '2024-03-31 02:30'"),
    ),
    "sums of the least bigint": (
        f"CREATE TABLE t (g int, x bigint); INSERT INTO t VALUES (1, {LEAST}), (1, 5)",
        "SELECT g, sum(x) AS s, min(x) AS m FROM t GROUP BY g",
        (
            "DELETE FROM t WHERE x < 0",
            "INSERT INTO t SELECT 1, 5000000000000000000 FROM generate_series(1, 3)",
            "DELETE FROM t WHERE x > 5",
        ),
    ),
    "equal numbers from where nobody tells their type": (
        "CREATE TABLE t (id int, n numeric[]); INSERT INTO t VALUES (1, '{1.0}'), (2, '{}'), (3, NULL), (4, '{NULL}')",
        "SELECT trim_scale(q.k) AS k, q.c FROM (SELECT nullif(n[1], 0.5) AS k, count(*) AS c FROM t GROUP BY 1) q",
        ("INSERT INTO t VALUES (5, '{1.00}'), (6, '{2}')", "DELETE FROM t WHERE id = 1", "UPDATE t SET n = '{1}'"),
    ),
    "arrays of numbers, of nothing, and none": (
        "CREATE TABLE t (id int, n text); INSERT INTO t VALUES (1, '1.0'), (2, ''), (3, NULL)",
        "SELECT q.k = '{1}' AS one, q.k IS NULL AS none, q.c"
        " FROM (SELECT string_to_array(n, ',')::numeric[] AS k, count(*) AS c FROM t GROUP BY 1) q",
        ("INSERT INTO t VALUES (5, '1.00'), (6, NULL), (7, '')", "DELETE FROM t WHERE id < 3", "UPDATE t SET n = '1'"),
    ),
    "arrays of a type of one's own": (
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE t (id int, m mood[]);"
        "INSERT INTO t VALUES (1, '{sad}'), (2, '{}'), (3, NULL), (4, '{NULL}')",
        "SELECT m, count(*) FROM t GROUP BY m",
        ("INSERT INTO t SELECT * FROM t", "DELETE FROM t WHERE m IS NULL", "UPDATE t SET m = NULL WHERE id = 2"),
    ),
    "a row as a key": (
        "CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, NULL), (NULL, NULL)",
        "SELECT count(*) FROM (SELECT DISTINCT ROW(a, b) AS r FROM t) AS q",
        ("INSERT INTO t VALUES (1, NULL), (NULL, NULL)", "DELETE FROM t WHERE a = 1", "INSERT INTO t VALUES (3, 3)"),
    ),
}


@pytest.mark.parametrize(("setup", "query", "steps"), CASES.values(), ids=CASES.keys())
def test_it_is_right_all_the_same(
    db: Connection, assert_fresh: Oracle, setup: str, query: str, steps: tuple[str, ...]
) -> None:
    db.execute(setup.encode())
    pg_trickle.create_stream_table(db, "s", query, schedule=None)
    for step in steps:
        db.execute(step.encode())
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")


@pytest.mark.versions(since=18)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT j::int AS k, count(*) AS n FROM t GROUP BY j::int",
        "SELECT count(j::int) AS n, sum(j::int) AS s FROM t",
        "SELECT DISTINCT j::int AS k FROM t",
    ],
)
def test_a_json_null_is_cast_to_null(db: Connection, assert_fresh: Oracle, query: str) -> None:
    db.execute("CREATE TABLE t (id int, j jsonb NOT NULL); INSERT INTO t VALUES (1, '1'), (2, 'null')")
    pg_trickle.create_stream_table(db, "s", query, schedule=None)
    for step in (
        b"INSERT INTO t VALUES (3, 'null')",
        b"DELETE FROM t WHERE id = 2",
        b"DELETE FROM t WHERE id = 3",
        b"INSERT INTO t VALUES (4, 'null'), (5, '5')",
    ):
        db.execute(step)
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")


@pytest.mark.versions(icu=True)
def test_a_key_of_one_collation_is_none_in_another(db: Connection, assert_fresh: Oracle) -> None:
    db.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    db.execute("CREATE TABLE a (id int PRIMARY KEY, x text COLLATE loose); INSERT INTO a VALUES (1, 'abc')")
    db.execute("CREATE TABLE b (y text PRIMARY KEY); INSERT INTO b VALUES ('abc')")
    pg_trickle.create_stream_table(db, "s", "SELECT a.id FROM a JOIN b ON a.x = b.y", schedule=None)
    for step in (b"INSERT INTO b VALUES ('ABC')", b"DELETE FROM b WHERE y = 'abc'"):
        db.execute(step)
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")
