"""The shop, and three who write to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import pg_trickle
from tests.immediate.sides.shop import QUERIES, Connection, own_slot
from tests.immediate.test_isolation import Session


@pytest.fixture
def shop(db: Connection) -> Connection:
    db.execute(
        """CREATE TABLE customers (id int PRIMARY KEY, region text);
           CREATE TABLE products (id int PRIMARY KEY, kind text);
           CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, product int, amount int,
                                note text);
           INSERT INTO customers SELECT g, 'r' || g % 3 FROM generate_series(1, 9) AS g;
           INSERT INTO products SELECT g, 'k' || g % 2 FROM generate_series(1, 4) AS g;
           INSERT INTO orders SELECT g, g % 9 + 1, g % 4 + 1, g, 'n' FROM generate_series(1, 40) AS g"""
    )
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE")
    return db


def with_slots_of_their_own(database: Any, number: int) -> list[Connection]:
    """Connections that needn't wait for each other to share a turn."""
    found: dict[int, Connection] = {}
    while len(found) < number:
        conn = database.connect()
        found.setdefault(own_slot(conn), conn)
    return list(found.values())


def with_one_slot(database: Any, other: Connection) -> Connection:
    """A connection whose own slot is that of another."""
    conn: Connection = database.connect()
    while own_slot(conn) != own_slot(other):
        conn.close()
        conn = database.connect()
    return conn


@pytest.fixture
def sessions(database: Any, shop: Connection) -> Iterator[tuple[Session, Session, Session]]:
    del shop
    with ThreadPoolExecutor(3) as pool:
        watcher = database.connect()
        one, two, other = (Session(conn, watcher, pool) for conn in with_slots_of_their_own(database, 3))
        for session in (one, two, other):
            session.run("SET lock_timeout = '60s'")
        yield one, two, other
