"""What a row alone makes rows of: functions, VALUES and LATERAL subqueries in FROM, sets in the select list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import check_kept, check_reason, is_maintained

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TYPE pair AS (p int, q text);
CREATE FUNCTION twice(x int) RETURNS TABLE (once int, label text) LANGUAGE sql IMMUTABLE
    AS $$ SELECT x, 'first' UNION ALL SELECT 2 * x, 'second' $$;
CREATE TABLE t (id int, a int, b int, arr int[], words text[], j jsonb, pairs pair[]);
CREATE TABLE s (a int PRIMARY KEY, name text NOT NULL);
INSERT INTO s VALUES (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO t VALUES
    (1, 2, 1, '{1,1,2}', '{x,NULL}', '{"a": 1, "b": [1, 2]}', ARRAY[ROW(1, 'x')::pair, ROW(2, NULL)::pair]),
    (1, 2, 1, '{1,1,2}', '{x,NULL}', '{"a": 1, "b": [1, 2]}', NULL),
    (2, 0, NULL, '{}', NULL, '{}', '{}'),
    (3, NULL, 3, NULL, '{}', '[{"a": 7, "b": "y"}]', NULL);
"""
STEPS = (
    "INSERT INTO t VALUES (4, 3, 2, '{5,NULL,5}', '{z,z}', '{\"c\": null}', ARRAY[ROW(NULL, 'w')::pair])",
    "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE id = 1 LIMIT 1)",
    "UPDATE t SET arr = arr || 9, a = a - 1, b = 5",
    'UPDATE t SET j = \'[{"a": 7, "b": "y"}, {"a": 8}]\', id = 9 WHERE id = 3; DELETE FROM s WHERE a = 2',
    "UPDATE t SET arr = NULL WHERE id = 4; INSERT INTO s VALUES (2, 'deux')",
    "TRUNCATE t",
    "INSERT INTO t VALUES (7, 1, 1, '{3}', '{}', '{\"k\": \"v\"}', NULL)",
)
QUERIES = {
    "function": "SELECT t.id, g FROM t, generate_series(1, t.a) g",
    "function of constants": "SELECT t.id, g FROM t, generate_series(1, 2) g",
    "functions alone": "SELECT g, h FROM generate_series(1, 2) g, generate_series(g, 3) h",
    "array": "SELECT t.id, u FROM t, unnest(t.arr) u",
    "ordinality": "SELECT t.id, u.x, u.place FROM t, unnest(t.words) WITH ORDINALITY AS u(x, place)",
    "left join": "SELECT t.id, u.x FROM t LEFT JOIN LATERAL unnest(t.arr) u(x) ON true",
    "left join on": "SELECT t.id, t.b, u.x FROM t LEFT JOIN LATERAL unnest(t.arr) u(x) ON u.x > t.b",
    "left join of constants": "SELECT t.id, g FROM t LEFT JOIN generate_series(1, 2) g ON g = t.a",
    "inner join on": "SELECT t.id, u.x FROM t JOIN LATERAL unnest(t.arr) u(x) ON u.x > t.b",
    "lock step": "SELECT t.id, r.* FROM t, ROWS FROM (generate_series(1, t.a), unnest(t.arr)) WITH ORDINALITY AS r",
    "several arrays": "SELECT t.id, r.* FROM t, unnest(t.arr, t.words) AS r(x, y)",
    "composites": "SELECT t.id, p.* FROM t, unnest(t.pairs) p",
    "own function": "SELECT t.id, w.* FROM t, twice(t.a) w WHERE w.once > 1",
    "json object": "SELECT t.id, e.key, e.value FROM t, "
    " jsonb_each(CASE jsonb_typeof(t.j) WHEN 'object' THEN t.j END) e",
    "json array grouped": "SELECT e ->> 'a' AS a, count(*) FROM t,"
    " jsonb_array_elements(CASE jsonb_typeof(t.j) WHEN 'array' THEN t.j END) e GROUP BY 1",
    "column definitions": "SELECT t.id, r.* FROM t, jsonb_to_recordset("
    "CASE jsonb_typeof(t.j) WHEN 'array' THEN t.j END) AS r(a int, b text)",
    "column definitions, by whose names values are found": "SELECT t.id, r.* FROM t,"
    " jsonb_to_record(CASE jsonb_typeof(t.j) WHEN 'object' THEN t.j END) AS r(a int, k text)",
    "column definitions in a subquery": "SELECT id, (SELECT sum(r.a) FROM jsonb_to_record("
    "CASE jsonb_typeof(t.j) WHEN 'object' THEN t.j END) AS r(a int)) AS a FROM t",
    "column definitions in lock step": "SELECT t.id, r.* FROM t, ROWS FROM (jsonb_to_recordset("
    "CASE jsonb_typeof(t.j) WHEN 'array' THEN t.j END) AS (a int, b text), generate_series(1, 2)) AS r(x, y, z)",
    "json path": "SELECT t.id, p FROM t, jsonb_path_query(t.j, '$.b[*]') p",
    "regular expression": "SELECT t.id, m FROM t, regexp_matches(t.j::text, '[0-9]', 'g') m",
    "split": "SELECT t.id, w, count(*) FROM t, regexp_split_to_table(t.j::text, '\"') w GROUP BY t.id, w",
    "values": "SELECT t.id, v.n FROM t JOIN (VALUES (1, 'x'), (2, 'y'), (2, NULL)) v(k, n) ON v.k = t.a",
    "values of the row": "SELECT t.id, v.n, v.x FROM t CROSS JOIN LATERAL (VALUES ('a', t.a), ('b', t.b)) v(n, x)",
    "values alone": "VALUES (1, 'x'), (2, 'y'), (1, 'x')",
    "values in a union": "SELECT id FROM t UNION VALUES (1), (8)",
    "values in WITH": "WITH v(k) AS (VALUES (1), (2)) SELECT t.id, v.k FROM t JOIN v ON v.k = t.a",
    "subquery": "SELECT t.id, x.y FROM t CROSS JOIN LATERAL (SELECT t.a + t.b AS y WHERE t.b > 1) x",
    "subquery with aggregates": "SELECT t.id, x.* FROM t, LATERAL (SELECT max(v) AS most, count(v) FROM"
    " (VALUES (t.a), (t.b)) q(v)) x",
    "subquery with LIMIT": "SELECT t.id, x.v FROM t LEFT JOIN LATERAL (SELECT v FROM unnest(t.arr) v ORDER BY v DESC"
    " LIMIT 1) x ON x.v > 1",
    "subquery with windows": "SELECT t.id, x.* FROM t, LATERAL (SELECT v, sum(v) OVER (ORDER BY v) FROM"
    " unnest(t.arr) v) x",
    "subquery of a subquery": "SELECT t.id, x.* FROM t, LATERAL (SELECT y.a, y.b AS c FROM (SELECT t.a, t.b OFFSET 0) y"
    " OFFSET 0) x",
    "subquery that reads WITH": "SELECT t.id, x.c FROM t LEFT JOIN LATERAL (WITH w AS (SELECT t.a UNION ALL SELECT t.b)"
    " SELECT w.a AS c FROM w) x ON true",
    "subquery with WITH": "SELECT t.id, x.v FROM t, LATERAL (WITH RECURSIVE r(v) AS (SELECT t.a UNION ALL"
    " SELECT v - 1 FROM r WHERE v > 1) SELECT v FROM r) x",
    "subquery with set operation": "SELECT t.id, x.v FROM t, LATERAL (SELECT t.a UNION SELECT t.b) x(v)",
    "beside a join": "SELECT t.id, s.name, g FROM t JOIN s USING (a), generate_series(1, a) g",
    "into a join": "SELECT t.id, s.name, g FROM t, (s JOIN LATERAL generate_series(s.a, t.a) g ON g > 1)",
    "into an outer join": "SELECT t.id, s.name, g FROM t, (s LEFT JOIN LATERAL generate_series(s.a, t.a) g ON g > 1)",
    "joined on": "SELECT s.name, sum(t.b) FROM t CROSS JOIN unnest(t.arr) u JOIN s ON s.a = u GROUP BY s.name",
    "grouped by": "SELECT u, count(*), sum(t.a), max(t.b) FROM t, unnest(t.arr) u GROUP BY u HAVING count(*) > 1",
    "distinct": "SELECT DISTINCT u FROM t, unnest(t.arr) u",
    "filtered below": "SELECT t.id, u FROM t, unnest(t.arr) u WHERE t.a > 1 AND u > 1",
    "set": "SELECT id, generate_series(1, a) AS g FROM t",
    "sets in lock step": "SELECT id, generate_series(1, a) AS g, unnest(arr) AS u, b FROM t",
    "set in an expression": "SELECT id, unnest(arr) * 2 + b AS u FROM t WHERE a > 0",
    "nested sets": "SELECT id, generate_series(1, unnest(arr)) AS g FROM t",
    "set of a record": "SELECT id, (jsonb_each(CASE jsonb_typeof(j) WHEN 'object' THEN j END)).key AS k FROM t",
    "set over groups": "SELECT a, generate_series(1, count(*)) AS g FROM t GROUP BY a",
    "set grouped by": "SELECT unnest(arr) AS u, count(*), sum(a) FROM t GROUP BY 1",
    "set grouped by, and another over the groups": "SELECT unnest(arr) AS u, unnest(ARRAY[1, 2]) AS v, count(*)"
    " FROM t GROUP BY 1",
    "distinct set": "SELECT DISTINCT unnest(arr) AS u FROM t",
    "ordered set": "SELECT id, unnest(arr) AS u FROM t ORDER BY 2",
    "set in a derived table": "SELECT q.u, s.name FROM (SELECT unnest(arr) AS u FROM t) q JOIN s ON s.a = q.u",
    "set beside a window": "SELECT id, rank() OVER (ORDER BY id, b) AS r, unnest(arr) AS u FROM t",
    "window over a set": "SELECT q.u, rank() OVER (ORDER BY q.u) AS r FROM (SELECT unnest(arr) AS u FROM t) q",
    "first of a set": "SELECT id, unnest(arr) AS u FROM t ORDER BY 1, 2 LIMIT 3",
    "distinct on a set": "SELECT DISTINCT ON (id) id, unnest(arr) AS u FROM t ORDER BY id, 2 DESC",
    "first of a function": "SELECT t.id, u FROM t, unnest(t.arr) u ORDER BY u DESC NULLS LAST, t.id LIMIT 2",
    "subqueries over functions": "SELECT id, (SELECT sum(u) FROM unnest(t.arr) u) AS x FROM t WHERE 2 = ANY"
    " (SELECT u FROM unnest(t.arr) u) OR EXISTS (SELECT FROM unnest(t.arr) u JOIN s ON s.a = u)",
    "unread set": "SELECT q.id FROM (SELECT id, unnest(arr) AS u FROM t) q",
    "unread function": "SELECT t.id FROM t, unnest(t.arr) u",
    "set twice": "SELECT q.u AS one, q.u AS two FROM (SELECT generate_series(1, a) AS u FROM t) q",
}


