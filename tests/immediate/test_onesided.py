"""Statements that only bring rows or only take some away have programs of their own; the others must not."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.immediate.conftest import Shop

MORE: dict[str, LiteralString] = {
    "outer": """SELECT o.id, o.amount, c.region FROM orders AS o LEFT JOIN customers AS c ON c.id = o.customer_id""",
    "known": "SELECT id, amount FROM orders AS o WHERE EXISTS (SELECT FROM customers AS c WHERE c.id = o.customer_id)",
    "unknown": "SELECT id FROM customers AS c WHERE NOT EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id)",
    "extents": """SELECT c.region, min(o.amount) FILTER (WHERE o.note = 'n') AS least, max(o.note) AS last,
                         avg(o.amount) AS mean
                    FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY c.region""",
    "rare": """SELECT c.region, max(o.id) AS last FROM orders AS o JOIN customers AS c ON c.id = o.customer_id
                GROUP BY c.region HAVING count(*) < 15""",
    "by_both": "SELECT customer_id, note, min(amount) AS least FROM orders GROUP BY customer_id, note",
    "both": """SELECT id, amount FROM orders WHERE amount > 3
               UNION ALL SELECT id + 1000, amount FROM orders WHERE amount <= 3""",
}

STATEMENTS: list[LiteralString] = [
    "INSERT INTO orders VALUES (100, 1, 0, 'n')",
    "INSERT INTO orders VALUES (101, 1, NULL, NULL), (102, NULL, 70, 'z'), (103, 1, 0, 'n'), (104, 2, 90, 'n')",
    "INSERT INTO customers VALUES (20, 'r1'), (21, 'new'), (22, NULL)",
    "INSERT INTO orders SELECT g, 20 + g % 3, g, 'bulk' FROM generate_series(200, 600) AS g",
    "DELETE FROM orders WHERE id IN (100, 101)",
    "DELETE FROM orders WHERE id = 102",
    "DELETE FROM customers WHERE id = 22",
    "DELETE FROM customers WHERE id = 1",
    "DELETE FROM orders WHERE id > 250",
    "UPDATE orders SET amount = amount + 1, note = 'u' WHERE id < 20",
    "DELETE FROM orders",
    "INSERT INTO orders VALUES (1, 2, 3, 'again')",
]


@pytest.fixture
def more(shop: Shop) -> Shop:
    for name, query in MORE.items():
        shop.add(name, query)
    return shop


@pytest.mark.versions
def test_rows_that_only_come_or_go(more: Shop) -> None:
    more.run(*STATEMENTS)


def test_which_statements_have_such_programs(more: Shop) -> None:
    found = more.conn.execute(
        """SELECT pgt_name, s.key::oid::regclass::text, array_agg(e.key ORDER BY e.key)
             FROM pgtrickle.pgt_stream_tables JOIN pgtrickle.pgt_plans USING (pgt_id)
            CROSS JOIN LATERAL jsonb_each(plan #> '{programs,immediate,sided}') AS s
            CROSS JOIN LATERAL jsonb_object_keys(s.value) AS e(key)
            GROUP BY 1, 2"""
    ).fetchall()
    assert {(name, source): events for name, source, events in found} == {
        ("joined", "orders"): ["del", "ins"],
        ("joined", "customers"): ["del", "ins"],
        ("outer", "orders"): ["del", "ins"],
        ("known", "orders"): ["del", "ins"],
        ("unknown", "customers"): ["del", "ins"],
        ("regions", "orders"): ["ins"],
        ("regions", "customers"): ["ins"],
        ("extents", "orders"): ["ins"],
        ("extents", "customers"): ["ins"],
        ("extremes", "orders"): ["ins"],
        ("by_both", "orders"): ["ins"],
    }


def test_an_insert_that_moves_no_extreme_writes_no_shown_row(more: Shop) -> None:
    before = more.version("extremes")
    more.conn.execute(
        "INSERT INTO orders SELECT 0, customer_id, min(amount), 'x' FROM orders WHERE id < 9 GROUP BY 2 LIMIT 1"
    )
    assert more.version("extremes") == before
