"""After DDL on a source the Python API compiles what it needs itself; through SQL the worker does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

QUERY = "SELECT o.id, c.name FROM orders AS o JOIN customers AS c ON c.id = o.customer"

CALLS: dict[str, Callable[[Any, str], object]] = {
    "refresh": pg_trickle.refresh_stream_table,
    "resume": pg_trickle.resume_stream_table,
    "activate": lambda conn, name: pg_trickle.alter_stream_table(conn, name, status="active"),
    "to IMMEDIATE": lambda conn, name: pg_trickle.alter_stream_table(conn, name, refresh_mode="IMMEDIATE"),
    "to DIFFERENTIAL": lambda conn, name: pg_trickle.alter_stream_table(conn, name, refresh_mode="DIFFERENTIAL"),
    "repair": pg_trickle.repair_stream_table,
}


@pytest.fixture
def sources(db):
    db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, customer int)")
    db.execute("INSERT INTO customers VALUES (1, 'Ada'); INSERT INTO orders VALUES (1, 1)")
    return db


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
@pytest.mark.parametrize("call", CALLS)
def test_no_worker_is_needed(sources, mode, call):
    pg_trickle.create_stream_table(sources, "s", QUERY, refresh_mode=mode)
    if call in ("resume", "activate"):
        pg_trickle.suspend_stream_table(sources, "s")
    sources.execute("ALTER TABLE customers RENAME name TO called")
    CALLS[call](sources, "s")
    pg_trickle.refresh_stream_table(sources, "s")
    sources.execute("INSERT INTO orders VALUES (2, 1)")
    pg_trickle.refresh_stream_table(sources, "s")
    assert_fresh(sources, "s")


@pytest.mark.parametrize(("before", "after"), [("DIFFERENTIAL", "IMMEDIATE"), ("IMMEDIATE", "DIFFERENTIAL")])
def test_the_worker_compiles_when_the_mode_changes_through_sql(sources, worker, before, after):
    """The former plan's columns would be ones that the owner has no right on, for lack of them."""
    sources.execute("SELECT pgtrickle.create_stream_table('s', %s, NULL, %s)", (QUERY, before))
    sources.execute("ALTER TABLE customers RENAME name TO called")
    sources.execute("SELECT pgtrickle.alter_stream_table('s', refresh_mode => %s)", (after,))
    sources.execute("INSERT INTO orders VALUES (2, 1)")
    sources.execute("SELECT pgtrickle.refresh_stream_table('s')")
    assert_fresh(sources, "s")
