"""Expressions of every kind that PostgreSQL evaluates row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import check_reason, is_maintained

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE t (id int, a int, b int, s text, ts timestamptz, arr int[], j jsonb);
INSERT INTO t VALUES (1, 1, 2, 'abc', '2024-02-29 12:00+00', '{1,2,3}', '{"a": 1, "b": [2]}'),
    (2, NULL, 2, NULL, NULL, NULL, NULL), (3, 3, 3, 'b', 'infinity', '{}', '[]');
"""
STEPS = (
    "INSERT INTO t VALUES (4, 2, 1, ' abé ', '2024-07-01 00:00+02', '{NULL,4}', '{\"a\": null}')",
    "UPDATE t SET a = b, b = a, s = upper(s) WHERE id < 3",
    "UPDATE t SET arr = arr || 5, j = coalesce(j, '{}') || '{\"a\": 7}'",
    "DELETE FROM t WHERE id = 1",
    "TRUNCATE t",
)
EXPRESSIONS = (
    "ts AT TIME ZONE 'Asia/Tokyo'", "extract(year FROM ts)", "date_trunc('month', ts)", "s SIMILAR TO '%(b|c)'",
    "(ts, '1 day'::interval) OVERLAPS (ts - '1 hour'::interval, ts)", "substring(s FROM 2 FOR 1)",
    "trim(both ' ' FROM s)",
    "substring(s SIMILAR '%#\"b#\"%' ESCAPE '#')", "position('b' IN s)", "overlay(s PLACING 'z' FROM 1 FOR 1)",
    "normalize(s, NFD)", "s IS NFC NORMALIZED", "a BETWEEN SYMMETRIC 2 AND 1", "a IS DISTINCT FROM b",
    "ROW(a, b) IS NOT DISTINCT FROM ROW(b, a)", "(a, b) < (b, a)", "(a, b) = (1, 2)", "arr[1]", "arr[1:2]", "arr[2:]",
    "a = ANY (arr)", "a <> ALL (ARRAY[1, b])", "ARRAY[[a, b], [b, a]]", "ROW(a, b) IS NULL", "greatest(a, b, 2)",
    "least(a, b)", "nullif(a, b)", "coalesce(a, b, 0)",
    "CASE a WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE s END",
    "s COLLATE \"C\" > 'abc'", "s ILIKE 'A%'", "s LIKE 'a\\_%' ESCAPE '\\'", "s ~* '^a'", "a::numeric / b",
    "a::text || s",
    "make_interval(days => a)", "j -> 'b' -> 0", "j ->> 'a'", "j #>> '{b,0}'", "j @> '{\"a\": 1}'", "j ? 'a'",
    "jsonb_path_exists(j, '$.a ? (@ > 0)')", "cardinality(arr)", "array_position(arr, 2)", "a IN (1, 3)", "NOT (a > b)",
    "(a > b) IS UNKNOWN", "int4range(least(a, b), greatest(a, b), '[]') && '[2,3]'",
    "arr && ARRAY[1]", "a # b", "-a", "~a",
    "(j ->> 'a')::int", "format('%s-%s', a, s)", "concat_ws(',', a, b)",
)  # fmt: skip
SQL_JSON = (
    "JSON_OBJECT('a': a, 'b': b ABSENT ON NULL)::text", "JSON_ARRAY(a, b NULL ON NULL RETURNING jsonb)", "s IS JSON",
    "j::text IS JSON OBJECT WITH UNIQUE KEYS",
)  # fmt: skip
SQL_JSON_FUNCTIONS = (
    "JSON_VALUE(j, '$.a' RETURNING int DEFAULT 3 ON EMPTY)", "JSON_QUERY(j, '$.b' WITH WRAPPER)",
    "JSON_SCALAR(a)::text",
    "JSON_EXISTS(j, '$.a ? (@ > $x)' PASSING b AS x)", "JSON_SERIALIZE(j RETURNING text)", "JSON('[1]')::text",
)  # fmt: skip
XML = (
    "xmlelement(NAME foo, xmlattributes(a AS b), s)::text", "xmlforest(a AS a, b AS b)::text",
    "xmlpi(NAME foo, 'x')::text",
    "xmlserialize(CONTENT xmlconcat(xmlelement(NAME a), xmlelement(NAME b)) AS text)",
)  # fmt: skip
AGGREGATES = (
    "JSON_ARRAYAGG(a ORDER BY id RETURNING jsonb) FILTER (WHERE b > 1)",
    "JSON_OBJECTAGG(id: s NULL ON NULL RETURNING jsonb)",
)


@pytest.mark.versions
def test_expressions_are_kept(db: Connection, assert_fresh: Oracle) -> None:
    db.execute("SET TimeZone = 'Europe/Berlin'")
    db.execute(SETUP.encode())
    version = db.info.server_version
    known = EXPRESSIONS + (SQL_JSON if version >= 160000 else ()) + (SQL_JSON_FUNCTIONS if version >= 170000 else ())
    known += XML if _has_xml(db) else ()
    queries = {"s0": f"SELECT id, {', '.join(f'{one} AS c{place}' for place, one in enumerate(known))} FROM t"}
    queries["s1"] = f"SELECT {', '.join(f'max(({one})::text) AS c{place}' for place, one in enumerate(known))} FROM t"
    queries["s2"] = (
        "SELECT id FROM t WHERE (a, b) <> (1, 1) AND arr[1] IS DISTINCT FROM 4 AND ts AT TIME ZONE 'UTC' > '2000-1-1'"
    )
    if version >= 160000:
        queries["s3"] = (
            f"SELECT b, {', '.join(f'{one} AS c{place}' for place, one in enumerate(AGGREGATES))} FROM t GROUP BY b"
        )
        queries["s4"] = f"SELECT {AGGREGATES[0]} AS c, grouping(b) AS g FROM t GROUP BY ROLLUP (b)"
        queries["s5"] = f"SELECT {AGGREGATES[0]} AS c FROM t"
    # The same over the keys of groups.
    queries["s6"] = f"{queries['s0']} WHERE id > 0 GROUP BY id, a, b, s, ts, arr, j HAVING a = ANY ('{{1,2,3}}'::int[])"
    for name, query in queries.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None)
        assert is_maintained(db, name)
    for step in STEPS:
        db.execute(step.encode())
        for name in queries:
            pg_trickle.refresh_stream_table(db, name)
            check_reason(db, name)
            assert_fresh(db, name)


def _has_xml(conn: Connection) -> bool:
    try:
        conn.execute("SELECT '<r/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True
