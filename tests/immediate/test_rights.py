"""What a maintenance has to check is asked when its plans are made, where nothing but an alteration can change it; a
role that is left, or loses an attribute, alters nothing.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.definition.conftest import AUTHOR
from tests.immediate.test_isolation import several

Connection = psycopg.Connection[tuple[Any, ...]]

QUERIES = {
    "totals": "SELECT customer_id, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer_id",
    "dear": "SELECT id, amount * 2 AS twice FROM orders WHERE amount > 5",
    "most": "SELECT customer_id, max(amount) AS most FROM orders GROUP BY customer_id",
    "kinds": "SELECT DISTINCT customer_id FROM orders",
}


@pytest.fixture
def author(database: Any, db: Connection) -> Connection:
    """An owner who may read the source by his own right, and by that of a role that he is in."""
    db.execute(
        """CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount numeric);
           INSERT INTO orders SELECT g, g % 4 + 1, g FROM generate_series(1, 20) AS g"""
    )
    for name in ("author", "readers"):
        database.make_role(name)
    db.execute(sql.SQL(AUTHOR).format(role=sql.Identifier("author")))
    db.execute("GRANT SELECT ON orders TO readers; GRANT readers TO author")
    conn: Connection = database.connect("author")
    return conn


def made(author: Connection) -> None:
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(author, name, query, refresh_mode="IMMEDIATE")


# What leaves the owner what he may, and what takes it from him then.
LOST: dict[str, tuple[LiteralString, LiteralString, str]] = {
    "a right by a role": ("REVOKE SELECT ON orders FROM author", "REVOKE readers FROM author", "42501"),
    "an attribute": (
        "ALTER ROLE author BYPASSRLS; ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "ALTER ROLE author NOBYPASSRLS",
        "55000",
    ),
    "being the owner's role": (
        "ALTER TABLE orders OWNER TO readers; REVOKE SELECT ON orders FROM author",
        "REVOKE readers FROM author",
        "42501",
    ),
}


@pytest.mark.versions
@pytest.mark.parametrize(("left", "lost", "sqlstate"), LOST.values(), ids=LOST)
def test_what_a_role_may_no_more_is_noticed_by_sessions_that_have_plans(
    author: Connection, db: Connection, left: LiteralString, lost: LiteralString, sqlstate: str
) -> None:
    made(author)
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    db.execute(left)
    db.execute("INSERT INTO orders VALUES (101, 1, 5)")
    for name in QUERIES:
        assert differences(db, name) == []
    db.execute(lost)
    with pytest.raises(psycopg.Error) as failure:
        db.execute("INSERT INTO orders VALUES (102, 1, 5)")
    assert failure.value.sqlstate == sqlstate


def test_what_was_revoked_while_the_statement_ran_is_seen_when_its_plan_is_made(
    author: Connection, db: Connection, database: Any
) -> None:
    """The statement's own snapshot still shows the right, and no plan is made anew when the role is left."""
    made(author)
    with several(database, 2) as (writer, other):
        other.run("SELECT pg_advisory_lock(1)")
        waiting = writer.waits(
            """WITH waited AS MATERIALIZED (SELECT pg_advisory_lock(1))
               INSERT INTO orders SELECT 100, 1, 5 FROM waited WHERE waited IS NOT NULL"""
        )
        db.execute("REVOKE SELECT ON orders FROM author")
        other.run("SELECT pg_advisory_unlock(1)")
        waiting.result()
        db.execute("REVOKE readers FROM author")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.run("INSERT INTO orders VALUES (101, 1, 5)")


@pytest.mark.versions
def test_single_rows_where_some_are_hidden(author: Connection, db: Connection) -> None:
    """One of two that an update changes need not be one that its owner sees."""
    db.execute(
        """ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
           CREATE POLICY even ON orders TO author USING (id % 2 = 0)"""
    )
    made(author)
    statements: tuple[LiteralString, ...] = (
        "INSERT INTO orders VALUES (100, 1, 50)",
        "INSERT INTO orders VALUES (101, 1, 60)",
        "UPDATE orders SET amount = 70 WHERE id IN (100, 101)",
        "UPDATE orders SET amount = 80 WHERE id IN (4, 8)",
        "UPDATE orders SET amount = CASE id WHEN 8 THEN 81 ELSE amount END WHERE id IN (4, 8)",
        "UPDATE orders SET id = 103 WHERE id = 100",
        "UPDATE orders SET id = 102 WHERE id = 101",
        "DELETE FROM orders WHERE id = 103",
        "DELETE FROM orders WHERE id = 8",
    )
    for statement in statements:
        db.execute(statement)
        for name in QUERIES:
            assert differences(author, name) == [], statement


@pytest.mark.versions
def test_what_tells_of_lost_rights_is_asked_whatever_its_owner_declares(author: Connection, db: Connection) -> None:
    """It belongs to him, and he may declare it immutable: but a plan can't know what it will say."""
    db.execute("REVOKE SELECT ON orders FROM author, readers; GRANT SELECT (customer_id, amount) ON orders TO readers")
    pg_trickle.create_stream_table(author, "totals", QUERIES["totals"], refresh_mode="IMMEDIATE")
    (check,) = db.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname ~ '^maintain_[0-9]+_check$'"
    ).fetchone() or ("",)
    author.execute(f"ALTER FUNCTION {check} STRICT IMMUTABLE PARALLEL SAFE".encode())
    for _ in range(2):
        db.execute("UPDATE orders SET amount = amount + 1 WHERE id = 1")
    assert differences(db, "totals") == []
    db.execute("REVOKE readers FROM author")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match='maintain stream table "totals"'):
        db.execute("UPDATE orders SET amount = amount + 1 WHERE id = 1")
