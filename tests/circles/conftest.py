"""Stream tables that read each other, where that is allowed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]

EDGES = "CREATE TABLE edges (src int, dst int)"
# Over red and blue edges in turn, or of one colour: mutual recursion, as no WITH RECURSIVE can write it.
STEPS = """
    SELECT e.src, e.dst FROM edges AS e
    UNION
    SELECT r.src, e.dst FROM {other} AS r JOIN edges AS e ON e.src = r.dst
"""
REACH = """
    WITH RECURSIVE reach(src, dst) AS (
        SELECT e.src, e.dst FROM edges AS e UNION SELECT r.src, e.dst FROM reach AS r JOIN edges AS e ON e.src = r.dst)
    SELECT src, dst FROM reach ORDER BY src, dst
"""


def allow(conn: Connection, value: str = "on") -> None:
    """As superuser: let stream tables read each other in a circle."""
    conn.execute(
        """INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', %s)
           ON CONFLICT (name) DO UPDATE SET value = excluded.value""",
        (value,),
    )


def close(conn: Connection, first: str = "a", second: str = "b") -> None:
    """Two stream tables of reachability that read each other."""
    pg_trickle.create_stream_table(conn, first, "SELECT src, dst FROM edges")
    pg_trickle.create_stream_table(conn, second, STEPS.format(other=first))
    pg_trickle.alter_stream_table(conn, first, query=STEPS.format(other=second))


def rows(conn: Connection, query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode()).fetchall()


def contents(conn: Connection, name: str) -> list[tuple[Any, ...]]:
    return rows(conn, f"SELECT * FROM {name} ORDER BY 1, 2")


@pytest.fixture
def circle(db: Connection) -> Connection:
    """A chain of four edges, and the circle of a and b over it."""
    allow(db)
    db.execute(EDGES.encode())
    db.execute("INSERT INTO edges VALUES (1, 2), (2, 3), (3, 4), (4, 5)")
    close(db)
    return db
