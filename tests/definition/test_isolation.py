"""Definition in every isolation level, while others commit."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

import pg_trickle
from tests.definition.conftest import TOTALS, Connection

LEVELS = [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]


def begun(shop: Any, role: str, level: IsolationLevel) -> Connection:
    """A connection in a transaction that has its snapshot."""
    conn: Connection = shop.as_(role, autocommit=False)
    conn.isolation_level = level
    conn.execute("SELECT count(*) FROM customers")
    return conn


@pytest.mark.versions
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("initialize", [True, False])
def test_what_is_committed_between_snapshot_and_capture_gets_in(
    shop: Any, author: Connection, level: IsolationLevel, initialize: bool
) -> None:
    conn = begun(shop, "st_author", level)
    shop.superuser.execute("INSERT INTO orders VALUES (101, 1, 1000, '')")
    pg_trickle.create_stream_table(conn, "st", TOTALS, initialize=initialize)
    conn.commit()
    shop.superuser.execute("INSERT INTO orders VALUES (102, 1, 100, '')")
    if initialize:
        expected = level is not IsolationLevel.READ_COMMITTED
        assert shop.catalog("st")["needs_reinit"] == expected
    shop.fresh("st")
    assert not shop.catalog("st")["needs_reinit"]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_new_query_too(shop: Any, author: Connection, level: IsolationLevel) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    conn = begun(shop, "st_author", level)
    shop.superuser.execute("INSERT INTO customers VALUES (101, 'new')")
    pg_trickle.alter_stream_table(conn, "st", query="SELECT id, name FROM customers")
    conn.commit()
    shop.superuser.execute("INSERT INTO customers VALUES (102, 'newer')")
    shop.fresh("st")


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_what_the_creator_wrote_before_and_after(shop: Any, author: Connection, level: IsolationLevel) -> None:
    shop.superuser.execute("GRANT INSERT, UPDATE, DELETE ON orders TO st_author")
    conn = begun(shop, "st_author", level)
    conn.execute("INSERT INTO orders VALUES (103, 1, 10, '')")
    pg_trickle.create_stream_table(conn, "st", TOTALS)
    conn.execute("INSERT INTO orders VALUES (104, 1, 1, '')")
    conn.execute("UPDATE orders SET amount = amount + 1 WHERE id IN (1, 103)")
    conn.commit()
    shop.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id = 1")
    shop.fresh("st")


def test_a_writer_that_is_under_way_is_waited_for(shop: Any, author: Connection) -> None:
    writer = shop.as_("postgres", autocommit=False)
    writer.execute("INSERT INTO orders VALUES (105, 1, 5, '')")
    author.execute("SET lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        pg_trickle.create_stream_table(author, "st", TOTALS)
    assert shop.traces() == []
    writer.commit()
    pg_trickle.create_stream_table(author, "st", TOTALS)
    shop.fresh("st")


def test_two_of_one_name_at_once(shop: Any, author: Connection) -> None:
    first = begun(shop, "st_author", IsolationLevel.READ_COMMITTED)
    pg_trickle.create_stream_table(first, "st", "SELECT id FROM customers")
    author.execute("SET lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        pg_trickle.create_stream_table(author, "st", "SELECT id FROM customers")
    first.commit()
    with pytest.raises(psycopg.errors.DuplicateTable):
        pg_trickle.create_stream_table(author, "st", "SELECT id FROM customers")
    shop.fresh("st")


def test_dropped_by_one_while_refreshed_by_another(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    first = begun(shop, "st_author", IsolationLevel.READ_COMMITTED)
    pg_trickle.drop_stream_table(first, "st")
    author.execute("SET lock_timeout = '100ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        pg_trickle.refresh_stream_table(author, "st")
    first.commit()
    with pytest.raises(psycopg.errors.UndefinedTable):
        pg_trickle.refresh_stream_table(author, "st")


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("experienced", [True, False])
def test_two_owners_who_begin_to_capture_a_source_at_once(
    shop: Any, author: Connection, level: IsolationLevel, experienced: bool
) -> None:
    """The second waits; then he is told to try again, unless he has not looked before."""
    shop.author("other")
    other = shop.as_("other", autocommit=False)
    if experienced:
        for number, conn in enumerate((author, other)):
            pg_trickle.create_stream_table(conn, f"first_{number}", "SELECT id FROM customers")
        other.commit()
    other.isolation_level = level
    first = begun(shop, "st_author", IsolationLevel.READ_COMMITTED)
    pg_trickle.create_stream_table(first, "mine", TOTALS)
    failed: list[psycopg.Error] = []

    def create() -> None:
        try:
            pg_trickle.create_stream_table(other, "yours", TOTALS)
            other.commit()
        except psycopg.errors.SerializationFailure as exc:
            failed.append(exc)
            other.rollback()

    second = threading.Thread(target=create)
    second.start()
    waits = "SELECT pg_blocking_pids(%s) <> '{}'"
    while shop.superuser.execute(waits, (other.info.backend_pid,)).fetchone() != (True,):
        assert second.is_alive(), "it didn't wait"
    first.commit()
    second.join()
    if failed:
        pg_trickle.create_stream_table(other, "yours", TOTALS)
        other.commit()
    shop.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id < 5")
    shop.fresh("mine", "yours")
