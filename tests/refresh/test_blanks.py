"""Blanks at the end of a bpchar: values that differ in them alone are equal, and not the same.

As text they read alike, so that nothing may be told apart by a cast.  A column of type ``bpchar``, and what a char(5)
and a varchar have in common, holds values of different lengths; of char(5) all have the same.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.upkeep import check_kept, check_kept_inside

Connection = psycopg.Connection[tuple[Any, ...]]

SETUP = """
CREATE DOMAIN padded AS bpchar;
CREATE TYPE pair AS (c bpchar, k int);
CREATE TABLE fixed (id int PRIMARY KEY, c char(5));
CREATE TABLE varying (id int PRIMARY KEY, v varchar(5));
CREATE TABLE t (id int PRIMARY KEY, c bpchar, d padded, k int);
INSERT INTO fixed VALUES (1, 'ab'), (2, 'ab');
INSERT INTO varying VALUES (1, 'ab'), (2, 'ab   '), (3, 'ab  ');
INSERT INTO t VALUES (1, 'ab', 'ab', 1), (2, 'ab ', 'ab  ', 1);
"""
QUERIES = {
    "by a key": "SELECT id, c, d FROM t",
    "without one": "SELECT c, d FROM t",
    "lengths": "SELECT octet_length(c) AS n, octet_length(d) AS m, k FROM t",
    "in arrays": "SELECT ARRAY[c, d] AS a FROM t",
    "UNION ALL": "SELECT c FROM fixed UNION ALL SELECT v FROM varying",
    "UNION ALL below a join": """
        SELECT u.c, t.id FROM (SELECT c FROM fixed UNION ALL SELECT v FROM varying) AS u JOIN t ON t.c = u.c""",
    "varchar first": """
        SELECT u.v, t.id FROM (SELECT v FROM varying UNION ALL SELECT c FROM fixed) AS u JOIN t ON t.c = u.v""",
    "text as well": """
        SELECT u.c, octet_length(u.c) AS n, t.id
          FROM (SELECT c FROM fixed UNION ALL SELECT v || '' FROM varying) AS u JOIN t ON t.c = u.c""",
    "COALESCE": """
        SELECT u.x, t.id FROM (SELECT COALESCE(c, v) AS x FROM fixed FULL JOIN varying USING (id)) AS u
          JOIN t ON t.c = u.x""",
    "CASE": """
        SELECT u.x, t.id
          FROM (SELECT CASE WHEN c IS NULL THEN v ELSE c END AS x FROM fixed FULL JOIN varying USING (id)) AS u
          JOIN t ON t.c = u.x""",
    "gathered": """
        SELECT u.id, string_agg(format('%s|', u.c), ',' ORDER BY octet_length(u.c)) AS s
          FROM (SELECT id, c FROM fixed UNION ALL SELECT id, v FROM varying) AS u GROUP BY u.id""",
    "beside its group": "SELECT id, c, lag(c) OVER (PARTITION BY k ORDER BY id) AS l FROM t",
    "first of all": "SELECT c, id FROM t ORDER BY id LIMIT 2",
    "EXCEPT ALL": "SELECT octet_length(c) AS n FROM t EXCEPT ALL SELECT octet_length(v) FROM varying",
    "of a type that isn't known": """
        SELECT octet_length(x) AS n FROM (SELECT id, c::padded AS x FROM t ORDER BY id LIMIT 3) AS u""",
    "an element, beside a window": """
        SELECT octet_length(x) AS n, count(*) OVER (PARTITION BY k) AS m
          FROM (SELECT (ARRAY[c])[1] AS x, k FROM t) AS u""",
    "a field, in UNION ALL": """
        SELECT octet_length(x) AS n
          FROM (SELECT (ROW(c, k)::pair).c AS x FROM t UNION ALL SELECT (ROW(c, k)::pair).c FROM t) AS u""",
    "such a one gathered": """
        SELECT k, string_agg(format('%s|', x), ',' ORDER BY id) AS s FROM (SELECT id, k, c::padded AS x FROM t) AS u
         GROUP BY k""",
    "asked by a subquery": "SELECT id, (SELECT max(octet_length(b.c)) FROM t AS b WHERE b.c = t.c) AS m FROM t",
}
STEPS = (
    """INSERT INTO fixed VALUES (3, 'cd'), (4, 'ab'); INSERT INTO varying VALUES (7, 'cd '), (8, 'cd   ');
       INSERT INTO t VALUES (3, 'cd', 'cd', 1), (4, 'cd ', 'cd  ', 2)""",
    "UPDATE t SET c = c::text || '  '",
    "UPDATE t SET d = 'ab' WHERE id < 3; UPDATE varying SET v = v || ' ' WHERE length(v) < 4",
    "DELETE FROM varying WHERE id = 2",
    "DELETE FROM fixed WHERE id < 3; UPDATE t SET c = trim(c)",
    "INSERT INTO varying VALUES (9, 'ab   '); DELETE FROM fixed; UPDATE t SET c = c::text || ' ' WHERE id = 1",
)


@pytest.mark.versions
def test_they_are_kept(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)


def test_they_are_kept_inside_statements(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept_inside(db, QUERIES.values(), STEPS)
