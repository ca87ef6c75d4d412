"""WINDOW: what names a window, in any clause that may, is kept as if the window stood there."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.upkeep import check_kept

Connection = psycopg.Connection[tuple[Any, ...]]

W = "WINDOW w AS (PARTITION BY b ORDER BY c)"
QUERIES = (
    f"SELECT a, rank() OVER w AS r, count(*) OVER (w ROWS 1 PRECEDING) > 1 AS s FROM t {W}, v AS (w)",
    f"SELECT DISTINCT rank() OVER w AS r, b FROM t {W}",
    f"SELECT DISTINCT ON (rank() OVER w) a, b FROM t {W} ORDER BY rank() OVER w, a",
    f"SELECT DISTINCT ON (rank() OVER w) a, rank() OVER w AS r FROM t {W} ORDER BY rank() OVER w, a",
    f"SELECT a FROM t {W} ORDER BY rank() OVER w, a LIMIT 3",
    f"SELECT a, (SELECT count(*) OVER w FROM t x WHERE x.a = t.a WINDOW w AS (ORDER BY x.c)) AS n FROM t {W}",
)


@pytest.mark.versions
def test_named_windows_are_kept(db: Connection) -> None:
    db.execute("CREATE TABLE t (a int PRIMARY KEY, b int, c int)")
    db.execute("INSERT INTO t SELECT n, n % 3, n % 4 FROM generate_series(1, 12) AS n")
    steps = ("INSERT INTO t VALUES (20, 1, 2)", "DELETE FROM t WHERE b = 2 AND c = 1", "UPDATE t SET c = c + 1")
    check_kept(db, QUERIES, steps)
