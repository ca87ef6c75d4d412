"""A shop: a superuser, an author with exactly the security guide's grants, and ways to look at what there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

Connection = psycopg.Connection[tuple[Any, ...]]
Fails = Callable[..., psycopg.Error]

TABLES = """
CREATE TABLE customers (id int PRIMARY KEY, name text, secret text);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount numeric(10, 2), note text);
INSERT INTO customers SELECT i, 'customer ' || i, 'secret ' || i FROM generate_series(1, 5) AS i;
INSERT INTO orders SELECT i, 1 + i % 5, i, 'note ' || i FROM generate_series(1, 20) AS i;
"""
# The security guide's words (with everything that its recommended split grants an author).
AUTHOR: LiteralString = """
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
GRANT CREATE ON SCHEMA public TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO {role};
GRANT USAGE ON SCHEMA pgtrickle TO {role};
"""
TRACES = """
    SELECT 'relation ' || c.oid::regclass FROM pg_class AS c
     WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relname ~ '^(changes|query|state|delta)_[0-9]'
       AND c.relkind IN ('r', 'v')
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure FROM pg_proc AS p
     WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ '^(capture|as)_[0-9]'
    UNION ALL
    SELECT 'trigger ' || t.tgname FROM pg_trigger AS t WHERE t.tgname LIKE 'pg\\_trickle%'
    UNION ALL
    SELECT 'catalog ' || st.pgt_name FROM pgtrickle.pgt_stream_tables AS st
    UNION ALL
    SELECT 'view ' || c.relname FROM pg_class AS c WHERE c.relname LIKE '\\_\\_pgt\\_query%'
"""

TOTALS = "SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id"


def rows(conn: Connection, query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode()).fetchall()


@dataclass
class Shop:
    """The database of a test, and people in it."""

    database: Any
    superuser: Connection

    def as_(self, role: str, **options: Any) -> Connection:
        connection: Connection = self.database.connect(role, **options)
        return connection

    def author(self, name: str) -> Connection:
        """A connection of a new role that may make stream tables of what is there."""
        self.database.make_role(name, sql.SQL("LOGIN NOINHERIT"))
        self.superuser.execute(sql.SQL(AUTHOR).format(role=sql.Identifier(name)))
        return self.as_(name)

    def traces(self) -> list[str]:
        """Everything that stream tables have left in the database."""
        return sorted(trace for (trace,) in self.superuser.execute(TRACES.encode()))

    def catalog(self, name: str) -> dict[str, Any]:
        """The catalog row of a stream table."""
        with self.superuser.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(
                "SELECT * FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = to_regclass(%s)", (name,)
            ).fetchone()
        assert row is not None, f"{name} is no stream table"
        return row

    def columns(self, name: str) -> list[tuple[str, str]]:
        return self.superuser.execute(
            """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
                WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
            (name,),
        ).fetchall()

    def fresh(self, *names: str) -> None:
        """Refresh, and compare with the query."""
        for name in names:
            pg_trickle.refresh_stream_table(self.superuser, name)
            assert_fresh(self.superuser, name)


@pytest.fixture
def shop(database: Any, db: Connection) -> Shop:
    db.execute(TABLES.encode())
    return Shop(database, db)


@pytest.fixture
def author(shop: Shop) -> Connection:
    """The guide's st_author."""
    return shop.author("st_author")
