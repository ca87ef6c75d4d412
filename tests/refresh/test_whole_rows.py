"""Rows of a table as values, wherever they stand and whatever columns the table has by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

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
    "partitioned": "SELECT to_jsonb(parted) AS j FROM parted",
}
RECOMPUTED = {
    "padded without a key": "SELECT u.id, to_jsonb(t) AS j FROM u LEFT JOIN t ON t.a = u.a",
    "derived": "SELECT to_jsonb(q) AS j FROM (SELECT id, a FROM t) q",
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
