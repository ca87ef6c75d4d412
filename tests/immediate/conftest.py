"""A small shop whose stream tables are IMMEDIATE, one of each kind of maintenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences

Connection = psycopg.Connection[tuple[Any, ...]]

SHOP: LiteralString = """
    CREATE TABLE customers (id int PRIMARY KEY, region text);
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE,
                         amount numeric(8, 2), note text);
    INSERT INTO customers SELECT g, 'r' || g % 3 FROM generate_series(1, 9) AS g;
    INSERT INTO orders SELECT g, g % 9 + 1, g, 'n' FROM generate_series(1, 40) AS g;
"""

QUERIES: dict[str, LiteralString] = {
    "joined": "SELECT o.id, c.region, o.amount FROM orders AS o JOIN customers AS c ON c.id = o.customer_id",
    "regions": """SELECT c.region, count(*) AS n, sum(o.amount) AS total, max(o.amount) AS most
                    FROM orders AS o JOIN customers AS c ON c.id = o.customer_id GROUP BY c.region""",
    "totals": "SELECT customer_id, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer_id",
    "counted": "SELECT customer_id, count(*) AS n, count(id) AS ids, sum(id) AS s FROM orders GROUP BY customer_id",
    "extremes": "SELECT customer_id, min(amount) AS least, max(id) AS last FROM orders GROUP BY customer_id",
    "spans": "SELECT note, count(*) AS n, min(id) AS first, max(amount) AS most FROM orders GROUP BY note",
    "lists": """SELECT customer_id, string_agg(note, ',' ORDER BY id) AS notes, max(amount) AS most FROM orders
                 GROUP BY customer_id HAVING count(*) > 2""",
    "dear": "SELECT id, amount * 2 AS twice FROM orders WHERE amount > 5",
    "notes": "SELECT note, amount FROM orders",
    "kinds": "SELECT DISTINCT note FROM orders",
    "everything": "SELECT count(*) AS n, sum(amount) AS total FROM orders",
    "pairs": """SELECT a.id, b.id AS other FROM orders AS a
                  JOIN orders AS b ON a.customer_id = b.customer_id AND a.id < b.id""",
    "often": "SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id HAVING count(*) > 3",
}


@dataclass
class Shop:
    """The shop of one test, and what the server warned of."""

    conn: Connection
    names: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, query: str, mode: str = "IMMEDIATE") -> None:
        pg_trickle.create_stream_table(self.conn, name, query, refresh_mode=mode)
        self.names.append(name)

    def run(self, *statements: LiteralString) -> None:
        """Each statement, and every stream table equal to its query after it, by no recomputing."""
        for statement in statements:
            self.conn.execute(statement)
            self.check()

    def check(self) -> None:
        for name in self.names:
            assert differences(self.conn, name) == [], name
        assert self.warnings == []

    def one(self, query: LiteralString, *parameters: Any) -> Any:
        row = self.conn.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]

    def version(self, name: str) -> list[str]:
        """The row versions of a stream table: they change with every write."""
        rows = self.conn.execute(
            sql.SQL("SELECT xmin::text || ctid::text FROM {} ORDER BY 1").format(sql.Identifier(name))
        )
        return [version for (version,) in rows]


def made(conn: Connection, queries: dict[str, LiteralString]) -> Shop:
    conn.execute(SHOP)
    shop = Shop(conn)

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING" and "recomputed" in (diagnostic.message_primary or ""):
            shop.warnings.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    for name, query in queries.items():
        shop.add(name, query)
    return shop


@pytest.fixture
def shop(db: Connection) -> Shop:
    """Orders of customers."""
    return made(db, QUERIES)
