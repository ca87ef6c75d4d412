"""Types that a query names, and that no column of what it reads has: what is altered about them is noticed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

Connection = psycopg.Connection[tuple[Any, ...]]
FEELS = "(CASE WHEN id = 1 THEN 'well'::mood ELSE 'ill'::mood END)::text"


@pytest.fixture
def source(db: Connection) -> Connection:
    db.execute(
        f"""
        CREATE TYPE mood AS ENUM ('well', 'ill');
        CREATE TYPE place AS (x int, y int);
        CREATE TABLE t (id int PRIMARY KEY);
        INSERT INTO t VALUES (1), (2);
        CREATE VIEW v AS SELECT id, {FEELS} AS feels FROM t;
        CREATE FUNCTION felt(int) RETURNS mood IMMUTABLE LANGUAGE sql AS 'SELECT (enum_range(NULL::public.mood))[$1]'
        """.encode()
    )
    return db


@pytest.mark.versions
@pytest.mark.parametrize(
    ("query", "alteration"),
    [
        (f"SELECT id, {FEELS} AS feels FROM t", "ALTER TYPE mood RENAME VALUE 'ill' TO 'bad'"),
        ("SELECT id, feels FROM v", "ALTER TYPE mood RENAME VALUE 'ill' TO 'bad'"),
        ("SELECT id, felt(id)::text AS feels FROM t", "ALTER TYPE mood RENAME VALUE 'ill' TO 'bad'"),
        ("SELECT id, to_jsonb(ROW(id, 0)::place) AS place FROM t", "ALTER TYPE place RENAME ATTRIBUTE y TO z"),
    ],
    ids=["a label", "a label in a view", "a function's label", "a field"],
)
def test_they_are_noticed(source, query, alteration):
    pg_trickle.create_stream_table(source, "st", query, schedule=None)
    for _ in range(2):
        pg_trickle.refresh_stream_table(source, "st")
    source.execute(alteration.encode())
    pg_trickle.refresh_stream_table(source, "st")
    assert_fresh(source, "st")
