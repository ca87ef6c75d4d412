"""Of a window's rows nobody may read a column but the condition that keeps some: how many there are still counts."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.upkeep import check_kept

Connection = psycopg.Connection[tuple[Any, ...]]

SETUP = """
CREATE TABLE r (k int, g int);
CREATE TABLE s (a int);
CREATE VIEW first AS SELECT * FROM (SELECT k, g, row_number() OVER (ORDER BY k) AS place FROM r) AS x WHERE place <= 2;
INSERT INTO r VALUES (1, 1), (2, 1), (3, 2);
INSERT INTO s VALUES (1), (2);
"""
QUERIES = {
    "counted": "SELECT count(*) AS n FROM first",
    "a constant": "SELECT 1 AS one FROM first",
    "beside a table": "SELECT s.a FROM s, first",
    "that there are any": "SELECT a FROM s WHERE EXISTS (SELECT FROM first)",
    "that there are none": "SELECT a FROM s WHERE NOT EXISTS (SELECT FROM first)",
    "an outer join": "SELECT s.a FROM s LEFT JOIN first ON true",
    "by a passed column": "SELECT count(*) AS n FROM (SELECT k, rank() OVER (ORDER BY g) AS f FROM r) AS x WHERE f < k",
    "of each group": "SELECT 1 AS i FROM (SELECT rank() OVER (PARTITION BY g ORDER BY k) AS f FROM r) AS x WHERE f = 1",
}
STEPS = (
    "INSERT INTO r VALUES (0, 1)",
    "DELETE FROM r WHERE k < 3; INSERT INTO s VALUES (2)",
    "DELETE FROM r",
    "INSERT INTO r VALUES (1, 1); DELETE FROM s WHERE a = 1",
    "INSERT INTO r VALUES (2, 2), (1, 1), (NULL, NULL); UPDATE s SET a = a + 1",
    "DELETE FROM r WHERE k IS NOT NULL",
)


@pytest.mark.versions
def test_they_are_kept(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)
