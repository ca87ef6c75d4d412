"""Rows of a table as values, wherever they stand and whatever columns the table has by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.errors import InvalidDefinition

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE t (id int, a int, gone int, b numeric, s text); ALTER TABLE t DROP COLUMN gone;
INSERT INTO t VALUES (1, 1, 1.0, 'x'), (1, 1, 1.00, 'x'), (2, NULL, NULL, NULL), (NULL, NULL, NULL, NULL);
CREATE TABLE u (id int PRIMARY KEY, a int); INSERT INTO u VALUES (1, 1), (2, NULL);
CREATE VIEW v AS SELECT id, a + 1 AS c FROM u;
CREATE FUNCTION f(t) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.s || $1.b';
CREATE TABLE parted (id int, a int) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF parted DEFAULT;
INSERT INTO parted VALUES (1, 2);
"""
BY_RULES = {
    "json": "SELECT row_to_json(t) AS j FROM t",
    "less": "SELECT to_jsonb(t) - 's' AS j FROM t",
    "collected": "SELECT a, jsonb_agg(t ORDER BY t.b::text) AS j FROM t GROUP BY a",
    "counted": "SELECT a, count(t) AS n, count(DISTINCT t) AS m FROM t GROUP BY a",
    "beside padded ones": "SELECT t.id, count(t) AS n FROM t LEFT JOIN u ON u.a = t.a GROUP BY t.id",
    "own function": "SELECT f(t) AS f, t.f AS g FROM t",
    "text": "SELECT t::text AS s FROM t",
    "null": "SELECT id FROM t WHERE t IS NULL",
    "of a view": "SELECT to_jsonb(v) AS j FROM v",
    "in a subquery": "SELECT id, (SELECT count(*) FROM u WHERE to_json(u) ->> 'id' = t.id::text) AS n FROM t",
    "items": "SELECT t.id, e.key, e.value FROM t, LATERAL jsonb_each(to_jsonb(t)) e",
    "ordered by": "SELECT id, s FROM t ORDER BY (a, (s, id)) DESC NULLS LAST LIMIT 2",
    "first of": "SELECT DISTINCT ON ((a, s)) a, s, id FROM t ORDER BY (a, s), id",
    "equal": "SELECT x.id FROM t x JOIN t y ON x = y",
    "padded": "SELECT t.id, to_jsonb(u) AS j FROM t LEFT JOIN u ON u.a = t.a",
    "padded and counted": "SELECT t.id, count(u) AS n, count(u.*) AS m FROM t LEFT JOIN u ON u.a = t.a GROUP BY t.id",
    "padded and missing": "SELECT t.id, u IS NULL AS n FROM t LEFT JOIN u ON u.a = t.a",
    "padded on both sides": "SELECT x.id, to_jsonb(x) AS j, y::text AS t FROM u x FULL JOIN u y ON y.a = x.id"
    " LEFT JOIN t ON t.a = x.a",
    "derived": "SELECT to_jsonb(q) AS j FROM (SELECT id, a FROM t) q",
    "derived as text": 'SELECT row_to_json(q) AS j, to_json(q) AS k, q::text AS s FROM (SELECT a AS "A b" FROM t) q',
    "derived and gathered": "SELECT x.id,"
    " (SELECT json_agg(q) FROM (SELECT t.b, t.s FROM t WHERE t.a = x.a ORDER BY t.s) q) AS j FROM u x",
    "derived and renamed": "SELECT jsonb_agg(q ORDER BY q.y, q.x) AS j FROM (SELECT id, a FROM t) q (y, x)",
    "derived and renamed apart": "SELECT to_jsonb(q) AS j FROM (SELECT id, a AS id FROM t) q(x, y)",
    "derived in a join": "SELECT u.id, q.n, to_jsonb(q) || to_jsonb(u) AS j FROM u"
    " JOIN (SELECT a, count(*) AS n FROM t GROUP BY a) q ON q.a = u.a",
    "derived and counted": "SELECT q.a, count(q) AS n FROM (SELECT id, a FROM t) q GROUP BY q.a",
    "derived and null": "SELECT count(*) AS n FROM (SELECT id, a FROM t) q WHERE q IS NULL",
    "derived and equal": "SELECT x.id FROM (SELECT id, a FROM t) x JOIN (SELECT id, a FROM u) y ON x = y",
    "lateral": "SELECT u.id, to_jsonb(q) AS j FROM u, LATERAL (SELECT t.s, u.a AS of FROM t WHERE t.id = u.id) q",
    "by WITH": "WITH q(y, x) AS (SELECT id, a FROM t) SELECT row_to_json(q) AS j FROM q",
    "by WITH with names given": "WITH q AS (SELECT id, a FROM t) SELECT to_jsonb(x.*) AS j, x.k FROM q x(k, l)",
    "by WITH around": "WITH q AS (SELECT id, a FROM t)"
    " SELECT u.id, (SELECT jsonb_agg(q ORDER BY q.id) FROM q WHERE q.a = u.a) AS j FROM u",
    "by WITH RECURSIVE": "WITH RECURSIVE q AS (SELECT 1 AS n UNION SELECT q.n + 1 FROM q JOIN t ON t.id = q.n)"
    " SELECT to_jsonb(q) AS j FROM q",
    "compared with a row": "SELECT q.id, ROW(q.id, q.a) = q AS e, ROW(1, 0) < q AS l FROM (SELECT id, a FROM t) q",
    "in a function of FROM": "SELECT u.id, z.key, z.value FROM u JOIN (SELECT id, a FROM t) q ON q.id = u.id"
    " CROSS JOIN LATERAL jsonb_each_text(to_jsonb(q)) z",
    "in what has no tables": "SELECT u.id, z.qj, v.v FROM u LEFT JOIN (SELECT id, a FROM t) q ON q.id = u.id"
    " CROSS JOIN LATERAL (SELECT to_jsonb(q) AS qj) z CROSS JOIN LATERAL (VALUES (row_to_json(q))) v(v)",
    "in a function within a subquery": "SELECT q.id,"
    " ARRAY(SELECT k FROM jsonb_object_keys(to_jsonb(q)) k ORDER BY k) AS k"
    " FROM (SELECT id, a FROM t) q WHERE EXISTS (SELECT 1 FROM jsonb_each_text(to_jsonb(q)) e WHERE e.value = '1')",
    "of values": "SELECT to_jsonb(q) AS j, t.id FROM t, (VALUES (1, 'x'), (2, 'y')) q(n, s) WHERE q.n = t.id",
    "padded without a key": "SELECT u.id, to_jsonb(t) AS j FROM u LEFT JOIN t ON t.a = u.a",
    "view padded": "SELECT t.s, to_jsonb(v) AS j, v IS NULL AS n FROM t LEFT JOIN v ON v.c = t.a",
    "derived and padded": "SELECT u.id, to_jsonb(q) AS j FROM u LEFT JOIN (SELECT id, a FROM t) q ON q.a = u.a",
    "derived and padded twice": "SELECT row_to_json(p) AS x, row_to_json(q) AS y"
    " FROM (SELECT id, b FROM t) p FULL JOIN (SELECT id, a FROM u) q ON q.a = p.id LEFT JOIN u ON u.id = p.id",
    "lateral and padded": "SELECT u.id, row_to_json(q) AS j FROM u"
    " LEFT JOIN LATERAL (SELECT t.s, t.b FROM t WHERE t.a = u.a ORDER BY t.s, t.b DESC LIMIT 1) q ON true",
    "counted where padded": "SELECT u.id, count(q) AS n, jsonb_agg(q ORDER BY q.s) AS j FROM u"
    " LEFT JOIN (SELECT DISTINCT a, s FROM t) q ON q.a = u.a GROUP BY u.id",
    "by WITH and padded": "WITH q AS (SELECT a, count(*) AS n FROM t GROUP BY a UNION ALL SELECT a, 0 FROM u)"
    " SELECT u.id, to_json(q) AS j FROM u LEFT JOIN q ON q.a = u.a",
    "within a row": "SELECT to_jsonb(q) AS j FROM (SELECT x.id, to_jsonb(x) AS x FROM (SELECT id, s FROM t) x) q",
    "partitioned": "SELECT to_jsonb(parted) AS j FROM parted",
    "beside what is called alike": "SELECT u.id, (SELECT json_agg(q) FROM (SELECT t.id FROM t WHERE t.a = u.a"
    " ORDER BY t.id) q) AS j, (SELECT count(*) FROM (SELECT t.id, t.a AS id FROM t WHERE t.a = u.a) q) AS n FROM u",
    "within what is called alike": "SELECT q.id, (SELECT max(to_jsonb(q)::text) FROM (SELECT t.id FROM t) q) AS j"
    " FROM (SELECT u.id, u.a AS id FROM u) q(id, b)",
    "built": 'SELECT row_to_json((SELECT e FROM (SELECT t.id, t.b AS "A b") e)) AS j,'
    " (SELECT to_jsonb(e) FROM (SELECT t.s, t.a + 1) e) AS k FROM t",
    "built of what is gathered": "SELECT u.id, row_to_json((SELECT e FROM (SELECT u.id, l.j AS i, l.o) e)) AS j FROM u"
    " LEFT JOIN LATERAL (SELECT json_agg((SELECT f FROM (SELECT t.s, t.b) f) ORDER BY t.s, t.b) AS j,"
    " json_build_object('n', count(*)) AS o FROM t WHERE t.a = u.a) l ON true",
    "built of what is built": "SELECT u.id, row_to_json((SELECT e FROM (SELECT u.id, (SELECT f FROM (SELECT u.a,"
    " (SELECT json_agg(t.s ORDER BY t.s) FROM t WHERE t.a = u.a) AS l) f) AS f) e)) AS j FROM u",
    "built and null": "SELECT t.id, (SELECT e FROM (SELECT t.b, t.s) e) IS NULL AS n,"
    " (SELECT e FROM (SELECT t.b, t.s) e) IS NOT NULL AS m,"
    " coalesce((SELECT e FROM (SELECT t.s) e), NULL)::text AS c FROM t",
    "built of what is padded": "SELECT t.id, to_jsonb((SELECT e FROM (SELECT u.a, u AS w, q) e)) AS j,"
    " (SELECT e FROM (SELECT u) e) IS NULL AS n FROM t LEFT JOIN u ON u.a = t.a"
    " LEFT JOIN (SELECT id, a FROM u) q ON q.id = t.id",
    "built and compared": "SELECT t.id, (SELECT e FROM (SELECT t.id, t.s) e) IS DISTINCT FROM"
    " (SELECT f FROM (SELECT t.a, t.s) f) AS d FROM t WHERE (SELECT e FROM (SELECT t.id, t.a) e) IN (SELECT u FROM u)",
    "built of constants": "SELECT to_json((SELECT e FROM (SELECT 'x' AS k, NULL AS n, 1.50 AS d, t.b) e)) AS j FROM t",
    "built of groups": "SELECT t.a, count(*) AS n, row_to_json((SELECT e FROM (SELECT t.a,"
    " (SELECT json_agg(u.id ORDER BY u.id) FROM u WHERE u.a = t.a) AS l) e)) AS j FROM t GROUP BY t.a",
    "built and gathered": "SELECT t.a, json_agg((SELECT e FROM (SELECT t.id, t.s) e) ORDER BY t.s, t.id) AS j"
    " FROM t GROUP BY t.a",
    "built two queries below": "SELECT u.id, (SELECT json_agg((SELECT e FROM (SELECT u.id AS of, t.s, (SELECT count(*)"
    " FROM u y WHERE y.a = t.a AND y.id <= u.id) AS n) e) ORDER BY t.s) FROM t WHERE t.a = u.a) AS j FROM u",
    "built beside a window": "SELECT row_to_json((SELECT e FROM (SELECT t.id, t.s) e)) AS j,"
    " count(*) OVER (PARTITION BY t.a) AS n FROM t",
    "built and passed on": "SELECT r.e IS NULL AS n, to_jsonb(r.e) AS j"
    " FROM (SELECT (SELECT e FROM (SELECT t.id, t.s) e) AS e FROM t) r",
    "built of merged columns": "SELECT id, to_json((SELECT e FROM (SELECT id, t.a, u.a AS b) e)) AS j"
    " FROM t FULL JOIN u USING (id)",
    "built where it has no tables": "SELECT u.id, l.j, v.j AS k, z.value FROM u"
    " CROSS JOIN LATERAL (SELECT row_to_json((SELECT e FROM (SELECT u.id, u.a) e)) AS j) l"
    " CROSS JOIN LATERAL (VALUES (to_json((SELECT e FROM (SELECT u.id) e)))) v(j)"
    " CROSS JOIN LATERAL jsonb_each_text(to_jsonb((SELECT e FROM (SELECT u.a) e))) z",
    "built under other names": "SELECT t.id, to_json((SELECT e FROM (SELECT t.id, t.s) e(x, y))) AS j FROM t",
    "built but a field of it": "SELECT (SELECT (e).s FROM (SELECT t.id, t.s) e) AS s,"
    " (SELECT to_jsonb(e) - e.s FROM (SELECT t.id, t.s, 1 AS x) e) AS j FROM t",
    "built of a count": "SELECT to_json((SELECT e FROM (SELECT count(*) AS n) e)) AS j FROM t",
    "built and counted": "SELECT (SELECT count(e) FROM (SELECT t.id) e) AS n FROM t",
    "built of a window": "SELECT to_json((SELECT e FROM (SELECT row_number() OVER () AS n, t.id) e)) AS j FROM t",
    "built and in a window": "SELECT (SELECT count(e) OVER () FROM (SELECT t.id) e) AS n FROM t",
    "built of a set": "SELECT to_json((SELECT e FROM (SELECT unnest(ARRAY[]::int[]) AS x, t.id) e)) AS j FROM t",
    "built and made a set": "SELECT (SELECT jsonb_array_elements_text(to_jsonb(e) -> 'l')"
    " FROM (SELECT '[]'::jsonb AS l) e) AS v FROM t",
    "built of what has no equality if asked": "SELECT u.id, row_to_json((SELECT e FROM (SELECT u.a,"
    " (SELECT json_agg(t.s ORDER BY t.s) FROM t WHERE t.a = u.a) AS l) e WHERE u.id > 0)) AS j FROM u",
    "built if asked": "SELECT t.id, to_json((SELECT e FROM (SELECT t.s) e WHERE t.a = 1)) AS j,"
    " to_json((SELECT e FROM (SELECT t.s WHERE t.a = 1 OR t.s = 'z') e)) AS k,"
    " (SELECT e FROM (SELECT t.b WHERE t.a > 0) e WHERE t.id > 0) IS NULL AS n FROM t",
    "built if there is any": "SELECT u.id, row_to_json((SELECT e FROM (SELECT u.a, (SELECT json_agg(t.s ORDER BY t.s)"
    " FROM t WHERE t.a = u.a) AS l WHERE EXISTS (SELECT FROM t WHERE t.a = u.a)) e)) AS j FROM u",
    "built of aggregates": "SELECT t.a, row_to_json((SELECT e FROM (SELECT t.a, count(t.id) AS n) e)) AS j"
    " FROM t GROUP BY t.a",
    "built of aggregates if asked": "SELECT t.a, row_to_json((SELECT e FROM"
    " (SELECT sum(t.id) FILTER (WHERE t.s > 'a') AS n, t.a WHERE count(t.id) > 1) e)) AS j FROM t GROUP BY t.a",
    "built of an aggregate of all": "SELECT row_to_json((SELECT e FROM"
    " (SELECT max(t.s) AS m, count(t) AS n) e)) AS j FROM t",
    "built and asked for a field": "SELECT t.id, to_json((SELECT e FROM (SELECT t.s, t.a) e"
    " WHERE e.a = 1)) AS j FROM t",
}
RECOMPUTED = {
    "built of an aggregate of a query around": "SELECT t.a, (SELECT (SELECT to_json(e)::text FROM"
    " (SELECT count(t.id) AS n) e) FROM u WHERE u.id = 1) AS j FROM t GROUP BY t.a",
    "built but left out": "SELECT t.id, to_json((SELECT e FROM (SELECT t.s) e OFFSET 1)) AS k FROM t",
    "built and counted in a subquery": "SELECT r.n, count(*) AS m FROM"
    " (SELECT (SELECT (SELECT count(e)) FROM (SELECT t.s) e) AS n FROM t) r GROUP BY r.n",
    "derived and put into an array": "SELECT q.a, array_to_json(array_agg(q ORDER BY q.id)) AS j"
    " FROM (SELECT id, a FROM t WHERE id > 1) q GROUP BY q.a",
    "field of a column that is a row": "SELECT to_jsonb(r) AS j, (r.q).id AS i"
    " FROM (SELECT q, q.a FROM (SELECT id, a FROM t) q) r",
    "field of a row that may be padded": "SELECT u.id, (r.q).id AS i FROM u"
    " LEFT JOIN (SELECT q, y.a FROM u y LEFT JOIN (SELECT id, a FROM t) q ON q.id = y.id) r ON r.a = u.a",
    "field of the first row": "SELECT u.id, (m.q).b AS b FROM u LEFT JOIN LATERAL"
    " (SELECT q FROM (SELECT t.b, t.s FROM t WHERE t.id = u.id) q ORDER BY q.b DESC, q.s LIMIT 1) m ON true",
    "grouped by a field": "WITH w AS (SELECT q, q.id FROM (SELECT id, a FROM t) q)"
    " SELECT (w.q).a AS a, count(*) AS n FROM w GROUP BY (w.q).a",
    "made and put into an array": "SELECT array_agg(ROW(id, a) ORDER BY id, a)::text AS s FROM t",
}


