"""INTERSECT and EXCEPT, with ALL and without, of bags with NULLs; mixed types; one inside the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import check_kept

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE l (a int, b text, n numeric, m mood, v varchar(5), d date);
CREATE TABLE r (a int, b text, n float8, m mood, v text, d timestamp);
INSERT INTO l VALUES (1, 'x', 1.0, 'sad', 'x', '2024-01-01'), (1, 'x', 1.00, 'sad', 'x', '2024-01-01'),
    (NULL, NULL, NULL, NULL, NULL, NULL), (2, 'y', 2.5, 'ok', 'y', '2024-01-02');
INSERT INTO r VALUES (1, 'x', 1, 'sad', 'x', '2024-01-01'), (NULL, NULL, NULL, NULL, NULL, NULL);
"""
STEPS = (
    "DELETE FROM r WHERE a = 1",  # the left side's count is not forgotten
    "INSERT INTO r VALUES (1, 'x', 1, 'sad', 'x', '2024-01-01'), (3, 'z', 3, 'ok', 'z', '2024-01-03')",
    "DELETE FROM l WHERE ctid IN (SELECT ctid FROM l WHERE a = 1 LIMIT 1)",
    "DELETE FROM l WHERE a = 1; INSERT INTO l SELECT * FROM l; INSERT INTO r SELECT * FROM r",
    "UPDATE l SET a = 3, b = 'z'; UPDATE r SET a = a + 1 WHERE a = 1",
    "UPDATE r SET b = NULL, a = NULL, v = NULL; INSERT INTO l (a) VALUES (NULL)",
    "TRUNCATE l",
    "INSERT INTO l VALUES (NULL, NULL, 3, 'ok', 'z', '2024-01-03'); TRUNCATE r",
)
COLUMNS = {"a": "a, b", "n": "n", "m": "m", "v": "v", "d": "d"}
KINDS = ("UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL")
QUERIES = {
    **{f"{kind} of {name}": f"SELECT {listed} FROM l {kind} SELECT {listed} FROM r"
       for kind in KINDS for name, listed in COLUMNS.items()},
    **{f"{kind} inside": f"SELECT q.{x}, count(*) FROM (SELECT {x}, b FROM l {kind} SELECT {x}, b FROM r) q GROUP BY 1"
       for kind in KINDS for x in ("a", "n", "d")},
    "an expression over EXCEPT ALL": "SELECT a / 2 AS h FROM (SELECT a FROM l EXCEPT ALL SELECT a FROM r) q",
    "joined": "SELECT q.a, l.b FROM (SELECT a FROM l INTERSECT SELECT a FROM r) q LEFT JOIN l ON l.a = q.a",
    "three": "SELECT a FROM l UNION SELECT a FROM r UNION SELECT length(b) FROM l",
    "UNION ALL in UNION": "SELECT a FROM l UNION ALL SELECT a FROM r UNION SELECT 7",
    "UNION in UNION ALL": "(SELECT a FROM l UNION SELECT a FROM r) UNION ALL SELECT a FROM l",
    "different kinds": "(SELECT a FROM l INTERSECT ALL SELECT a FROM r) UNION ALL"
    " (SELECT a FROM l EXCEPT SELECT a FROM r)",
    "EXCEPT of EXCEPT": "SELECT a FROM l EXCEPT ALL (SELECT a FROM r EXCEPT ALL SELECT a FROM l)",
    "compared in their own type": "(SELECT n FROM l EXCEPT SELECT 2.50) UNION SELECT n FROM r",
    "with groups": "SELECT a, count(*) FROM l GROUP BY a EXCEPT SELECT a, count(*) FROM r GROUP BY a",
    "with WITH": "WITH w AS (SELECT a FROM l INTERSECT ALL SELECT a FROM r)"
    " SELECT w.a, v.a AS b FROM w JOIN w v USING (a)",
    "of the same table": "SELECT a FROM l EXCEPT ALL SELECT a FROM l WHERE b IS NOT NULL",
    "of constants": "SELECT a FROM l INTERSECT VALUES (1), (3), (NULL)",
    "for each outer row": "SELECT l.b, q.a FROM l, LATERAL (SELECT r.a FROM r WHERE r.b = l.b EXCEPT ALL VALUES (1)) q",
    "ordered": "SELECT a FROM l EXCEPT SELECT a FROM r ORDER BY 1",
}  # fmt: skip


@pytest.mark.versions
def test_set_operations_are_kept(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)


@pytest.mark.versions(icu=True)
def test_arms_that_tell_other_texts_apart_are_not_counted_by_one_of_them(db: Connection) -> None:
    """Counted by one collation alone, what is equal in the other would be lost: such a union is computed again."""
    db.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    db.execute("CREATE TABLE a (x text COLLATE loose); CREATE TABLE b (x text); INSERT INTO a VALUES ('abc')")
    query = "SELECT x FROM a UNION SELECT x FROM b"
    pg_trickle.create_stream_table(db, "s", query, schedule=None)
    for step, rows in {
        "INSERT INTO b VALUES ('ABC'), ('Abc'), ('z')": 2,
        "DELETE FROM a": 2,
        "DELETE FROM b WHERE x = 'ABC'": 2,
        "DELETE FROM b WHERE x = 'Abc'": 1,
    }.items():
        db.execute(step.encode())
        pg_trickle.refresh_stream_table(db, "s")
        assert db.execute("SELECT count(*) FROM s").fetchone() == (rows,)
