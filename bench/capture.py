"""What capturing changes costs the one who writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

import pg_trickle
from bench.measure import Cost, alternating, cost_of
from bench.star import Size

Connection = psycopg.Connection[Any]
Pair = dict[str, Cost]

TABLES = ("bare", "captured")

COPY = "CREATE TABLE {table} (LIKE orders INCLUDING ALL)"
# What is captured is what a stream table reads: here all but the time of the order.
READER = "SELECT id, customer_id, product_id, qty, price FROM captured WHERE qty > 5"

BULK = """
INSERT INTO {table}
SELECT %(first)s + i, 1 + i %% %(customers)s, 1 + i %% %(products)s, 1 + i %% 10, (i %% 1000) / 10.0, now()
  FROM generate_series(1, %(rows)s) AS i
"""

SINGLE = {
    "INSERT": "INSERT INTO {table} VALUES (%(id)s, 1, 1, 1, 1, '2026-01-01')",
    "UPDATE": "UPDATE {table} SET qty = qty + 1 WHERE id = %(id)s",
    "DELETE": "DELETE FROM {table} WHERE id = %(id)s",
}


def capture(conn: Connection, size: Size, *, rows: int, singles: int, repetitions: int) -> tuple[Pair, dict[str, Pair]]:
    """A bulk INSERT, and single-row statements (the cost of one), with a table's changes captured and without."""
    for table in TABLES:
        conn.execute(sql.SQL(COPY).format(table=sql.Identifier(table)))
    pg_trickle.create_stream_table(conn, "reader", READER, schedule=None, refresh_mode="DIFFERENTIAL")
    bulk = _bulk(conn, size, rows, repetitions)
    single: dict[str, Pair] = {}
    first = (repetitions + 1) * rows + 1
    for kind, text in SINGLE.items():
        numbers = {table: iter(range(first, first + (repetitions + 1) * singles)) for table in TABLES}
        single[kind] = _singles(conn, text, numbers, singles, repetitions)
    pg_trickle.drop_stream_table(conn, "reader")
    for table in TABLES:
        conn.execute(sql.SQL("DROP TABLE {table}").format(table=sql.Identifier(table)))
    return bulk, single


def _bulk(conn: Connection, size: Size, rows: int, repetitions: int) -> Pair:
    written = dict.fromkeys(TABLES, 0)

    def insert(table: str) -> Callable[[], Cost]:
        statement = sql.SQL(BULK).format(table=sql.Identifier(table))

        def run() -> Cost:
            values = {"first": written[table], "rows": rows, "customers": size.customers, "products": size.products}
            written[table] += rows
            return cost_of(conn, lambda: conn.execute(statement, values))

        return run

    for table in TABLES:
        insert(table)()
    return alternating(repetitions, lambda: None, {table: insert(table) for table in TABLES})


def _singles(conn: Connection, text: str, numbers: dict[str, Any], singles: int, repetitions: int) -> Pair:
    """Prepared statements in one transaction: what a commit costs is the same on both sides."""

    def run(table: str) -> Cost:
        statement = sql.SQL(text).format(table=sql.Identifier(table))

        def statements() -> None:
            with conn.transaction():
                for _ in range(singles):
                    conn.execute(statement, {"id": next(numbers[table])}, prepare=True)

        cost = cost_of(conn, statements)
        return Cost(cost.wall / singles, cost.cpu / singles)

    for table in TABLES:
        run(table)
    return alternating(repetitions, lambda: None, {table: partial(run, table) for table in TABLES})
