"""What maintenance inside the writing statement costs the one who writes: stream tables and pg_ivm, against nothing.

For single rows also the same maintenance written by hand, as whoever writes and as its definer: the least that it can
cost in SQL, and what of the difference comes of running with the rights of another.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

import pg_trickle
from bench import by_hand, pg_ivm, pgbench
from bench.measure import Cost, alternating, cost_of
from pg_trickle.testing.server import EmbeddedServer

Connection = psycopg.Connection[Any]

BARE, OURS, PG_IVM = "nothing", "stream table", "pg_ivm"
HAND, DEFINER = "by hand", "by hand, as definer"
CUSTOMERS, PRODUCTS = 10_000, 1_000
CLIENTS = (1, 2, 8)


@dataclass(frozen=True, slots=True)
class Shape:
    """A query, and the columns that are unique in its result."""

    title: str
    key: str
    query: LiteralString


SHAPES = (
    Shape(
        "join, filtered",
        "id",
        """SELECT o.id, c.region, p.category, o.qty, o.price FROM {table} AS o
             JOIN customers AS c ON c.id = o.customer_id JOIN products AS p ON p.id = o.product_id
            WHERE o.qty > 2""",
    ),
    Shape(
        "join, few groups: count, sum, avg",
        "region, category",
        """SELECT c.region, p.category, count(*) AS n, sum(o.qty * o.price) AS total, avg(o.price) AS mean
             FROM {table} AS o JOIN customers AS c ON c.id = o.customer_id
             JOIN products AS p ON p.id = o.product_id GROUP BY c.region, p.category""",
    ),
    Shape(
        "many groups: count, sum",
        "customer_id",
        "SELECT customer_id, count(*) AS n, sum(qty) AS total FROM {table} GROUP BY customer_id",
    ),
    Shape("few groups: count, sum", "qty", "SELECT qty, count(*) AS n, sum(id) AS total FROM {table} GROUP BY qty"),
    Shape(
        "min, max by customer",
        "customer_id",
        "SELECT customer_id, min(price) AS least, max(price) AS most FROM {table} GROUP BY customer_id",
    ),
    Shape("DISTINCT", "customer_id, qty", "SELECT DISTINCT customer_id, qty FROM {table}"),
    Shape("projection, filtered", "id", "SELECT id, qty * price AS value FROM {table} WHERE qty > 2"),
)

COPY: LiteralString = """
INSERT INTO {table}
SELECT id, 1 + customer_id %% %s, 1 + product_id %% %s, qty, price, ordered_at FROM orders WHERE id <= %s
"""
SINGLE: dict[str, LiteralString] = {
    "INSERT": """INSERT INTO {table} VALUES (%(id)s, 1 + %(id)s %% 10000, 1 + %(id)s %% 1000, 1 + %(id)s %% 10,
                                             %(id)s %% 1000, '2026-01-01')""",
    "UPDATE": "UPDATE {table} SET qty = 11 - qty, price = 1000 - price WHERE id = %(id)s",
    "DELETE": "DELETE FROM {table} WHERE id = %(id)s",
}
BATCH: dict[str, LiteralString] = {
    "INSERT": """INSERT INTO {table} SELECT i, 1 + i %% 10000, 1 + i %% 1000, 1 + i %% 10, i %% 1000, '2026-01-01'
                   FROM generate_series(%(first)s, %(last)s) AS i""",
    "UPDATE": "UPDATE {table} SET qty = 11 - qty, price = 1000 - price WHERE id BETWEEN %(first)s AND %(last)s",
    "DELETE": "DELETE FROM {table} WHERE id BETWEEN %(first)s AND %(last)s",
}
# What each client of pgbench does, one statement a transaction; its rows are its own.
SCRIPT = """\\set id 100000000 + :client_id * 10000000 + random(1, 9999999)
\\set customer random(1, 10000)
\\set product random(1, 1000)
\\set qty random(1, 10)
\\set price random(1, 1000)
INSERT INTO {table} VALUES (:id, :customer, :product, :qty, :price, '2026-01-01') ON CONFLICT DO NOTHING;
UPDATE {table} SET qty = 11 - qty, price = 1000 - price WHERE id = :id;
DELETE FROM {table} WHERE id = :id;
"""
FIRST_SINGLE, FIRST_BATCH = 10_000_000, 20_000_000
# Nobody waits longer for a batch.
PATIENCE_SECONDS = 10
ENDLESS = Cost(math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rows: int
    batch: int
    singles: int
    repetitions: int
    seconds: int


@dataclass(slots=True)
class Result:
    """For each shape, kind of statement and contender what it cost; for each number of clients, statements a second."""

    single: dict[str, dict[str, dict[str, Cost]]] = field(default_factory=dict)
    batch: dict[str, dict[str, dict[str, Cost]]] = field(default_factory=dict)
    rates: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)


def immediate(
    server: EmbeddedServer,
    conn: Connection,
    effort: Effort,
    report: Callable[[str], None],
    shapes: tuple[Shape, ...] = SHAPES,
) -> Result:
    """Measure every shape on tables of its own; pg_ivm as well where it can be had."""
    result = Result()
    contenders = (BARE, OURS, PG_IVM) if pg_ivm.is_available(conn) else (BARE, OURS)
    for shape in shapes:
        everything = {name: _prepared(conn, shape, name, effort) for name in (*contenders, HAND, DEFINER)}
        tables = {name: everything[name] for name in contenders}
        result.single[shape.title] = {kind: _singles(conn, everything, kind, effort) for kind in SINGLE}
        result.batch[shape.title] = _batches(conn, tables, effort)
        result.rates[shape.title] = {clients: _rates(server, conn, tables, clients, effort) for clients in CLIENTS}
        for kind, costs in result.single[shape.title].items():
            report(f"{shape.title}, {kind}: {(costs[OURS] / costs[BARE]).cpu:.2f}x")
        _drop(conn, everything)
    return result


def _prepared(conn: Connection, shape: Shape, contender: str, effort: Effort) -> str:
    """A copy of some of the orders, and what maintains the shape's query over it."""
    table = f"orders_{contender.replace(',', '').replace(' ', '_')}"
    name = sql.Identifier(table)
    conn.execute(sql.SQL("CREATE TABLE {} (LIKE orders INCLUDING ALL)").format(name))
    conn.execute(sql.SQL(COPY).format(table=name), (CUSTOMERS, PRODUCTS, effort.rows))
    query = sql.SQL(shape.query).format(table=name).as_string(conn)
    if contender == OURS:
        pg_trickle.create_stream_table(conn, f"view_{table}", query, refresh_mode="IMMEDIATE")
    elif contender == PG_IVM:
        pg_ivm.create(conn, f"view_{table}", query, shape.key)
    elif contender in (HAND, DEFINER):
        by_hand.create(conn, shape.title, table, definer=contender == DEFINER)
    conn.execute("VACUUM ANALYZE")
    return table


