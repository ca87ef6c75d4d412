"""What maintenance inside the writing statement costs the one who writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, LiteralString

import psycopg
from psycopg import sql

import pg_trickle
from bench.measure import Cost, alternating, cost_of
from bench.star import Size

Connection = psycopg.Connection[Any]
Kinds = dict[str, dict[str, Cost]]

VIEWS: dict[str, LiteralString] = {
    "join": """SELECT o.id, c.region, p.category, o.qty, o.price FROM {table} AS o
                 JOIN customers AS c ON c.id = o.customer_id JOIN products AS p ON p.id = o.product_id
                WHERE o.qty > 2""",
    "join and aggregate": """SELECT c.region, p.category, count(*) AS n, sum(o.qty * o.price) AS total,
                                    avg(o.price) AS mean
                               FROM {table} AS o JOIN customers AS c ON c.id = o.customer_id
                               JOIN products AS p ON p.id = o.product_id GROUP BY c.region, p.category""",
    "many groups": "SELECT customer_id, count(*) AS n, sum(id) AS total FROM {table} GROUP BY customer_id",
    "averages": "SELECT customer_id, count(*) AS n, avg(price) AS mean FROM {table} GROUP BY customer_id",
    "hot groups": "SELECT qty, count(*) AS n, sum(id) AS total FROM {table} GROUP BY qty",
    "extremes": """SELECT customer_id, count(*) AS n, min(price) AS least, max(price) AS most
                     FROM {table} GROUP BY customer_id""",
    "projection": "SELECT id, qty * price AS value FROM {table} WHERE qty > 2",
    "distinct": "SELECT DISTINCT customer_id, qty FROM {table}",
}
BARE = "bare"

BULK: dict[str, LiteralString] = {
    "INSERT": """INSERT INTO {table} SELECT %(first)s + i, 1 + i %% %(customers)s, 1 + i %% %(products)s, 1 + i %% 10,
                                       (i %% 1000) / 10.0, now() FROM generate_series(1, %(rows)s) AS i""",
    "UPDATE": """UPDATE {table} SET qty = 11 - qty, price = price + 1
                  WHERE id > %(first)s AND id <= %(first)s + %(rows)s""",
    "DELETE": "DELETE FROM {table} WHERE id > %(first)s AND id <= %(first)s + %(rows)s",
}
SINGLE: dict[str, LiteralString] = {
    "INSERT": """INSERT INTO {table} VALUES (%(id)s, 1 + %(id)s %% 100, 1 + %(id)s %% 50, 1 + %(id)s %% 10,
                                             %(id)s %% 100, '2026-01-01')""",
    "UPDATE": "UPDATE {table} SET qty = 11 - qty, price = price + 1 WHERE id = %(id)s",
    "DELETE": "DELETE FROM {table} WHERE id = %(id)s",
}


def prepare(conn: Connection, orders: int) -> dict[str, str]:
    """A copy of the orders for each view, and one without; the table of each."""
    tables = {name: f"orders_{place}" for place, name in enumerate((BARE, *VIEWS))}
    for name, table in tables.items():
        conn.execute(sql.SQL("CREATE TABLE {} (LIKE orders INCLUDING ALL)").format(sql.Identifier(table)))
        conn.execute(
            sql.SQL("INSERT INTO {} SELECT * FROM orders WHERE id <= %s").format(sql.Identifier(table)), (orders,)
        )
        if name != BARE:
            query = sql.SQL(VIEWS[name]).format(table=sql.Identifier(table)).as_string(conn)
            pg_trickle.create_stream_table(conn, f"view_{table}", query, refresh_mode="IMMEDIATE")
    conn.execute("VACUUM ANALYZE")
    return tables


def immediate(conn: Connection, size: Size, *, rows: int, singles: int, repetitions: int) -> tuple[Kinds, Kinds]:
    """Single-row statements (the cost of one) and statements of many rows, for each kind and view, and bare."""
    tables = prepare(conn, size.orders)
    single, bulk = {}, {}
    for kind, text in SINGLE.items():
        numbers = {name: iter(range(10_000_001, 10_000_001 + (repetitions + 1) * singles)) for name in tables}
        single[kind] = _measured(
            tables,
            repetitions,
            lambda name, text=text, numbers=numbers: _one_by_one(conn, tables[name], text, numbers[name], singles),
        )
    for kind, text in BULK.items():
        firsts = {name: iter(range(20_000_000, 20_000_000 + (repetitions + 1) * rows, rows)) for name in tables}
        bulk[kind] = _measured(
            tables,
            repetitions,
            lambda name, text=text, firsts=firsts: _at_once(conn, tables[name], text, next(firsts[name]), rows, size),
        )
    return single, bulk


def _measured(tables: dict[str, str], repetitions: int, run: Callable[[str], Cost]) -> dict[str, Cost]:
    for name in tables:
        run(name)
    return alternating(repetitions, lambda: None, {name: lambda name=name: run(name) for name in tables})


def _one_by_one(conn: Connection, table: str, text: str, numbers: Iterator[int], singles: int) -> Cost:
    statement = sql.SQL(text).format(table=sql.Identifier(table)).as_string(conn)

    def work() -> None:
        for _ in range(singles):
            conn.execute(statement, {"id": next(numbers)}, prepare=True)

    cost = cost_of(conn, work)
    return Cost(cost.wall / singles, cost.cpu / singles)


def _at_once(conn: Connection, table: str, text: str, first: int, rows: int, size: Size) -> Cost:
    statement = sql.SQL(text).format(table=sql.Identifier(table))
    parameters = {"first": first, "rows": rows, "customers": size.customers, "products": size.products}
    return cost_of(conn, lambda: conn.execute(statement, parameters))
