"""A shop whose stream tables are joins, and who shares their turns."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pg_trickle.testing.oracle import differences
from tests.immediate.test_isolation import Session

Connection = psycopg.Connection[tuple[Any, ...]]

# After so many transactions that wrote one source only, its writers share the turn.
RUN = 201
# So many share it at once.
SLOTS = 128
QUERIES: dict[str, LiteralString] = {
    "joined": """SELECT o.id, o.amount, c.region, p.kind FROM orders AS o JOIN customers AS c ON c.id = o.customer
                   JOIN products AS p ON p.id = o.product WHERE o.amount > 2""",
    "regions": """SELECT c.region, count(*) AS n, sum(o.amount) AS total, avg(o.amount) AS mean
                    FROM orders AS o JOIN customers AS c ON c.id = o.customer GROUP BY c.region""",
}
COUNTS: LiteralString = """SELECT c.region, count(*) AS n, count(o.amount) AS m, sum(o.amount) AS total
                             FROM orders AS o JOIN customers AS c ON c.id = o.customer GROUP BY c.region"""


def number_of(conn: Connection, name: str) -> int:
    (number,) = conn.execute(
        "SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,)
    ).fetchone() or (0,)
    return int(number)


def side(conn: Connection, name: str) -> int | None:
    """Who may share a stream table's turn, as its sequence says."""
    found = conn.execute(
        "SELECT pg_sequence_last_value(to_regclass(%s))", (f"pgtrickle_changes.side_{number_of(conn, name)}",)
    ).fetchone()
    return None if found is None else found[0]


def own_slot(conn: Connection) -> int:
    return conn.info.backend_pid % SLOTS


def lock_slots(session: Session, name: str, *but: int) -> None:
    """Have a session lock all slots of a stream table, but for these, as who shares its turn locks one."""
    session.conn.execute(
        sql.SQL("SELECT FROM {} WHERE slot <> ALL ({}) FOR UPDATE").format(
            sql.Identifier("pgtrickle_changes", f"slots_{number_of(session.watcher, name)}"), sql.Literal(list(but))
        )
    )


def oid(conn: Connection, name: str) -> int:
    (found,) = conn.execute("SELECT %s::regclass::oid::bigint", (name,)).fetchone() or (0,)
    return int(found)


def warm(conn: Connection, table: str = "orders") -> None:
    """A run of transactions that write one source only."""
    column = "amount" if table == "orders" else "region"
    for number in range(RUN):
        conn.execute(
            sql.SQL("UPDATE {} SET {} = {} WHERE id = {}").format(
                sql.Identifier(table),
                sql.Identifier(column),
                sql.Literal(number if table == "orders" else f"r{number % 3}"),
                sql.Literal(number % 7 + 1),
            )
        )


def check(conn: Connection) -> None:
    for name in QUERIES:
        assert differences(conn, name) == [], name
