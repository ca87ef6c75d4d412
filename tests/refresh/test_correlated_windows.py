"""Windows inside subqueries that refer to the query around: partitioned by what they refer to, too.

And subqueries with an order whose condition is about the row around alone: nothing in them is equated to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.refresh.test_recursion import rules
from tests.upkeep import check_states

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

TABLES = """
CREATE TABLE a (id int, k int, v int);
CREATE TABLE b (id int PRIMARY KEY, k int, v int);
INSERT INTO a VALUES (1, 1, 1), (2, 1, 2), (3, NULL, 3), (3, NULL, 3), (4, 2, 0);
INSERT INTO b SELECT i, i % 3, i % 2 FROM generate_series(1, 8) AS i;
"""
QUERIES = {
    "of equal keys": "SELECT a.id, l.* FROM a LEFT JOIN LATERAL"
    " (SELECT b.id AS of, rank() OVER (ORDER BY b.v) AS r FROM b WHERE b.k = a.k) AS l ON true",
    "with partitions and frames of their own": "SELECT a.id, l.* FROM a LEFT JOIN LATERAL"
    " (SELECT b.id AS of, rank() OVER (PARTITION BY b.k ORDER BY b.v, b.id) AS r, sum(b.v + a.v) OVER"
    " (ORDER BY b.id ROWS 1 PRECEDING EXCLUDE CURRENT ROW) AS s FROM b WHERE b.k <= a.k) AS l ON true",
    "in a single value": "SELECT a.id, (SELECT string_agg(q.r::text, ',' ORDER BY q.r) FROM (SELECT row_number()"
    " OVER (ORDER BY b.v DESC, b.id) * b.v AS r FROM b WHERE b.k <> a.k) AS q) AS x FROM a",
    "in IN": "SELECT a.id FROM a WHERE a.v IN (SELECT dense_rank() OVER (ORDER BY b.v) FROM b WHERE b.k = a.k)",
    "in EXISTS": "SELECT a.id, EXISTS (SELECT FROM (SELECT count(*) FILTER (WHERE b.v > a.v) OVER"
    " (PARTITION BY b.k + a.k) AS n FROM b WHERE b.id > a.id) AS q WHERE q.n > 1) AS e FROM a",
    "over groups": "SELECT a.id, l.* FROM a CROSS JOIN LATERAL (SELECT b.k, count(*) AS n, rank() OVER"
    " (ORDER BY count(*) DESC) AS r FROM b WHERE b.v = a.v GROUP BY b.k) AS l",
    "first rows, about the outer row alone": "SELECT a.id, l.* FROM a LEFT JOIN LATERAL"
    " (SELECT b.id AS of FROM b WHERE a.k = a.k ORDER BY b.id LIMIT 2) AS l ON true",
    "all but the first, about the outer row alone":
        "SELECT a.id FROM a WHERE a.id IN (SELECT b.id FROM b WHERE a.k = a.k ORDER BY b.id DESC OFFSET 1)",
    "over windows": "SELECT a.id, l.* FROM a CROSS JOIN LATERAL (SELECT q.of, q.r, count(*) OVER () AS n FROM"
    " (SELECT b.id AS of, lag(b.v) OVER (ORDER BY b.id) AS r FROM b WHERE b.k >= a.k) AS q WHERE q.r > 0) AS l",
}  # fmt: skip
STEPS = (
    "INSERT INTO b VALUES (20, 1, 1), (21, 0, 5)",
    "UPDATE b SET k = k + 1, v = v - 1 WHERE id % 2 = 0; UPDATE a SET k = 0 WHERE id = 1",
    "DELETE FROM b WHERE id < 3; INSERT INTO a VALUES (9, 1, 1), (9, NULL, 1)",
    "DELETE FROM a WHERE k IS NULL",
    "DELETE FROM b",
)


@pytest.mark.versions
def test_correlated_windows_are_kept(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(TABLES.encode())
    names = {f"s{place}": query for place, query in enumerate(QUERIES.values())}
    for name, query in names.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
        assert "recomputed for the touched" in rules(db, name)
        assert "recomputed and diffed" not in rules(db, name)
    for step in STEPS:
        db.execute(step.encode())
        for name in names:
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)
            check_states(db, name)
