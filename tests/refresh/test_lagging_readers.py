"""Who is up to date pays for what is new, whatever another one has yet to read, and whoever goes on writing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.upkeep import rows_read

Connection = psycopg.Connection[tuple[Any, ...]]
IDLE = "SELECT c.id, c.region FROM customers AS c WHERE NOT EXISTS (SELECT FROM orders AS o WHERE o.customer_id = c.id)"


@pytest.fixture
def customers(db: Connection) -> Connection:
    """Customers without orders twice: as they are after each change, and by somebody who lags."""
    db.execute("CREATE TABLE customers (id int PRIMARY KEY, region text NOT NULL)")
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL)")
    db.execute("INSERT INTO customers SELECT n, 'r' || n % 3 FROM generate_series(1, 20000) AS n")
    db.execute(
        "INSERT INTO orders SELECT n, n FROM generate_series(1, 5000) AS n; CREATE INDEX ON orders (customer_id)"
    )
    for name in ("quick", "late"):
        pg_trickle.create_stream_table(db, name, IDLE, schedule=None, refresh_mode="DIFFERENTIAL")
    return db


def move(db: Connection, *changes: int) -> None:
    """So many orders become somebody else's; one of the two notices."""
    for rows in changes:
        db.execute("UPDATE orders SET customer_id = 1 + (customer_id + 4999) %% 20000 WHERE id <= %s", (rows,))
        pg_trickle.refresh_stream_table(db, "quick")


def both_are_right(db: Connection) -> None:
    assert_fresh(db, "quick")
    pg_trickle.refresh_stream_table(db, "late")
    assert_fresh(db, "late")


@pytest.mark.versions
def test_what_another_has_not_read_yet_is_not_taken_for_new(customers: Connection) -> None:
    """A sixth of the buffer would be thousands of rows, for which all customers are read."""
    move(customers, *(5000,) * 8, 20, 21)
    customers.execute("ANALYZE")
    before = rows_read(customers, "customers")
    move(customers, 20, 15, 30)
    assert 0 < rows_read(customers, "customers") - before < 1000
    both_are_right(customers)


@pytest.mark.versions
def test_what_was_read_before_is_not_read_again_while_somebody_writes(customers: Connection, database: Any) -> None:
    """Who has been writing all the while keeps the lower bound of every frontier where it was."""
    (buffer,) = customers.execute(
        "SELECT buffer FROM pgtrickle.pgt_captures WHERE source_relid = 'orders'::regclass"
    ).fetchone() or ("",)
    with database.connect() as writer, writer.transaction():
        writer.execute("INSERT INTO customers VALUES (30000, 'somewhere')")
        move(customers, 3000, 10, 11, 12)
        before = rows_read(customers, buffer)
        move(customers, 10)
        assert 0 < rows_read(customers, buffer) - before < 200
    pg_trickle.refresh_stream_table(customers, "quick")
    both_are_right(customers)