def _drop(conn: Connection, tables: dict[str, str]) -> None:
    for contender, table in tables.items():
        if contender == OURS:
            pg_trickle.drop_stream_table(conn, f"view_{table}")
        elif contender == PG_IVM:
            conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(f"view_{table}")))
        elif contender in (HAND, DEFINER):
            by_hand.drop(conn, table)
        conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))


def _singles(conn: Connection, tables: dict[str, str], kind: str, effort: Effort) -> dict[str, Cost]:
    """The cost of one of a series of prepared statements, each a transaction."""
    numbers = {name: iter(range(FIRST_SINGLE, FIRST_BATCH)) for name in tables}
    return _measured(
        tables, effort.repetitions, lambda name: _one_by_one(conn, tables[name], kind, numbers[name], effort.singles)
    )


def _one_by_one(conn: Connection, table: str, kind: str, numbers: Iterator[int], singles: int) -> Cost:
    statement = sql.SQL(SINGLE[kind]).format(table=sql.Identifier(table)).as_string(conn)

    def work() -> None:
        for _ in range(singles):
            conn.execute(statement, {"id": next(numbers)}, prepare=True)

    cost = cost_of(conn, work)
    return Cost(cost.wall / singles, cost.cpu / singles)


def _batches(conn: Connection, tables: dict[str, str], effort: Effort) -> dict[str, dict[str, Cost]]:
    """Statements of many rows each; whose first one takes too long isn't asked for more."""
    costs: dict[str, dict[str, Cost]] = {}
    left = dict(tables)
    for kind in BATCH:
        firsts = {name: iter(range(FIRST_BATCH, 100_000_000, effort.batch)) for name in left}
        runs = {name: partial(_at_once, conn, left[name], kind, firsts[name], effort.batch) for name in left}
        left = {name: table for name, table in left.items() if runs[name]() != ENDLESS}
        measured = alternating(effort.repetitions, lambda: None, {name: runs[name] for name in left})
        costs[kind] = {name: measured.get(name, ENDLESS) for name in tables}
        # Its rows aren't all there, for the next statement to change.
        left = {name: table for name, table in left.items() if costs[kind][name] != ENDLESS}
    return costs


def _at_once(conn: Connection, table: str, kind: str, firsts: Iterator[int], rows: int) -> Cost:
    first = next(firsts)
    statement = sql.SQL(BATCH[kind]).format(table=sql.Identifier(table))
    conn.execute("SELECT set_config('statement_timeout', %s, false)", (f"{PATIENCE_SECONDS}s",))
    try:
        return cost_of(conn, lambda: conn.execute(statement, {"first": first, "last": first + rows - 1}))
    except psycopg.errors.QueryCanceled:
        return ENDLESS
    finally:
        conn.execute("RESET statement_timeout")


def _measured(tables: dict[str, str], repetitions: int, run: Callable[[str], Cost]) -> dict[str, Cost]:
    """Once to warm up, then in turns."""
    for name in tables:
        run(name)
    return alternating(repetitions, lambda: None, {name: partial(run, name) for name in tables})


def _rates(
    server: EmbeddedServer, conn: Connection, tables: dict[str, str], clients: int, effort: Effort
) -> dict[str, float]:
    """Statements a second of so many clients at once."""
    rates = {}
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "writes.sql"
        for name, table in tables.items():
            script.write_text(SCRIPT.format(table=table))
            conn.execute("VACUUM ANALYZE")
            rates[name] = pgbench.transactions_a_second(server, str(conn.info.dbname), script, clients, effort.seconds)
    return rates
