"""Stream tables of every kind that has functions of its own."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]

OWNER = "st_owner"
SOURCES = """
CREATE TABLE orders (id int PRIMARY KEY, region text, amount numeric(10, 2), note json);
CREATE TABLE customers (id int PRIMARY KEY, tenant text, name text);
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON customers USING (tenant = current_user);
CREATE TABLE events (id int, region text) PARTITION BY LIST (region);
CREATE TABLE events_east PARTITION OF events FOR VALUES IN ('east');
GRANT USAGE, CREATE ON SCHEMA public TO st_owner;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO st_owner;
GRANT USAGE ON SCHEMA pgtrickle TO st_owner;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO st_owner;
"""
QUERIES = {
    "DIFFERENTIAL": (
        "SELECT region, count(*) AS n, sum(amount) AS total FROM orders GROUP BY region",
        "SELECT id, note FROM orders",
        "SELECT o.id, c.name FROM orders AS o JOIN customers AS c ON c.id = o.id",
        "SELECT region, count(*) AS n FROM events GROUP BY region",
    ),
    "IMMEDIATE": (
        "SELECT region, count(*) AS n FROM orders GROUP BY region",
        "SELECT region, max(amount) AS most FROM orders GROUP BY region",
        "SELECT o.id, c.name FROM orders AS o JOIN customers AS c ON c.id = o.id",
    ),
    "FULL": ("SELECT id, random() AS chance FROM orders",),
}


@pytest.fixture
def generated(database: Any, db: Connection) -> Connection:
    """A superuser's connection to a database in which the engine has generated functions of every kind."""
    database.make_role(OWNER)
    db.execute(SOURCES.encode())
    owner = database.connect(OWNER)
    for mode, queries in QUERIES.items():
        for number, query in enumerate(queries):
            pg_trickle.create_stream_table(owner, f"{mode.lower()}_{number}", query, refresh_mode=mode)
    db.execute(sql.SQL("INSERT INTO orders VALUES (1, 'east', 2.5, '{}')"))
    return db
