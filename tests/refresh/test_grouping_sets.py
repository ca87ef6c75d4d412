"""GROUPING SETS, ROLLUP and CUBE: subtotals beside NULLs, GROUPING(), sets without keys, sets that come twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.errors import InvalidDefinition
from tests.upkeep import check_kept

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE t (a int, b text, c int NOT NULL, d boolean NOT NULL, x int, y numeric(8,2), z float8);
INSERT INTO t VALUES (1, 'x', 1, true, 5, 1.5, 0.5), (1, NULL, 1, false, NULL, 2.25, 1),
    (NULL, 'x', 2, true, 3, NULL, 2), (NULL, NULL, 2, true, 7, 0, NULL), (2, 'y', 1, false, 5, 1, 1e300);
CREATE TABLE s (a int PRIMARY KEY, name text);
INSERT INTO s VALUES (1, 'one'), (2, 'two');
"""
STEPS = (
    "INSERT INTO t VALUES (1, 'x', 3, true, 1, 1, 1), (3, NULL, 1, true, NULL, NULL, NULL)",
    "DELETE FROM t WHERE a IS NULL",
    "UPDATE t SET a = NULL WHERE a = 2; UPDATE t SET x = x + 1",
    "UPDATE t SET b = 'y', c = c + 1, d = NOT d",
    "DELETE FROM t",
    "UPDATE s SET name = name || '!'",
    "INSERT INTO t VALUES (NULL, NULL, 1, true, NULL, NULL, NULL)",
    "TRUNCATE t",
    "INSERT INTO t VALUES (1, 'x', 1, false, 4, 4, 4), (2, 'x', 1, false, 4, 4, 4)",
)
EVERY = (
    "count(*) AS n, count(x) AS nx, sum(x) AS sx, avg(y) AS ay, min(x) AS low, max(b) AS top, bool_and(d) AS every_d"
)
OTHERS = "sum(z) AS sz, array_agg(x ORDER BY x) AS xs, count(DISTINCT x) AS dx, count(*) FILTER (WHERE d) AS nd"
SETS = {
    "rollup": "ROLLUP (a, b)",
    "cube": "CUBE (a, b)",
    "sets": "GROUPING SETS ((a, b), (b), (a))",
    "everything twice": "GROUPING SETS ((), (a), (a), ())",
    "nested": "GROUPING SETS (ROLLUP (a, b), CUBE (b), ())",
    "lists": "ROLLUP ((a, b), c)",
    "mixed": "c, ROLLUP (a), CUBE (b)",
    "distinct": "DISTINCT ROLLUP (a, b), ROLLUP (a, c)",
    "certain": "ROLLUP (c, d)",
    "certain and mixed": "c, CUBE (d)",
}
QUERIES = {
    **{f"{name}: counters": f"SELECT {EVERY} FROM t GROUP BY {sets}" for name, sets in SETS.items()},
    **{f"{name}: others": f"SELECT {OTHERS} FROM t GROUP BY {sets}" for name, sets in SETS.items()},
    "keys and bits": "SELECT a, b, GROUPING(a) AS ga, GROUPING(a, b), GROUPING(b, a) AS ba, count(*)"
    " FROM t GROUP BY CUBE (a, b)",
    "certain keys and bits": "SELECT c, d, GROUPING(c, d) AS cd, GROUPING(d), count(*), sum(y)"
    " FROM t GROUP BY CUBE (c, d)",
    "plain GROUPING": "SELECT a, GROUPING(a) AS g, count(*) FROM t GROUP BY a",
    "the empty set": "SELECT count(*), sum(x) FROM t GROUP BY ()",
    "HAVING": "SELECT a, b, sum(x) FROM t GROUP BY ROLLUP (a, b) HAVING count(*) > 1 OR GROUPING(a) = 1",
    "constants": "SELECT 1 AS one, 'k' AS k, true AS y, 1.5 AS h, NULL AS n, a, sum(x) FROM t"
    " GROUP BY ROLLUP (1, 2, 3, 4, 5, 6)",
    "constants in sets": "SELECT 1 AS one, a, date '2020-01-01' AS d, GROUPING(1) AS g, sum(x) FROM t"
    " GROUP BY GROUPING SETS ((1, 2), (3), ())",
    "a key twice": "SELECT a, a AS again, sum(x) FROM t GROUP BY ROLLUP (a)",
    "HAVING GROUPING": "SELECT a, b, count(*) FROM t GROUP BY CUBE (a, b) HAVING GROUPING(a) <> GROUPING(b)",
    "a key inside an aggregate": "SELECT a, sum(a), count(a) FROM t GROUP BY ROLLUP (a)",
    "expressions": "SELECT coalesce(a + 1, -1) AS k, upper(b) AS u, count(*) FROM t GROUP BY ROLLUP (a + 1, upper(b))",
    "computed from keys": "SELECT CASE WHEN GROUPING(b) = 1 THEN 'all' ELSE b END AS l, count(*)"
    " FROM t GROUP BY ROLLUP (b)",
    "ordinals": "SELECT a, b, count(*) FROM t GROUP BY ROLLUP (1, 2)",
    "a join": "SELECT s.name, t.b, sum(t.x) FROM t LEFT JOIN s USING (a) GROUP BY CUBE (s.name, t.b)",
    "grouped again": "SELECT q.n, count(*) FROM (SELECT a, count(*) AS n FROM t GROUP BY ROLLUP (a)) q GROUP BY q.n",
    "distinct": "SELECT DISTINCT a FROM t GROUP BY CUBE (a, b)",
    "a set": "SELECT a, generate_series(1, count(*)) AS g FROM t GROUP BY ROLLUP (a)",
    "no aggregates": "SELECT a, b FROM t GROUP BY GROUPING SETS ((a), (b), ())",
    "windows": "SELECT a + 1 AS k, count(*), rank() OVER (ORDER BY count(*), a + 1) FROM t GROUP BY ROLLUP (a + 1)",
    "windows by GROUPING": "SELECT a, b, sum(x), sum(sum(x)) OVER (PARTITION BY GROUPING(a, b)) AS of_set FROM t"
    " GROUP BY CUBE (a, b)",
    "first rows": "SELECT a, b, count(*) AS n FROM t GROUP BY CUBE (a, b) ORDER BY n DESC, a, b LIMIT 3",
    "for each outer row": "SELECT s.name, q.* FROM s, LATERAL (SELECT t.b, count(*), grouping(t.b) FROM t"
    " WHERE t.a = s.a GROUP BY ROLLUP (t.b)) q",
    "keys of a type that only PostgreSQL knows": "SELECT s.name, q.r FROM s, LATERAL (SELECT d.r FROM"
    " (SELECT a, CASE WHEN b > 'x' THEN '[1,2)'::numrange END AS r FROM t) d WHERE d.a <= s.a GROUP BY ROLLUP (d.r)) q",
    "a union": "SELECT a, count(*) FROM t GROUP BY ROLLUP (a) UNION ALL SELECT a, 1 FROM s",
}  # fmt: skip