@pytest.mark.versions
def test_rows_as_values(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    names = {title: title.replace(" ", "_") for title in (*BY_RULES, *RECOMPUTED)}
    for title, query in (BY_RULES | RECOMPUTED).items():
        pg_trickle.create_stream_table(db, names[title], query, schedule=None)
        assert_fresh(db, names[title])
    found = db.execute(
        """SELECT pgt_name FROM pgtrickle.pgt_stream_tables JOIN pgtrickle.pgt_plans USING (pgt_id)
            WHERE plan -> 'explain' ->> 'tree' LIKE '%"Query"%'"""
    )
    assert {name for (name,) in found} == {names[title] for title in RECOMPUTED}
    for change in (
        "UPDATE t SET b = 1.000 WHERE scale(b) = 1",
        "INSERT INTO t VALUES (3, 1, NULL, 'z'), (NULL, NULL, NULL, NULL)",
        "UPDATE u SET a = 1; UPDATE t SET a = 2 WHERE s = 'z'",
        "DELETE FROM t WHERE id IS NULL; DELETE FROM u WHERE id = 2; UPDATE parted SET a = 5",
        "ALTER TABLE t ADD COLUMN later int DEFAULT 4",
        "UPDATE t SET a = a + 1; ALTER TABLE u RENAME a TO c; UPDATE u SET c = 7",
        "TRUNCATE t",
    ):
        db.execute(change.encode())
        for name in names.values():
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT to_json(q) AS j FROM (SELECT id, a AS id FROM t) q",
        "WITH q AS (SELECT id, a AS id FROM t) SELECT to_json(q) AS j FROM q",
        "SELECT to_jsonb(q) AS j FROM (t AS x JOIN u AS y USING (id)) q",
        "SELECT a.id AS i, to_jsonb(q) AS j FROM (SELECT id FROM u) a FULL JOIN (SELECT id, a FROM u) b USING (id)"
        " CROSS JOIN (SELECT id, b FROM t) q",
        "SELECT to_json((SELECT q FROM (SELECT t.id, t.a AS id) q)) AS j FROM t",
        "SELECT u.id, (SELECT json_agg(q) FROM (SELECT t.id, t.a AS id FROM t WHERE t.id = u.id) q) AS j FROM u",
    ],
)
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL"])
def test_rows_that_are_printed_with_other_names_are_refused(db: Connection, query: str, mode: str) -> None:
    # As id_1, say: what runs the printed text would show it so.
    db.execute(SETUP.encode())
    with pytest.raises(InvalidDefinition, match=r'rows of "q" can.t be told by their fields. names'):
        pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode=mode)


def test_a_renamed_column_of_a_view_shows_in_its_rows(db: Connection, assert_fresh: Oracle) -> None:
    # Nothing but the name changes: no row of a table, nor what is computed.
    db.execute(SETUP.encode())
    db.execute("CREATE VIEW plain AS SELECT id, a AS c FROM u")
    pg_trickle.create_stream_table(db, "st", "SELECT to_jsonb(plain) AS j FROM plain", schedule=None)
    db.execute("ALTER VIEW plain RENAME COLUMN c TO d")
    pg_trickle.refresh_stream_table(db, "st")
    shown = db.execute("SELECT j::text FROM st ORDER BY 1").fetchall()
    assert shown == [('{"d": 1, "id": 1}',), ('{"d": null, "id": 2}',)]
    assert_fresh(db, "st")
