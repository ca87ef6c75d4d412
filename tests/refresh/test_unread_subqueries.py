"""A scalar subquery of which nobody reads the value isn't computed, and so isn't asked for a second row either."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.upkeep import check_kept, check_kept_inside

Connection = psycopg.Connection[tuple[Any, ...]]

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, a int);
CREATE TABLE two (id int PRIMARY KEY, k int, x int);
CREATE VIEW wide AS SELECT id, a, (SELECT x FROM two) AS one, (SELECT x FROM two WHERE k = a) AS own FROM t;
INSERT INTO t VALUES (1, 1), (2, 2), (3, 2), (4, NULL);
INSERT INTO two VALUES (1, 1, 1), (2, 1, 2);
"""
QUERIES = {
    "of a view": "SELECT a FROM wide",
    "counted": "SELECT count(*) AS n FROM wide",
    "filtered": "SELECT id FROM wide WHERE a > 1",
    "WITH": "WITH s AS (SELECT a, (SELECT x FROM two) AS u FROM t) SELECT a FROM s",
    "in an expression": "SELECT a FROM (SELECT a, CASE WHEN a > 1 THEN (SELECT x FROM two) + 1 END AS u FROM t) AS s",
    "summed up": "SELECT a FROM (SELECT a, sum((SELECT x FROM two)) AS u FROM t GROUP BY a) AS s",
    "beside groups": "SELECT n FROM (SELECT a, count(*) AS n, (SELECT x FROM two) AS u FROM t GROUP BY a) AS s",
    "a row": "SELECT a FROM (SELECT a, (1, 2) = (SELECT x, k FROM two) AS u FROM t) AS s",
    "EXISTS": "SELECT id FROM t WHERE EXISTS (SELECT (SELECT x FROM two) FROM t AS b WHERE b.a > t.a)",
    "a branch of UNION ALL": "SELECT a FROM (SELECT a, own FROM wide UNION ALL SELECT a, 1 FROM t) AS s",
    "beside first rows": "SELECT a FROM (SELECT DISTINCT ON (a) a, one FROM wide ORDER BY a, id) AS s",
}
READ = {
    "shown": "SELECT id, own FROM wide",
    "asked": "SELECT id FROM wide WHERE own IS NULL OR own > 0",
    "of those that differ": "SELECT a FROM (SELECT DISTINCT a, own FROM wide) AS s",
    "one of two": "SELECT id, own FROM (SELECT id, own, (SELECT x FROM two AS b WHERE b.k = own) AS u FROM wide) AS s",
}
STEPS = (
    "INSERT INTO t VALUES (5, 1), (6, 2); INSERT INTO two VALUES (3, 2, 3)",
    "UPDATE t SET a = a + 1; DELETE FROM two WHERE id = 1",
    "DELETE FROM t WHERE a = 2; UPDATE two SET k = 2",
    "TRUNCATE two",
    "INSERT INTO two VALUES (1, 2, 1), (2, 2, 2); INSERT INTO t VALUES (9, 2), (10, NULL)",
)


@pytest.mark.versions
def test_they_are_kept(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)


@pytest.mark.versions
def test_they_are_kept_inside_statements(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept_inside(db, QUERIES.values(), STEPS)


@pytest.mark.versions
@pytest.mark.parametrize("query", READ.values(), ids=READ)
def test_of_what_is_read_a_second_row_is_told(db: Connection, query: str) -> None:
    """As PostgreSQL tells it of the query itself."""
    db.execute(SETUP.encode())
    db.execute("DELETE FROM two WHERE id = 1")
    pg_trickle.create_stream_table(db, "later", query, schedule=None)
    db.execute("INSERT INTO two VALUES (3, 1, 3)")
    with pytest.raises(psycopg.errors.CardinalityViolation):
        db.execute(query.encode())
    with pytest.raises(psycopg.errors.CardinalityViolation):
        pg_trickle.refresh_stream_table(db, "later")
    db.execute("DELETE FROM two WHERE id = 3")
    pg_trickle.create_stream_table(db, "at_once", query, refresh_mode="IMMEDIATE")
    with pytest.raises(psycopg.errors.CardinalityViolation):
        db.execute("INSERT INTO two VALUES (3, 1, 3)")
    pg_trickle.refresh_stream_table(db, "later")
    assert differences(db, "later") == differences(db, "at_once") == []
