"""Two tables, and two sessions beside the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.immediate.test_isolation import Session

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def tables(db: Connection) -> Connection:
    db.execute(
        """CREATE TABLE u (id int PRIMARY KEY, name text);
           CREATE TABLE t (id int PRIMARY KEY, g int, v int);
           INSERT INTO u SELECT g, 'n' || g FROM generate_series(0, 3) AS g;
           INSERT INTO t SELECT g, g % 4, g FROM generate_series(1, 12) AS g"""
    )
    return db


@pytest.fixture
def sessions(database: Any) -> Iterator[tuple[Session, Session]]:
    with ThreadPoolExecutor(2) as pool:
        watcher = database.connect()
        yield Session(database.connect(), watcher, pool), Session(database.connect(), watcher, pool)
