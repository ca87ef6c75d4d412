"""Servers whose WAL can be decoded, and databases in which capture from it is enabled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Database, Servers

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    every = Servers({"wal_level": "logical"})
    yield every
    every.close()


@pytest.fixture
def db(database: Database) -> Connection:
    """A superuser's connection in autocommit mode, where capture from the WAL is enabled."""
    conn = database.connect()
    conn.execute("CALL pgtrickle.enable_wal()")
    return conn


@pytest.fixture
def drain(db: Connection) -> Callable[[], Any]:
    """What the worker does again and again: decode, and let the slot go on."""

    def drained() -> Any:
        (answer,) = db.execute("SELECT pgtrickle_changes.worker_drain_wal(NULL)").fetchone() or (None,)
        return answer

    return drained
