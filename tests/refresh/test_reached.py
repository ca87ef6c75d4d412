"""Subqueries that PostgreSQL computes only for the rows that get to them: in arms of CASE, COALESCE, AND, OR, FILTER.

Each would have two rows, or divide by zero, for rows that don't.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.upkeep import check_kept, check_kept_inside

Connection = psycopg.Connection[tuple[Any, ...]]

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, a int, b int);
CREATE TABLE two (id int PRIMARY KEY, k int, x int);
INSERT INTO t VALUES (1, 1, 0), (2, 2, 1), (3, 2, 0), (4, NULL, 1), (5, 3, 2);
INSERT INTO two VALUES (1, 1, 1), (2, 1, 2), (3, 2, 7);
"""
ONE = "(SELECT x FROM two WHERE k = a)"
OWN = f"CASE WHEN a > 1 THEN {ONE} END"
QUERIES = {
    "an arm never reached": "SELECT id, CASE WHEN false THEN (SELECT x FROM two) END AS v FROM t",
    "reached by no row": "SELECT id, CASE WHEN a > 100 THEN (SELECT x FROM two) END AS v FROM t",
    "an arm": f"SELECT id, CASE WHEN a > 1 THEN {ONE} ELSE 0 END AS v FROM t",
    "ELSE": f"SELECT id, CASE WHEN a = 1 THEN -1 WHEN a IS NULL THEN -2 ELSE {ONE} END AS v FROM t",
    "CASE of a value": f"SELECT id, CASE a WHEN 1 THEN -1 WHEN 2 THEN {ONE} END AS v FROM t",
    "a condition": f"SELECT id, CASE WHEN a = 1 THEN -1 WHEN {ONE} = 7 THEN 7 END AS v FROM t",
    "a range": "SELECT id, CASE WHEN a > 1 THEN (SELECT x FROM two WHERE k >= a) END AS v FROM t",
    "an arm within an arm": f"""
        SELECT id, CASE WHEN a > 1 THEN CASE WHEN a < 3 THEN {ONE} ELSE (SELECT x FROM two WHERE k = a - 1) END END AS v
          FROM t""",
    "by a subquery": f"SELECT id, CASE WHEN (SELECT count(*) FROM two WHERE k = a) < 2 THEN {ONE} END AS v FROM t",
    "a row": "SELECT id, CASE WHEN a > 1 THEN (1, 2) = (SELECT x, k FROM two WHERE k = a) END AS v FROM t",
    "COALESCE": "SELECT id, COALESCE(a, (SELECT x FROM two)) AS v FROM t WHERE a IS NOT NULL",
    "COALESCE of three": f"SELECT id, COALESCE(NULLIF(a, 2), NULLIF(b, 0), {ONE}) AS v FROM t",
    "OR": f"SELECT id FROM t WHERE a = 1 OR {ONE} = 7",
    "AND": f"SELECT id, a > 1 AND {ONE} = 7 AS v FROM t",
    "FILTER": f"""
        SELECT b, sum({ONE}) FILTER (WHERE a > 1) AS v, count(*) FILTER (WHERE a > 1 AND {ONE} > 1) AS n,
               string_agg(a::text, ',' ORDER BY {OWN}, id) AS s
          FROM t GROUP BY b""",
    "over groups": f"SELECT a, count(*) AS n, CASE WHEN count(*) > 1 THEN {ONE} END AS v FROM t GROUP BY a",
    "HAVING": "SELECT b FROM t GROUP BY b HAVING count(*) < 9 OR (SELECT x FROM two) = 1",
    "grouped by": f"SELECT {OWN} AS v, count(*) AS n FROM t GROUP BY {OWN} HAVING {OWN} > 0",
    "grouping sets": f"SELECT {OWN} AS v, b, count(*) AS n FROM t GROUP BY GROUPING SETS (({OWN}), (b))",
    "DISTINCT ON": f"SELECT DISTINCT ON (b) b, id, {OWN} AS v FROM t ORDER BY b, {OWN}, id",
    "beside a window": f"SELECT id, sum(b) OVER (ORDER BY id) AS s, {OWN} AS v FROM t",
    "in a window": f"SELECT id, sum({OWN}) OVER (PARTITION BY b) AS s FROM t",
    "ON": """
        SELECT t.id, u.id AS other FROM t LEFT JOIN t AS u
            ON t.id = u.id + 1 AND CASE WHEN u.a > 1 THEN (SELECT x FROM two WHERE k = u.a) > 1 END""",
    "the time": f"SELECT id FROM t WHERE a > 1 AND (timestamptz '2100-01-01' < now() OR {ONE} > 0)",
    "a sum": "SELECT id, CASE WHEN b <> 0 THEN (SELECT sum(x / b) FROM two WHERE k = a) END AS v FROM t",
    "two arms": """
        SELECT id, CASE WHEN b > 0 THEN (SELECT max(x + a) FROM two WHERE x > a / b) END AS v,
               CASE WHEN b > 1 THEN (SELECT max(x + a) FROM two WHERE x > a / b) END AS w
          FROM t""",
    "ARRAY": "SELECT id, CASE WHEN b <> 0 THEN ARRAY(SELECT x / b FROM two WHERE k = a) END AS v FROM t",
    "IN": "SELECT id, CASE WHEN b > 0 THEN a IN (SELECT x / t.b FROM two WHERE k = t.a) END AS v FROM t",
    "ANY": "SELECT id, CASE WHEN b > 0 THEN a < ANY (SELECT sum(x / t.b) FROM two GROUP BY k) END AS v FROM t",
    "EXISTS": """
        SELECT id, b = 0 OR EXISTS (SELECT k FROM two GROUP BY k HAVING sum(x / t.b) > 1) AS v,
               b > 1 AND EXISTS (SELECT k FROM two GROUP BY k HAVING sum(x / t.b) > 1) AS w
          FROM t""",
}
STEPS = (
    "INSERT INTO t VALUES (6, 2, 1), (7, 3, 0); INSERT INTO two VALUES (4, 1, 3)",
    "UPDATE t SET a = 4 WHERE id = 3",
    "UPDATE two SET x = x + 1 WHERE k = 1",
    "DELETE FROM t WHERE id = 5; INSERT INTO two VALUES (9, NULL, 1)",
    "UPDATE t SET b = b + 1 WHERE b IS NOT NULL; UPDATE t SET b = 0 WHERE id = 2",
    "DELETE FROM two; INSERT INTO two VALUES (1, 1, 1), (2, 1, 2)",
)


@pytest.mark.versions
def test_they_are_kept(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)


def test_they_are_kept_inside_statements(db: Connection) -> None:
    db.execute(SETUP.encode())
    queries = [query for name, query in QUERIES.items() if name != "the time"]
    check_kept_inside(db, queries, STEPS)


def test_a_second_row_is_told_once_a_row_gets_to_it(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "later", f"SELECT id, {OWN} AS v FROM t", schedule=None)
    pg_trickle.create_stream_table(db, "at_once", f"SELECT id, {OWN} AS v FROM t", refresh_mode="IMMEDIATE")
    with pytest.raises(psycopg.errors.CardinalityViolation):
        db.execute("INSERT INTO two VALUES (4, 2, 8)")
    pg_trickle.drop_stream_table(db, "at_once")
    db.execute("INSERT INTO two VALUES (4, 2, 8)")
    with pytest.raises(psycopg.errors.CardinalityViolation):
        pg_trickle.refresh_stream_table(db, "later")
    db.execute("UPDATE t SET a = 1 WHERE a = 2")
    pg_trickle.refresh_stream_table(db, "later")
    assert differences(db, "later") == []
