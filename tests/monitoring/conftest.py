"""An installation with one stream table, and people with different rights to look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]

SUMMARY = "SELECT tenant_id, customer_id, SUM(amount) AS total FROM orders GROUP BY tenant_id, customer_id"

# The security guide's words.
GUIDE_USER = """
CREATE ROLE pgtrickle_user NOLOGIN NOINHERIT;
GRANT USAGE ON SCHEMA pgtrickle TO pgtrickle_user;
-- Monitoring functions (read-only)
GRANT EXECUTE ON FUNCTION pgtrickle.pgt_status() TO pgtrickle_user;
GRANT EXECUTE ON FUNCTION pgtrickle.refresh_efficiency() TO pgtrickle_user;
GRANT EXECUTE ON FUNCTION pgtrickle.health_check() TO pgtrickle_user;
"""
CALLER = """
GRANT USAGE ON SCHEMA pgtrickle TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO {role};
"""


@dataclass
class Shop:
    """The database, its superuser, and connections as everybody else."""

    database: Any
    superuser: Connection

    def as_(self, role: str) -> Connection:
        connection: Connection = self.database.connect(role)
        return connection

    def caller(self, name: str) -> str:
        """A role that may call everything and sees nothing by that."""
        self.database.make_role(name)
        self.superuser.execute(sql.SQL(CALLER).format(role=sql.Identifier(name)))
        return name

    def create(self, name: str, query: str, role: str = "st_author", **options: Any) -> None:
        with self.as_(role) as conn:
            pg_trickle.create_stream_table(conn, name, query, **options)


@pytest.fixture
def shop(database: Any, db: Connection) -> Shop:
    """``order_summary`` of st_author; app_reader may SELECT from it, stranger may not."""
    made = Shop(database, db)
    for role in ("st_author", "app_reader", "stranger"):
        made.caller(role)
    database.make_role("observer", sql.SQL("LOGIN IN ROLE pg_monitor"))
    db.execute(
        """
        CREATE TABLE orders (id int PRIMARY KEY, tenant_id int, customer_id int, amount numeric);
        INSERT INTO orders VALUES (1, 1, 1, 10), (2, 1, 2, 20), (3, 2, 1, 5);
        GRANT SELECT ON orders TO st_author;
        GRANT CREATE ON SCHEMA public TO st_author;
        """
    )
    made.create("order_summary", SUMMARY, schedule=None)
    db.execute("GRANT SELECT ON order_summary TO app_reader")
    return made


@pytest.fixture
def application(shop: Shop) -> Connection:
    """The guide's pgtrickle_user, by way of a login role."""
    shop.database.adopt_role("pgtrickle_user")
    shop.superuser.execute(GUIDE_USER)
    shop.database.make_role("app_backend")
    shop.superuser.execute("GRANT pgtrickle_user TO app_backend")
    return shop.as_("app_backend")


@pytest.fixture
def rows() -> Callable[..., list[tuple[Any, ...]]]:
    """All rows of a query."""

    def rows(conn: Connection, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return conn.execute(query.encode(), parameters or None).fetchall()

    return rows
