"""Casts to text that a type's owner made, which leave out what tells its values apart: nothing goes by them."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.upkeep import check_kept, check_kept_inside

Connection = psycopg.Connection[tuple[Any, ...]]

# A price has an equality, a place has none.
SETUP = """
CREATE TYPE price AS (n numeric);
CREATE TYPE place AS (p point, n numeric);
CREATE FUNCTION short(price) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'price'::text$$;
CREATE FUNCTION short(price[]) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'prices'::text$$;
CREATE FUNCTION short(place) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT 'place'::text$$;
CREATE CAST (price AS text) WITH FUNCTION short(price);
CREATE CAST (price[] AS text) WITH FUNCTION short(price[]);
CREATE CAST (place AS text) WITH FUNCTION short(place);
CREATE TABLE t (id int PRIMARY KEY, a price, b place, c price[], k int);
INSERT INTO t VALUES (1, ROW(1.0), ROW('(1,2)', 1.0), ARRAY[ROW(1.0)::price], 1),
                     (2, ROW(1.0), ROW('(1,3)', 1.0), ARRAY[ROW(1.0)::price], 1), (3, NULL, NULL, NULL, 1);
"""
QUERIES = (
    "SELECT id, a FROM t",
    "SELECT a FROM t",
    "SELECT id, b FROM t",
    "SELECT b FROM t",
    "SELECT c FROM t",
    "SELECT (a).n AS n, count(*) OVER (PARTITION BY k) AS m FROM t",
)
STEPS = (
    "UPDATE t SET a = ROW(1.00) WHERE id = 1",
    "UPDATE t SET b = ROW('(1,2)', 1.00) WHERE id = 1",
    "UPDATE t SET b = ROW('(5,5)', 2) WHERE id < 3",
    "UPDATE t SET c = ARRAY[ROW(1.00)::price] WHERE id = 1",
    "INSERT INTO t VALUES (4, ROW(7), ROW('(7,7)', 7), ARRAY[ROW(7)::price], 1); DELETE FROM t WHERE id = 1",
    "UPDATE t SET a = ROW(7.0), b = ROW('(8,8)', 7.0) WHERE id > 2; UPDATE t SET b = NULL WHERE id = 4",
)


@pytest.mark.versions
def test_they_are_kept(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES, STEPS)


def test_they_are_kept_inside_statements(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept_inside(db, QUERIES, STEPS)
