"""How it is known which statements are under way: by when a message came, and by notes of what it calls."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from tests.immediate.conftest import QUERIES, SHOP, Connection, Shop

# Writes the other side of the join, from wherever it is called.
CALLED: LiteralString = """
    CREATE FUNCTION move(customer int, fails bool) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
        UPDATE customers SET region = region || '+' WHERE id = customer;
        IF fails THEN PERFORM 1 / 0; END IF;
        RETURN customer;
    EXCEPTION WHEN division_by_zero THEN RETURN customer; END $$;
    CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.note IN ('fail', 'again') THEN PERFORM move(NEW.customer_id, true); END IF;
        IF NEW.note IN ('call', 'again') THEN PERFORM move(NEW.customer_id, false); END IF;
        RETURN NULL; END $$;
    CREATE TRIGGER moved AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION moved();
"""


@pytest.fixture
def joined(db: Connection) -> Shop:
    """Stream tables that take notes, one that takes turns and one that doesn't, and functions that write."""
    db.execute(SHOP)
    shop = Shop(db)
    for name in ("joined", "regions", "extremes"):
        shop.add(name, QUERIES[name])
    db.execute(CALLED)
    return shop


def written(conn: Connection) -> int:
    """How many notes the transaction has written by now."""
    row = conn.execute(
        "SELECT sum(pg_stat_get_xact_tuples_inserted(oid))::int FROM pg_class WHERE relname ~ '^under_way_[0-9]+$'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_statement_that_a_client_sends_writes_no_note(joined: Shop) -> None:
    with joined.conn.transaction():
        before = written(joined.conn)
        joined.run(
            "INSERT INTO orders VALUES (100, 1, 7, 'a')",
            "UPDATE orders SET amount = 8 WHERE id = 100",
            "UPDATE customers SET region = 'there' WHERE id = 1",
            "DELETE FROM orders WHERE id = 100",
        )
        assert written(joined.conn) == before
        joined.run("SELECT move(1, false)")
        assert written(joined.conn) == before + 2


@pytest.mark.parametrize("note", ["call", "fail", "again"])
def test_what_it_calls_knows_of_it(joined: Shop, note: str) -> None:
    """Also where what was noted was undone meanwhile."""
    for number in (100, 101):
        joined.conn.execute("INSERT INTO orders VALUES (%s, 3, 1, %s)", (number, note))
        joined.check()
    joined.conn.execute("INSERT INTO orders SELECT g, g %% 9 + 1, 1, %s FROM generate_series(102, 104) AS g", (note,))
    joined.check()
    joined.run("SELECT move(3, true), move(4, false)", "UPDATE orders SET amount = 6 WHERE id = 101")


@pytest.mark.parametrize("before", ["", "PERFORM move(1, false);", "PERFORM move(1, true);"])
def test_a_session_that_forgets_within_a_statement_recomputes_at_its_end(joined: Shop, before: LiteralString) -> None:
    joined.conn.execute(
        """CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               """
        + before
        + """ EXECUTE 'DISCARD SEQUENCES'; INSERT INTO customers VALUES (NEW.customer_id, 'new'); RETURN NULL; END $$;
           CREATE TRIGGER "A first" AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION forget()"""
    )
    joined.run("INSERT INTO orders VALUES (100, 50, 1, 'x')", "INSERT INTO orders VALUES (101, 51, 1, 'call')")


@pytest.mark.parametrize(
    "message",
    [
        "INSERT INTO orders VALUES (100, 3, 1, 'x'); SELECT move(3, false), move(4, true), move(5, false)",
        "INSERT INTO orders VALUES (100, 3, 1, 'call'); DELETE FROM orders WHERE id = 9; SELECT move(3, false)",
        "SELECT move(3, false); INSERT INTO orders VALUES (100, 3, 1, 'again'); UPDATE customers SET region = 'c'",
        """DO $$ BEGIN PERFORM move(3, true); INSERT INTO orders VALUES (100, 3, 1, 'again'); PERFORM move(3, false);
           END $$""",
        """WITH a AS (INSERT INTO customers VALUES (50, 'new')), b AS (INSERT INTO orders VALUES (100, 50, 5, 'again'))
           SELECT move(4, false)""",
    ],
)
def test_a_message_of_several_statements(joined: Shop, message: LiteralString) -> None:
    joined.run(message, message.replace("100", "101").replace("50", "51"))


def test_a_statement_that_failed_is_not_under_way(joined: Shop) -> None:
    for then in ("SELECT move(1, false)", "UPDATE customers SET region = 'x' WHERE id = 1", "DELETE FROM orders"):
        joined.conn.execute("BEGIN; SAVEPOINT s")
        with pytest.raises(psycopg.errors.UniqueViolation):
            joined.conn.execute("INSERT INTO orders SELECT 1, 1, 1, 'call' FROM generate_series(1, 2)")
        joined.conn.execute("ROLLBACK TO s")
        joined.run(then, "COMMIT")


@pytest.mark.versions
def test_messages_one_after_the_other_without_waiting(joined: Shop) -> None:
    with joined.conn.pipeline():
        for number in range(100, 120):
            joined.conn.execute(
                "INSERT INTO orders VALUES (%s, %s, 1, %s)", (number, number % 9 + 1, "call" if number % 3 else "x")
            )
    joined.check()
