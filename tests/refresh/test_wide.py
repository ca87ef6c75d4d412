"""Many columns: a function takes no more than a hundred arguments, a row no more than 1,664 entries."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.upkeep import check_kept

Connection = psycopg.Connection[tuple[Any, ...]]

WIDTH = 104
VALUES = ", ".join(f"n % {place + 2}" for place in range(WIDTH))
COLUMNS = [f"c{place}" for place in range(WIDTH)]


def each(template: str) -> str:
    return ", ".join(template.format(c=name) for name in COLUMNS)


QUERIES = {
    "all columns": "SELECT * FROM t",
    "a filter": f"SELECT id, {each('{c} + 1 AS {c}')} FROM t WHERE c0 > 1",
    "counters": f"SELECT k, {each('sum({c}) AS {c}')} FROM t GROUP BY k",
    "extremes": f"SELECT k, {each('max({c}) AS {c}')} FROM t GROUP BY k",
    "DISTINCT": f"SELECT DISTINCT {each('{c}')} FROM t",
    "keys": f"SELECT {each('{c}')}, count(*) AS n FROM t GROUP BY {each('{c}')}",
    "a join": f"SELECT u.id, {each('t.{c}')}, {each('u.{c} AS u{c}')} FROM t JOIN t AS u ON u.id = t.k",
    "a left join": f"SELECT u.id, {each('t.{c}')} FROM t AS u LEFT JOIN t ON t.id = u.k",
    "a window": f"SELECT id, {each('sum({c}) OVER w AS {c}')} FROM t WINDOW w AS (PARTITION BY k ORDER BY id)",
    "EXCEPT": f"SELECT {each('{c}')} FROM t EXCEPT SELECT {each('{c}')} FROM t WHERE k = 1",
}
AT_ONCE = ("all columns", "counters", "extremes", "DISTINCT", "a join")
STEPS = (
    f"INSERT INTO t SELECT n, n % 3, {VALUES} FROM generate_series(8, 12) AS n",
    "UPDATE t SET c0 = c0 + 2, c103 = NULL WHERE id IN (2, 9)",
    "UPDATE t SET k = 2 WHERE id = 4",
    "DELETE FROM t WHERE id IN (1, 10)",
)


@pytest.fixture
def wide(db: Connection) -> Connection:
    db.execute(f"CREATE TABLE t (id int PRIMARY KEY, k int, {each('{c} int')})".encode())
    db.execute(f"INSERT INTO t SELECT n, n % 3, {VALUES} FROM generate_series(1, 7) AS n".encode())
    return db


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_wide_rows_are_kept(wide: Connection, query: str) -> None:
    check_kept(wide, [query], STEPS)


def test_more_columns_than_an_index_has_are_told(wide: Connection) -> None:
    pg_trickle.create_stream_table(wide, "s", QUERIES["DISTINCT"], schedule=None)
    told = "\n".join(line for (line,) in wide.execute("SELECT * FROM pgtrickle.explain_stream_table('s')"))
    assert f"grouping by {WIDTH} columns" in told


@pytest.mark.parametrize("query", [QUERIES[name] for name in AT_ONCE], ids=AT_ONCE)
def test_wide_rows_are_kept_by_who_writes(wide: Connection, query: str) -> None:
    pg_trickle.create_stream_table(wide, "s", query, refresh_mode="IMMEDIATE")
    for step in STEPS:
        wide.execute(step.encode())
        assert differences(wide, "s") == []
