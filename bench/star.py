"""The data: a star schema of orders, customers and products, changes to it, and queries over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

SCHEMA = """
CREATE TABLE customers (
    id     int  PRIMARY KEY,
    region text NOT NULL,
    name   text NOT NULL
);
CREATE TABLE products (
    id       int           PRIMARY KEY,
    category text          NOT NULL,
    price    numeric(10,2) NOT NULL
);
CREATE TABLE orders (
    id          int           PRIMARY KEY,
    customer_id int           NOT NULL,
    product_id  int           NOT NULL,
    qty         int           NOT NULL,
    price       numeric(10,2) NOT NULL,
    ordered_at  timestamptz   NOT NULL
);
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON orders (product_id);
"""

CUSTOMERS = """
INSERT INTO customers
SELECT i, 'region ' || i %% 10, 'customer ' || i FROM generate_series(1, %s) AS i
"""

PRODUCTS = """
INSERT INTO products
SELECT i, 'category ' || i %% 20, (i %% 1000) / 10.0 FROM generate_series(1, %s) AS i
"""

ORDERS = """
INSERT INTO orders
SELECT i, 1 + floor(random() * %(customers)s)::int, 1 + floor(random() * %(products)s)::int,
       1 + floor(random() * 10)::int, floor(random() * 10000) / 10, now()
  FROM generate_series(%(first)s::int, %(last)s::int) AS i
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows the tables have."""

    orders: int
    customers: int = 100_000
    products: int = 10_000


@dataclass(frozen=True, slots=True)
class View:
    """A query, and the columns that are unique in its result."""

    name: str
    title: str
    key: str
    query: str


VIEWS = (
    View(
        "filtered",
        "filter",
        "id",
        "SELECT id, customer_id, qty, price FROM orders WHERE qty > 5",
    ),
    View(
        "joined",
        "2-way join",
        "id",
        "SELECT o.id, c.name, o.qty, o.price FROM orders AS o JOIN customers AS c ON c.id = o.customer_id",
    ),
    View(
        "star",
        "3-way join, filtered",
        "id",
        """
        SELECT o.id, c.name, p.category, o.qty
          FROM orders AS o
          JOIN customers AS c ON c.id = o.customer_id
          JOIN products  AS p ON p.id = o.product_id
         WHERE o.qty > 5
        """,
    ),
    View(
        "per_customer",
        "many groups: count, sum, min, max by customer",
        "customer_id",
        """
        SELECT customer_id, count(*) AS orders, sum(qty) AS pieces, min(price) AS cheapest, max(price) AS dearest
          FROM orders
         GROUP BY customer_id
        """,
    ),
    View(
        "per_region",
        "few groups: count, sum, avg over the 3-way join",
        "region, category",
        """
        SELECT c.region, p.category, count(*) AS orders, sum(o.qty * o.price) AS total, avg(o.price) AS average
          FROM orders AS o
          JOIN customers AS c ON c.id = o.customer_id
          JOIN products  AS p ON p.id = o.product_id
         GROUP BY c.region, p.category
        """,
    ),
    View(
        "distinct_sales",
        "DISTINCT over the 3-way join",
        "region, category, qty",
        """
        SELECT DISTINCT c.region, p.category, o.qty
          FROM orders AS o
          JOIN customers AS c ON c.id = o.customer_id
          JOIN products  AS p ON p.id = o.product_id
        """,
    ),
)


def load(conn: Connection, size: Size) -> None:
    """Make the tables and fill them, the same every time."""
    conn.execute("SELECT setseed(0.5)")
    conn.execute(SCHEMA)
    conn.execute(CUSTOMERS, (size.customers,))
    conn.execute(PRODUCTS, (size.products,))
    grow(conn, size, first=1)


def grow(conn: Connection, size: Size, *, first: int) -> None:
    """Add orders until there are as many as the size says."""
    conn.execute(ORDERS, {"customers": size.customers, "products": size.products, "first": first, "last": size.orders})
    conn.execute("VACUUM ANALYZE")


PICK = """
CREATE TEMPORARY TABLE picked ON COMMIT DROP AS
SELECT o.id, row_number() OVER () AS place
  FROM (SELECT DISTINCT 1 + floor(random() * %(last)s)::int AS id FROM generate_series(1, 2 * %(rows)s)) AS r
  JOIN orders AS o ON o.id = r.id
 ORDER BY random()
 LIMIT %(rows)s
"""

# Of ten rows one is inserted, one deleted, and eight are updated, one of which moves to another customer.
CHANGES = (
    "DELETE FROM orders WHERE id IN (SELECT id FROM picked WHERE place %% 10 = 0)",
    """
    INSERT INTO orders
    SELECT %(last)s + row_number() OVER (), 1 + floor(random() * %(customers)s)::int,
           1 + floor(random() * %(products)s)::int, 1 + floor(random() * 10)::int, floor(random() * 10000) / 10, now()
      FROM picked WHERE place %% 10 = 1
    """,
    """
    UPDATE orders SET customer_id = 1 + floor(random() * %(customers)s)::int
     WHERE id IN (SELECT id FROM picked WHERE place %% 10 = 2)
    """,
    """
    UPDATE orders SET qty = 1 + floor(random() * 10)::int, price = price + 0.1
     WHERE id IN (SELECT id FROM picked WHERE place %% 10 > 2)
    """,
)


def change(conn: Connection, size: Size, rows: int) -> None:
    """Change so many random orders in one transaction: mostly updates."""
    found = conn.execute("SELECT max(id) FROM orders").fetchone()
    values = {"rows": rows, "last": found and found[0], "customers": size.customers, "products": size.products}
    with conn.transaction():
        conn.execute(PICK, values)
        conn.execute("ANALYZE picked")
        for statement in CHANGES:
            conn.execute(statement, values)
