"""LIMIT and OFFSET where no order is needed to know what they leave: in EXISTS, and of a row found by its key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.compile import compile as compile_query
from pg_trickle.parse import canonical, expressions, limits
from tests.compile.requests import request
from tests.upkeep import check_kept, is_noticed

Connection = psycopg.Connection[Any]

SETUP = """
CREATE TABLE a (id int PRIMARY KEY, k int, x int);
CREATE TABLE b (k int, x int);
CREATE TABLE c (id int, part text, x int, PRIMARY KEY (part, id));
INSERT INTO a SELECT n, n % 5, n % 3 FROM generate_series(1, 12) AS n; INSERT INTO a VALUES (20, NULL, 1);
INSERT INTO b SELECT n % 4, n FROM generate_series(1, 9) AS n; INSERT INTO b VALUES (1, 1), (NULL, 1), (2, NULL);
INSERT INTO c SELECT n % 6, 'p' || n / 6, n FROM generate_series(0, 17) AS n;
"""
MORE = "SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k OFFSET 2)"
FOUND = "SELECT a.id, (SELECT c.x FROM c WHERE c.id = a.k AND c.part = 'p1' LIMIT 1) AS x FROM a"
QUERIES = (
    MORE,
    "SELECT a.id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k LIMIT 1 OFFSET 1)",
    "SELECT a.id FROM a WHERE EXISTS (SELECT b.x FROM b WHERE b.k = a.k ORDER BY b.x FETCH FIRST 3 ROWS WITH TIES)",
    "SELECT a.id, EXISTS (SELECT 1 FROM b WHERE b.k = a.k LIMIT 0) AS never FROM a",
    "SELECT a.id FROM a WHERE a.x = 1 OR EXISTS (SELECT 1 FROM b WHERE b.x > a.x OFFSET 8)",
    "SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b LIMIT NULL OFFSET 11)",
    "SELECT a.id FROM a WHERE EXISTS (SELECT DISTINCT b.x FROM b WHERE b.k = a.k ORDER BY b.x OFFSET 1)",
    "SELECT a.id FROM a WHERE EXISTS (SELECT b.x FROM b WHERE b.k = a.k UNION SELECT a.x OFFSET 2)",
    "SELECT a.id FROM a WHERE EXISTS (SELECT max(b.x) FROM b WHERE b.k = a.k GROUP BY b.x > 3 LIMIT 5 OFFSET 1)",
    "SELECT a.k, EXISTS (SELECT 1 FROM b WHERE b.k = a.k OFFSET 2) AS more, count(*) AS n FROM a GROUP BY a.k",
    "SELECT a.id FROM a LEFT JOIN b ON b.k = a.k AND EXISTS (SELECT 1 FROM c WHERE c.x = b.x OFFSET 0 LIMIT 2)",
    "SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k"
    " AND EXISTS (SELECT 1 FROM c WHERE c.x > b.x OFFSET 9) OFFSET 1)",
    "SELECT a.id, l.n FROM a CROSS JOIN LATERAL (SELECT v.n FROM (VALUES (a.x), (2)) AS v(n)"
    " WHERE EXISTS (SELECT 1 FROM (VALUES (1), (a.k)) AS w(m) WHERE w.m > v.n LIMIT 1)) AS l",
    FOUND,
    "SELECT b.k, (SELECT a.x FROM a WHERE a.id = b.x LIMIT 1) AS x FROM b",
    "SELECT b.k, l.x FROM b LEFT JOIN LATERAL (SELECT a.x FROM a WHERE a.id = b.x LIMIT 1) AS l ON true",
    "SELECT b.k, l.x FROM b, LATERAL (SELECT a.x FROM a WHERE a.id = b.x ORDER BY a.x FETCH FIRST 2 ROWS WITH TIES) l",
    "SELECT b.k FROM b WHERE b.x > (SELECT a.x FROM a WHERE a.id = 7)",
    "SELECT a.x FROM a WHERE a.id = 7 LIMIT 1",
    "SELECT b.k, (SELECT count(*) FROM a WHERE a.k = b.k LIMIT 1) AS n FROM b",
    "SELECT b.k, (SELECT a.x FROM a WHERE a.id = b.x OFFSET 1) AS none FROM b",
)
STEPS = (
    "INSERT INTO b VALUES (1, 2), (4, 4), (4, 4), (4, 1); DELETE FROM b WHERE k = 2 AND x > 4",
    "UPDATE a SET id = 30 WHERE id = 7; UPDATE b SET k = 0 WHERE k = 1; DELETE FROM c WHERE id = 3",
    "INSERT INTO a VALUES (7, 3, 0); UPDATE c SET part = 'p9' WHERE part = 'p1' AND id < 3; DELETE FROM b WHERE k = 4",
    "DELETE FROM b WHERE x = 1; UPDATE a SET k = k + 1, x = 3 - x; INSERT INTO c VALUES (0, 'p1', 5)",
    "DELETE FROM b; DELETE FROM a WHERE id < 8",
)


@pytest.mark.versions
def test_what_asks_for_no_order_is_maintained(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES, STEPS)


@pytest.mark.parametrize(
    "condition",
    [
        "i.order_id = o.id",
        "i.line = 1",
        "i.order_id = o.id AND i.line > 1",
        "i.order_id = o.id OR i.line = 1",
        "i.order_id = o.id AND i.line = i.line + 0",
        "i.order_id + 0 = o.id AND i.line = 1",
        "i.order_id = o.id AND i.line = 1.0",
        "i.order_id = i.line AND i.line = o.id + 1",
    ],
)
def test_a_row_is_found_by_all_of_a_key_alone(condition: str) -> None:
    query = f"SELECT o.id, (SELECT i.line FROM public.items i WHERE {condition} LIMIT 1) AS l FROM public.orders o"
    plan = compile_query(request(query, outputs="id integer; l integer"))
    assert plan.refusal is not None
    assert plan.refusal.construct == "LIMIT without ORDER BY"
    whole = query.replace(f"WHERE {condition}", "WHERE i.order_id = o.id AND i.line = 1")
    assert compile_query(request(whole, outputs="id integer; l integer")).refusal is None


SEVERAL = "SELECT a.id, l.x FROM a, LATERAL (SELECT b.x FROM b WHERE b.k = a.k ORDER BY b.x LIMIT 1) AS l"
HALF = "SELECT a.id, l.x FROM a, LATERAL (SELECT c.x FROM c WHERE c.id = a.k AND c.part > 'p0' ORDER BY c.x LIMIT 1) l"
BREAKS: dict[str, tuple[str, object, str, Callable[..., Any]]] = {
    "an offset that is one less": (
        MORE, canonical, "_more_than", lambda whole: lambda number, exists: whole(number - 1, exists)),
    "a LIMIT of several rows taken for one of a single row": (
        SEVERAL, limits, "is_single", lambda _: lambda plan: True),
    "a column compared with a constant taken for one that equals it": (
        HALF, expressions, "_fixes", lambda _: lambda node, used, types: used[0].name if len(used) == 1 else None),
}  # fmt: skip


@pytest.mark.parametrize(("query", "module", "name", "broken"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_noticed(db: Connection, monkeypatch, query, module, name, broken) -> None:
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    assert is_noticed(db, "st", STEPS)
