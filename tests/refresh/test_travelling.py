"""What of a state's delta travels to the next statement: no more than what its readers let pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle import programs, travelling
from pg_trickle.algebra.linear import Filter
from pg_trickle.testing.oracle import differences
from tests.upkeep import check_refreshed, is_noticed

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE orders (id int PRIMARY KEY, customer int, total numeric(10,2));
CREATE TABLE lines (id serial PRIMARY KEY, order_id int, quantity numeric(10,2), product int);
CREATE INDEX ON lines (order_id);
INSERT INTO orders SELECT i, i % 5, i % 7 FROM generate_series(1, 20) AS i;
INSERT INTO lines (order_id, quantity, product)
SELECT nullif(i % 23, 0), i % 6, i % 3 FROM generate_series(1, 120) AS i;
"""
LARGE = "SELECT order_id FROM lines GROUP BY order_id HAVING sum(quantity) > 12"
# Those through which all of a state's delta is seen, in one way.
FILTERED = {
    "groups that pass": f"SELECT o.id, o.total FROM orders AS o WHERE o.id IN ({LARGE})",
    "rows of groups that pass": f"""
        SELECT o.customer, sum(l.quantity) AS quantity FROM orders AS o JOIN lines AS l ON l.order_id = o.id
         WHERE o.id IN ({LARGE}) GROUP BY o.customer
        """,
    "the first that pass": f"SELECT * FROM ({LARGE}) AS g ORDER BY order_id LIMIT 3",
    "ranks of those that pass": """
        SELECT order_id, product, rank() OVER (PARTITION BY product ORDER BY sum(quantity), order_id) AS place
          FROM lines GROUP BY order_id, product HAVING count(*) > 1 AND sum(quantity) > 3
        """,
    "what both have": """
        SELECT id FROM orders WHERE id IN (SELECT order_id FROM lines INTERSECT SELECT customer FROM orders)
        """,
    "a filter of what passes": """
        SELECT o.id FROM orders AS o WHERE o.id IN (
            SELECT g.order_id + 1 FROM (SELECT order_id, sum(quantity) AS s, count(*) AS n FROM lines
                                         GROUP BY order_id HAVING count(quantity) > 2) AS g WHERE g.s / g.n < 3)
        """,
}
WHOLE = {
    "two conditions on the same groups": """
        WITH g AS (SELECT order_id AS id, sum(quantity) AS s FROM lines GROUP BY order_id)
        SELECT o.id FROM orders AS o
         WHERE o.id IN (SELECT id FROM g WHERE s > 12) OR o.customer IN (SELECT id FROM g WHERE s < 9)
        """,
    "groups that pass, and all": """
        WITH g AS (SELECT order_id AS id, sum(quantity) AS s FROM lines GROUP BY order_id)
        SELECT o.id, (SELECT g.s FROM g WHERE g.id = o.id) AS s,
               EXISTS (SELECT FROM g WHERE g.id = o.id AND s > 12) AS is_large FROM orders AS o
        """,
}
WRITES = (
    "UPDATE lines SET quantity = quantity + {few} WHERE order_id = {k}",
    "UPDATE lines SET quantity = NULL WHERE order_id = {k} AND product = {few} % 3",
    "UPDATE lines SET quantity = 'NaN' WHERE id = {k}",
    "UPDATE lines SET quantity = {few} WHERE order_id = {k} OR quantity = 'NaN'",
    "UPDATE lines SET order_id = {other} WHERE order_id = {k} AND product < {few}",
    "DELETE FROM lines WHERE order_id = {k} AND product <> {few}",
    "INSERT INTO lines (order_id, quantity, product) VALUES ({k}, {few}, 1), ({k}, 9, {few} % 3), (NULL, 30, 0)",
    "DELETE FROM orders WHERE id = {k}",
    "INSERT INTO orders VALUES ({k}, {other}, {few}) ON CONFLICT (id) DO UPDATE SET customer = {other}",
)


def written(conn: Connection, chosen: random.Random, times: int) -> None:
    for write in chosen.choices(WRITES, k=times):
        k, other = chosen.choices(range(1, 24), k=2)
        conn.execute(write.format(k=k, other=other, few=chosen.randrange(5)).encode())


@pytest.mark.versions
def test_a_refresh_brings_what_passes_and_takes_what_does_no_more(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    names = {f"st{place}": query for place, query in enumerate((FILTERED | WHOLE).values())}
    for name, query in names.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    chosen = random.Random(11)
    for _ in range(25):
        with db.transaction():
            written(db, chosen, chosen.randint(1, 5))
        check_refreshed(db, names)


def test_so_does_each_writer(db: Connection) -> None:
    db.execute(SETUP.encode())
    names = {f"st{place}": query for place, query in enumerate((FILTERED | WHOLE).values())}
    for name, query in names.items():
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE")
    chosen = random.Random(12)
    for _ in range(40):
        with db.transaction():
            written(db, chosen, chosen.randint(1, 3))
        for name in names:
            assert differences(db, name) == [], name


@pytest.mark.parametrize("query", FILTERED.values(), ids=FILTERED)
def test_what_nobody_lets_pass_does_not_travel(db: Connection, query: str) -> None:
    assert _through_a_filter(db, query) == [True]


@pytest.mark.parametrize("query", WHOLE.values(), ids=WHOLE)
def test_what_is_seen_otherwise_too_travels_whole(db: Connection, query: str) -> None:
    assert _through_a_filter(db, query) == [False]


def _through_a_filter(db: Connection, query: str) -> list[bool]:
    """Of each delta that is set on its way by the program for changed lines, whether a filter leaves some of it out."""
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    found = db.execute(
        """SELECT p.plan -> 'programs' -> 'differential' -> 'lines'::regclass::oid::text -> 0
             FROM pgtrickle.pgt_plans AS p"""
    ).fetchone()
    assert found is not None
    sent = [line for line in found[0].split("\n") if '_out" AS (INSERT' in line]
    return [" WHERE " in line for line in sent]


@pytest.mark.parametrize("title", WHOLE)
def test_one_filter_taken_for_all_that_is_read_is_noticed(
    db: Connection, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    monkeypatch.setattr(travelling, "_only", lambda found: next(one for one in found if isinstance(one, Filter)))
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", WHOLE[title], schedule=None, refresh_mode="DIFFERENTIAL")
    assert is_noticed(
        db, "st", (f"UPDATE lines SET quantity = {n} WHERE order_id = {k}" for k in range(1, 4) for n in (9, 0, 1))
    )


def test_deltas_that_stay_are_noticed(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "set_out", lambda state, columns, through, common: _nothing(state))
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", FILTERED["groups that pass"], schedule=None)
    assert is_noticed(db, "st", ("UPDATE lines SET quantity = 0 WHERE order_id = 3",))


def _nothing(state: Any) -> Any:
    return psycopg.sql.SQL("SELECT 1")