@pytest.mark.versions
def test_grouping_sets_are_kept(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)


@pytest.mark.versions
def test_a_constant_that_is_a_key_is_itself_in_expressions(db: Connection, assert_fresh: Oracle) -> None:
    """As long as there are rows: of none, PostgreSQL 18 computes with NULL."""
    db.execute(SETUP.encode())
    query = "SELECT 'k' AS k, 'k' || 'x' AS kx, 1 AS one, 1 + 1 AS two, sum(x) FROM t GROUP BY ROLLUP (1, 3)"
    check_kept(db, [query], STEPS[:4])


@pytest.mark.parametrize("mode", ["AUTO", "FULL"])
@pytest.mark.parametrize("query", [
    "SELECT a AS x, a AS y, count(*) FROM t GROUP BY GROUPING SETS ((1), (2))",
    "SELECT 1 AS x, 1 AS y, a, count(*) FROM t GROUP BY ROLLUP (1, 2, 3)",
])  # fmt: skip
def test_keys_that_read_alike_are_refused(db: Connection, assert_fresh: Oracle, query: str, mode: str) -> None:
    """PostgreSQL prints both as one and the same."""
    db.execute(SETUP.encode())
    with pytest.raises(InvalidDefinition, match="read alike") as caught:
        pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode=mode)
    assert caught.value.sqlstate == "0A000"
    assert "nobody can tell which is meant" in str(caught.value.detail)
    named = query.replace("a AS x, a AS y", "x, y").replace("1 AS x, 1 AS y", "x, y")
    named = named.replace("FROM t", "FROM (SELECT a AS x, a AS y, a FROM t) AS t")
    pg_trickle.create_stream_table(db, "st", named, schedule=None, refresh_mode=mode)
    assert_fresh(db, "st")


def test_certain_keys_need_no_number_of_the_set(db: Connection) -> None:
    """Then they are the stream table's key: its rows are found by index."""
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "s1", "SELECT c, d, count(*) FROM t GROUP BY CUBE (c, d)", schedule=None)
    pg_trickle.create_stream_table(db, "s2", "SELECT a, count(*) FROM t GROUP BY ROLLUP (a)", schedule=None)
    keys = db.execute("SELECT plan -> 'key' FROM pgtrickle.pgt_plans ORDER BY pgt_id").fetchall()
    assert keys == [(["c", "d"],), (None,)]