JSON = """
JSON_TABLE(t.j, '$[*]' COLUMNS (place FOR ORDINALITY, a int PATH '$.a', e boolean EXISTS PATH '$.b',
    b text PATH '$.b' DEFAULT 'none' ON EMPTY NULL ON ERROR, NESTED PATH '$.b[*]' COLUMNS (c int PATH '$'))) AS x"""
XML = """
XMLTABLE('/r/i' PASSING (CASE WHEN t.id > 0 THEN t.x END) COLUMNS place FOR ORDINALITY, a int PATH '@a' NOT NULL,
    b text PATH '.' DEFAULT 'none') AS x"""


@pytest.mark.versions
def test_tables_in_documents_are_kept(db: Connection, assert_fresh: Oracle) -> None:
    try:
        db.execute("SELECT '<r/>'::xml; CREATE TABLE t (id int, j jsonb, x xml)")
        table = XML
    except psycopg.errors.FeatureNotSupported:
        db.execute("CREATE TABLE t (id int, j jsonb, x text)")
        table = JSON
    for name, query in {
        "s": f"SELECT t.id, x.* FROM t, {table}",
        "g": f"SELECT x.a, count(*), max(x.b) FROM t LEFT JOIN {table} ON x.a > 1 GROUP BY x.a",
    }.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None)
        assert is_maintained(db, name)
    for step in (
        """INSERT INTO t VALUES (1, '[{"a": 1, "b": [5, 6]}, {"a": 2}]', '<r><i a="1">x</i><i a="2"/></r>')""",
        """INSERT INTO t VALUES (2, '{}', '<r/>'), (2, NULL, NULL)""",
        """UPDATE t SET j = j || '{"a": 2}', x = '<r><i a="2"/></r>' WHERE id = 1""",
        "DELETE FROM t WHERE id = 2",
    ):
        db.execute(step.encode())
        for name in ("s", "g"):
            pg_trickle.refresh_stream_table(db, name)
            check_reason(db, name)
            assert_fresh(db, name)


@pytest.mark.versions
def test_what_a_row_alone_makes_is_kept(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)
