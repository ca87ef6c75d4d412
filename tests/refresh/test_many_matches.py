"""Many rows at once that bring matches, or take them away, where no index leads to them and where one does.

Up to ten are looked at one by one, more all together.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.upkeep import check_kept, check_kept_inside

Connection = psycopg.Connection[tuple[Any, ...]]

SETUP = """
CREATE TABLE t (id int, x int, y int, name text);
CREATE TABLE u (id int, y int, z bigint, name text);
CREATE TABLE indexed (id int PRIMARY KEY, y int);
CREATE INDEX ON indexed (y);
INSERT INTO t SELECT n, n % 40, nullif(n % 17, 3), 'N' || n % 40 FROM generate_series(1, 60) AS n;
INSERT INTO u SELECT n, nullif(n % 23, 5), n % 9, 'n' || n % 30 FROM generate_series(1, 30) AS n;
INSERT INTO indexed SELECT n, n % 11 FROM generate_series(1, 30) AS n;
"""
QUERIES = {
    "IN": "SELECT id, x FROM t WHERE x IN (SELECT y FROM u)",
    "NOT IN": "SELECT id, x FROM t WHERE x NOT IN (SELECT y FROM u WHERE y IS NOT NULL)",
    "NOT IN, its own table": "SELECT id FROM t WHERE x NOT IN (SELECT y FROM t AS b WHERE b.id > 20)",
    "NOT EXISTS": "SELECT id FROM t WHERE NOT EXISTS (SELECT FROM u WHERE u.y = t.x AND u.z < 5)",
    "by two columns": "SELECT id FROM t WHERE EXISTS (SELECT FROM u WHERE u.y = t.y AND u.z = t.x)",
    "LEFT JOIN": "SELECT t.id, u.z FROM t LEFT JOIN u ON u.y = t.x AND u.z > 2",
    "FULL JOIN": "SELECT t.id, u.id AS other FROM t FULL JOIN u ON u.y = t.x",
    "its own table": "SELECT a.id, b.id AS other FROM t AS a LEFT JOIN t AS b ON b.y = a.x",
    "its own table, again and again": """
        SELECT a.id, b.x, c.y FROM t AS a LEFT JOIN t AS b ON b.id = a.id + 1 LEFT JOIN t AS c ON c.x = a.y + b.y
        """,
    "and a comparison": "SELECT id FROM t WHERE EXISTS (SELECT FROM u WHERE u.y = t.x AND u.z < t.y)",
    "of expressions": "SELECT id FROM t WHERE EXISTS (SELECT FROM u WHERE u.name = lower(t.name) AND u.z <> t.x)",
    "left join of expressions": "SELECT t.id, u.id AS other FROM t LEFT JOIN u ON lower(t.name) = u.name || ''",
    "of other types": "SELECT id FROM t WHERE NOT EXISTS (SELECT FROM u WHERE u.z::numeric / 2 = t.y)",
    "indexed": "SELECT t.id, i.id AS other FROM t LEFT JOIN indexed AS i ON i.y = t.x",
    "of expressions, indexed": "SELECT id FROM t WHERE NOT EXISTS (SELECT FROM indexed AS i WHERE i.y = t.x % 12)",
    "a join": """
        SELECT id FROM t WHERE NOT EXISTS (SELECT FROM u JOIN indexed AS i ON i.id = u.id WHERE u.y + i.y = t.x)
        """,
    "groups": "SELECT t.id, g.n FROM t LEFT JOIN (SELECT y, count(*) AS n FROM u GROUP BY y) AS g ON g.y = t.x",
}
STEPS = (
    "INSERT INTO u SELECT n, n % 45, n % 7, 'n' || n % 41 FROM generate_series(101, 160) AS n",
    "DELETE FROM u WHERE id < 101",
    "UPDATE u SET y = y + 3, name = 'n' || z; UPDATE indexed SET y = y + 4",
    "INSERT INTO u VALUES (1, 39, 1, 'n39'); UPDATE t SET x = 39, name = 'N39' WHERE id < 4",
    "DELETE FROM u WHERE id = 1; DELETE FROM indexed WHERE id > 3",
    "UPDATE t SET x = y, y = x, name = 'N' || id % 5; INSERT INTO u SELECT * FROM u; INSERT INTO t SELECT * FROM t",
    "TRUNCATE u",
    "INSERT INTO u SELECT n % 4, n % 20, NULL, 'N0' FROM generate_series(1, 40) AS n; DELETE FROM t WHERE id % 3 = 0",
    "DELETE FROM u WHERE id < 2; INSERT INTO indexed SELECT n, n % 13 FROM generate_series(31, 60) AS n",
)


@pytest.mark.versions
def test_they_are_kept(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)


def test_they_are_kept_inside_statements(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept_inside(db, QUERIES.values(), STEPS)
