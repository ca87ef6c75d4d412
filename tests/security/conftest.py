"""A place with a source and the security guide's roles, made by the guide's own words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

Connection = psycopg.Connection[tuple[Any, ...]]

GUIDE = Path(__file__).parent / "guide"

SOURCES = """
CREATE TABLE orders (id int PRIMARY KEY, tenant_id int, customer_id int, amount numeric(10, 2), note text);
INSERT INTO orders SELECT i, 1 + i % 3, i % 7, i, 'note ' || i FROM generate_series(1, 30) AS i;
CREATE TABLE customers (id int PRIMARY KEY, name text, secret text);
INSERT INTO customers SELECT i, 'customer ' || i, 'secret ' || i FROM generate_series(1, 7) AS i;
"""
MEMBERSHIPS = """
CREATE TABLE memberships (tenant_id int, usr text, role text DEFAULT 'reader');
INSERT INTO memberships VALUES (1, 'st_author'), (2, 'somebody');
CREATE TABLE tenants (id int PRIMARY KEY, parent int, open boolean DEFAULT false);
INSERT INTO tenants VALUES (1, NULL), (2, NULL), (3, 1);
GRANT SELECT ON memberships, tenants TO st_author;
"""
MEMBER = "USING (tenant_id IN (SELECT tenant_id FROM memberships WHERE usr = current_user))"
TOTALS = "SELECT tenant_id, customer_id, sum(amount) AS total FROM orders GROUP BY tenant_id, customer_id"


def guide(block: str) -> bytes:
    """A block of SQL of the security guide, verbatim."""
    return (GUIDE / f"{block}.sql").read_bytes()


def denied(conn: Connection, *statements: str) -> None:
    """Each statement fails for want of a right."""
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute(statement.encode())


def attempted(action: Callable[..., Any], *arguments: Any) -> str | None:
    """What became of something that may fail or not: its SQLSTATE."""
    try:
        action(*arguments)
    except psycopg.Error as error:
        return error.sqlstate
    return None


@dataclass
class Place:
    """The database of a test, and people in it."""

    database: Any
    superuser: Connection

    def as_(self, role: str, *, set_role: str | None = None) -> Connection:
        """A connection as a role; after SET ROLE, if asked."""
        conn: Connection = self.database.connect(role)
        if set_role is not None:
            conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(set_role)))
        return conn

    def role(self, name: str, how: sql.SQL | None = None) -> Connection:
        """A new role and a connection as it."""
        self.database.make_role(name, how or sql.SQL("LOGIN"))
        return self.as_(name)

    def run(self, block: str, *roles: str) -> None:
        """Run a block of the guide as superuser; the roles it makes go after the test."""
        for role in roles:
            self.database.adopt_role(role)
        self.superuser.execute(guide(block))

    def split(self) -> tuple[Connection, Connection]:
        """The guide's recommended split: connections of its author and of its reader."""
        self.run("recommended_split", "st_author", "app_reader")
        self.superuser.execute("ALTER ROLE st_author LOGIN; ALTER ROLE app_reader LOGIN")
        return self.as_("st_author"), self.as_("app_reader")

    def author(self, name: str) -> Connection:
        """Another role with an author's grants."""
        conn = self.role(name, sql.SQL("LOGIN NOINHERIT"))
        self.superuser.execute(
            sql.SQL(
                """GRANT USAGE, CREATE ON SCHEMA public TO {role};
                   GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
                   GRANT USAGE ON SCHEMA pgtrickle TO {role};
                   GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO {role}"""
            ).format(role=sql.Identifier(name))
        )
        return conn

    def value(self, query: str, *parameters: Any) -> Any:
        """The first value that the superuser's query gives."""
        row = self.superuser.execute(query.encode(), parameters or None).fetchone()
        assert row is not None, query
        return row[0]

    def buffer(self, source: str, owner: str) -> str:
        """The qualified name of an owner's buffer on a source."""
        return str(
            self.value(
                """SELECT 'pgtrickle_changes.' || buffer FROM pgtrickle.pgt_captures
                    WHERE source_relid = to_regclass(%s) AND owner_oid = to_regrole(%s)""",
                source,
                owner,
            )
        )

    def last_refresh(self, column: str) -> Any:
        """A column of the newest row of the history."""
        query = sql.SQL("SELECT {} FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1")
        row = self.superuser.execute(query.format(sql.Identifier(column))).fetchone()
        return row and row[0]

    def fresh(self, *names: str) -> None:
        """Refresh, and compare with the query."""
        for name in names:
            pg_trickle.refresh_stream_table(self.superuser, name)
            assert_fresh(self.superuser, name)


@pytest.fixture
def place(database: Any, db: Connection) -> Place:
    db.execute(SOURCES.encode())
    return Place(database, db)


@pytest.fixture
def author(place: Place) -> Connection:
    """The guide's st_author."""
    return place.split()[0]


@pytest.fixture
def tenants(place: Place, author: Connection) -> Place:
    """Orders, and who is a member of which tenant."""
    place.superuser.execute(MEMBERSHIPS.encode())
    return place
