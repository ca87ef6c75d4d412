"""A single row of a source of a join: what is done for it in place of the programs for any number of rows."""

from __future__ import annotations

from typing import Any, LiteralString

import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.sides.shop import COUNTS, QUERIES, Connection, number_of, oid, side, warm

# Partners that no key finds; a key that two sources have together.
OTHERS: dict[str, LiteralString] = {
    "counts": COUNTS,
    "sizes": """SELECT c.region, p.kind, count(*) AS n, sum(o.amount) FILTER (WHERE o.note = 'n') AS some
                  FROM orders AS o JOIN customers AS c ON c.id = o.customer JOIN products AS p ON p.id = o.product
                 WHERE o.amount <> 3 GROUP BY c.region, p.kind""",
    "alike": "SELECT p.kind, count(*) AS n FROM orders AS o JOIN products AS p ON p.kind = o.note GROUP BY p.kind",
    "likes": "SELECT o.id, p.id AS product FROM orders AS o JOIN products AS p ON p.kind = o.note",
}
STATEMENTS: list[LiteralString] = [
    # In view, out of it, with no partner, with NULLs.
    "INSERT INTO orders VALUES (100, 1, 1, 7, 'a')",
    "INSERT INTO orders VALUES (101, 2, 1, 1, 'n')",
    "INSERT INTO orders VALUES (102, 3, 99, 3, 'k1')",
    "INSERT INTO orders VALUES (103, NULL, 1, 5, NULL)",
    "INSERT INTO orders VALUES (104, 4, NULL, NULL, 'n')",
    # A group's first row, which goes to another group and comes back, and is its last.
    "INSERT INTO customers VALUES (50, 'new')",
    "INSERT INTO orders VALUES (105, 50, 2, 6, 'n')",
    "UPDATE orders SET customer = 2 WHERE id = 105",
    "UPDATE orders SET customer = 50 WHERE id = 105",
    "UPDATE orders SET amount = NULL WHERE id = 105",
    "DELETE FROM orders WHERE id = 105",
    "UPDATE orders SET customer = 50 WHERE id = 9",
    "UPDATE orders SET customer = 50, amount = 11 WHERE id = 9",
    # Within its group, under another key, unread, out of view and into it, of what isn't counted.
    "UPDATE orders SET amount = 8 WHERE id = 100",
    "UPDATE orders SET customer = 4 WHERE id = 100",
    "UPDATE orders SET product = 3 WHERE id = 100",
    "UPDATE orders SET note = 'n' WHERE id = 100",
    "UPDATE orders SET amount = amount WHERE id = 100",
    "UPDATE orders SET id = 200 WHERE id = 100",
    "UPDATE orders SET amount = 1 WHERE id = 200",
    "UPDATE orders SET amount = 3 WHERE id = 200",
    "UPDATE orders SET amount = 4 WHERE id = 200",
    "DELETE FROM orders WHERE id = 101",
    "DELETE FROM orders WHERE id = 102",
    "DELETE FROM orders WHERE id = 103",
    "DELETE FROM orders WHERE id = 104",
    "DELETE FROM orders WHERE id = 200",
    # Of several kinds, of other sources, and not one row.
    "INSERT INTO orders VALUES (1, 5, 2, 9, 'n') ON CONFLICT (id) DO UPDATE SET amount = 99",
    "UPDATE customers SET region = 'other' WHERE id = 3",
    "DELETE FROM products WHERE id = 4",
    "INSERT INTO products VALUES (4, 'k1')",
    "UPDATE orders SET amount = CASE id WHEN 2 THEN 77 ELSE amount END WHERE id IN (2, 3)",
    "INSERT INTO orders VALUES (300, 1, 1, 4, 'n'), (301, 1, 1, 5, 'n')",
    "DELETE FROM orders WHERE id IN (300, 301)",
    "DELETE FROM orders WHERE false",
]


@pytest.fixture
def more(shop: Connection) -> Connection:
    for name, query in OTHERS.items():
        pg_trickle.create_stream_table(shop, name, query, refresh_mode="IMMEDIATE")
    return shop


def run(conn: Connection, *statements: LiteralString) -> None:
    """Each statement, and every stream table equal to its query after it, by no recomputing."""
    notices: list[str | None] = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    for statement in statements:
        conn.execute(statement)
        for name in (*QUERIES, *OTHERS):
            assert differences(conn, name) == [], (statement, name)
    assert notices == []


def test_which_sources_have_such_statements(more: Connection) -> None:
    """Those whose row is paired with one row at most."""
    found = more.execute(
        """SELECT pgt_name, s.key::oid::regclass::text, array_agg(e.key ORDER BY e.key)
             FROM pgtrickle.pgt_stream_tables JOIN pgtrickle.pgt_plans USING (pgt_id)
            CROSS JOIN LATERAL jsonb_each(plan #> '{programs,immediate,single}') AS s
            CROSS JOIN LATERAL jsonb_object_keys(s.value) AS e(key) GROUP BY 1, 2"""
    ).fetchall()
    assert {(name, source): events for name, source, events in found} == {
        ("joined", "orders"): ["del", "ins", "upd"],
        ("regions", "orders"): ["del", "ins", "upd"],
        ("counts", "orders"): ["del", "ins", "upd"],
        ("sizes", "orders"): ["del", "ins", "upd"],
    }


@pytest.mark.versions
def test_statements_of_one_row(more: Connection) -> None:
    run(more, *STATEMENTS)


def test_statements_of_one_row_under_a_turn_that_is_shared(more: Connection) -> None:
    more.execute("INSERT INTO customers VALUES (50, 'new')")
    warm(more)
    run(more, *(one for one in STATEMENTS if " orders " in one))
    assert {side(more, name) for name in (*QUERIES, "counts", "sizes")} == {oid(more, "orders")}


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_statements_of_one_row_in_one_transaction(more: Connection, level: str) -> None:
    more.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    run(more, *STATEMENTS, "COMMIT")


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("joined", "DELETE FROM orders WHERE id = 9"),
        ("joined", "UPDATE orders SET amount = 1 WHERE id = 9"),
        ("joined", "UPDATE orders SET id = 900 WHERE id = 9"),
        ("counts", "DELETE FROM orders WHERE id = 9"),
        ("regions", "DELETE FROM orders WHERE id = 9"),
        ("regions", "UPDATE orders SET amount = 90 WHERE id = 9"),
    ],
)
def test_what_isnt_there_to_be_taken_away_is_noticed(more: Connection, name: str, statement: LiteralString) -> None:
    notices: list[str | None] = []
    more.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    for table in tables(more, name):
        more.execute(sql.SQL("DELETE FROM {}").format(table))
    more.execute(statement)
    assert notices == [f'stream table "{name}" is recomputed']
    assert differences(more, name) == []


def tables(conn: Connection, name: str) -> list[Any]:
    """A stream table, and the one of its counters if there is one."""
    states = conn.execute(
        """SELECT item ->> 'name'
             FROM pgtrickle.pgt_plans CROSS JOIN LATERAL jsonb_array_elements(plan -> 'states') AS item
            WHERE pgt_id = %s""",
        (number_of(conn, name),),
    ).fetchall()
    kept = [sql.Identifier("pgtrickle_changes", state) for (state,) in states]
    return [sql.Identifier(name), *(one for one in kept if exists(conn, one))]


def exists(conn: Connection, table: sql.Identifier) -> bool:
    (found,) = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (table.as_string(conn),)).fetchone() or (False,)
    return bool(found)
