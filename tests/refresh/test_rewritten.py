"""Tables that were written anew since a snapshot: to that snapshot they are empty, whatever it saw in them before.

PostgreSQL says so of ALTER TABLE and TRUNCATE ("Caveats" of its chapter on concurrency).  The worker refreshes in
REPEATABLE READ, and a refresh that takes a table for empty must not be kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

TABLES = """
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int, customer int, note text, kind int) PARTITION BY RANGE (kind);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10);
INSERT INTO customers SELECT g, 'c' || g FROM generate_series(1, 9) AS g;
INSERT INTO orders SELECT g, g % 9 + 1, 'n', 1 FROM generate_series(1, 20) AS g;
"""
QUERIES = {
    "joined": "SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer",
    "lonely": "SELECT c.id FROM customers c WHERE NOT EXISTS (SELECT FROM orders o WHERE o.customer = c.id)",
    "counted": "SELECT count(*) AS n FROM orders o JOIN customers c ON c.id = o.customer",
}
REWRITES = {
    "type": "ALTER TABLE orders ALTER COLUMN note TYPE varchar(50)",
    "type of the other": "ALTER TABLE customers ADD COLUMN at timestamptz DEFAULT clock_timestamp()",
    "logged": "ALTER TABLE customers SET UNLOGGED; ALTER TABLE customers SET LOGGED",
    "truncated": "TRUNCATE customers; INSERT INTO customers SELECT g, 'd' || g FROM generate_series(1, 5) AS g",
    "replaced": "ALTER TABLE customers RENAME TO old; CREATE TABLE customers (id int PRIMARY KEY, name text)",
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES.keys())
def test_a_refresh_in_an_older_snapshot_is_not_kept(
    database: Any, db: Connection, assert_fresh: Oracle, rewrite: str
) -> None:
    db.execute(TABLES.encode())
    for name, query in QUERIES.items():
        mode = "FULL" if name == "counted" else "DIFFERENTIAL"
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode=mode)
    db.execute("INSERT INTO orders VALUES (100, 3, 'n', 1); DELETE FROM orders WHERE id = 1")
    older = {name: database.connect() for name in QUERIES}
    for conn in older.values():
        conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    db.execute(rewrite.encode())
    for name, conn in older.items():
        with pytest.raises(psycopg.errors.SerializationFailure, match="as of this transaction's snapshot"):
            conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
        conn.execute("ROLLBACK")
        pg_trickle.refresh_stream_table(db, name)
        assert_fresh(db, name)
