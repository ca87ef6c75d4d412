"""Writers of one source of a join have its turn together, and nobody else meanwhile (decision 0010)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.sides.shop import COUNTS, QUERIES, RUN, Connection, check, oid, own_slot, side, warm
from tests.immediate.test_isolation import Session


def test_sharing_is_earned_by_writing_one_source(shop: Connection) -> None:
    warm(shop)
    assert {side(shop, name) for name in QUERIES} == {oid(shop, "orders")}
    check(shop)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_older_snapshots_do_not_earn_it(shop: Connection, level: str) -> None:
    """They never share, and would have to look for who does."""
    shop.execute(f"SET default_transaction_isolation = '{level}'".encode())
    warm(shop)
    assert {side(shop, name) for name in QUERIES} == {None}
    shop.execute("SET default_transaction_isolation = 'read committed'")
    shop.execute("UPDATE orders SET amount = 50 WHERE id = 1")
    assert {side(shop, name) for name in QUERIES} == {oid(shop, "orders")}
    check(shop)


def test_transactions_that_write_several_sources_do_not_earn_it(shop: Connection) -> None:
    for number in range(RUN + 10):
        with shop.transaction():
            shop.execute("UPDATE orders SET amount = %s WHERE id = 1", (number,))
            if number % 50 == 0:
                shop.execute("UPDATE customers SET region = %s WHERE id = 1", (f"r{number}",))
                shop.execute("UPDATE products SET kind = %s WHERE id = 1", (f"k{number}",))
    assert {side(shop, name) for name in QUERIES} == {None}
    check(shop)


def test_writers_of_one_source_do_not_wait(shop: Connection, sessions: tuple[Session, ...]) -> None:
    warm(shop)
    one, two, _ = sessions
    two.run("SET lock_timeout = '2s'")
    for session in (one, two):
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    two.run("UPDATE orders SET amount = 72 WHERE id = 101")
    one.run("UPDATE orders SET amount = 73 WHERE customer = 1")
    two.run("DELETE FROM orders WHERE customer = 2")
    two.run("COMMIT")
    one.run("COMMIT")
    check(shop)


CROSSING: tuple[tuple[LiteralString, LiteralString, LiteralString], ...] = (
    ("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')", "INSERT INTO orders VALUES (101, 1, 1, 71, 'a')", "COMMIT"),
    ("DELETE FROM orders WHERE id = 100", "UPDATE orders SET amount = 5 WHERE id = 101", "ROLLBACK"),
    ("DELETE FROM orders WHERE id = 100", "DELETE FROM orders WHERE id = 101", "COMMIT"),
    ("DELETE FROM orders WHERE product = 1 AND id < 20", "DELETE FROM orders WHERE product = 1", "COMMIT"),
    ("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')", "INSERT INTO orders VALUES (101, 1, 1, 71, 'a')", "COMMIT"),
    ("DELETE FROM orders WHERE customer = 1", "INSERT INTO orders VALUES (102, 1, 1, 71, 'a')", "COMMIT"),
)


def cross(one: Session, two: Session) -> Iterator[None]:
    """Each of two writes one group; the second waits for the first."""
    for first, second, end in CROSSING:
        for session in (one, two):
            session.begin()
        one.run(first)
        waiting = two.waits(second)
        two.is_held_up_by(one)
        one.run(end)
        waiting.result()
        two.run("COMMIT")
        yield


def test_groups_that_two_write_are_added_up(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """The second waits for the group's row alone, and adds to what the first has left there, or gives up."""
    warm(shop)
    one, two, _ = sessions
    for _ in cross(one, two):
        check(shop)


@pytest.fixture
def counts(shop: Connection) -> str:
    """Instead of the others, a stream table that shows all that is counted for it."""
    for name in QUERIES:
        pg_trickle.drop_stream_table(shop, name)
    pg_trickle.create_stream_table(shop, "counts", COUNTS, refresh_mode="IMMEDIATE")
    warm(shop)
    return "counts"


def test_groups_that_show_all_that_is_counted_are_added_up_as_well(
    shop: Connection, sessions: tuple[Session, ...], counts: str
) -> None:
    one, two, other = sessions
    for _ in cross(one, two):
        assert differences(shop, counts) == []
    for session in (one, two):
        session.begin()
    one.run("INSERT INTO orders VALUES (110, 1, 1, 70, 'a')")
    two.run("UPDATE orders SET amount = NULL WHERE customer = 2")
    two.run("UPDATE orders SET customer = 3 WHERE customer = 5")
    waiting = other.waits("UPDATE customers SET region = 'x' WHERE region = 'r1'")
    two.run("DELETE FROM orders WHERE customer IN (2, 8)")
    two.run("COMMIT")
    one.run("COMMIT")
    waiting.result()
    assert differences(shop, counts) == []


@pytest.mark.parametrize(
    ("tampering", "statement"),
    [
        ("DELETE FROM counts", "UPDATE orders SET amount = 90 WHERE id = 9"),
        ("DELETE FROM counts", "DELETE FROM orders WHERE id = 9"),
        ("UPDATE counts SET n = 1", "DELETE FROM orders WHERE customer = 1"),
        ("UPDATE counts SET n = 4 WHERE region = 'r1'", "DELETE FROM orders WHERE customer = 1"),
    ],
)
def test_what_somebody_has_written_to_such_groups_is_noticed(
    shop: Connection, counts: str, tampering: LiteralString, statement: LiteralString
) -> None:
    """Where a group has fewer rows than go, or none and something else."""
    notices: list[str | None] = []
    shop.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    shop.execute(tampering)
    shop.execute(statement)
    assert notices == ['stream table "counts" is recomputed']
    assert differences(shop, counts) == []


@pytest.mark.parametrize(("lower", "higher"), [(3, 1), (3, 2), (1, 2)])
def test_groups_are_locked_in_the_order_of_their_keys(
    shop: Connection, sessions: tuple[Session, ...], lower: int, higher: int
) -> None:
    """Who waits for a group has none that comes after it, whatever it is that he writes."""
    warm(shop)
    one, two, other = sessions
    two.run("SET lock_timeout = '2s'")
    other.begin()
    other.conn.execute("INSERT INTO orders VALUES (100, %s, 1, 70, 'a')", (lower,))
    shop.execute("INSERT INTO orders VALUES (102, %s, 1, 6, 'b'), (103, %s, 1, 7, 'b')", (higher, higher))
    for number, statement in enumerate(
        (
            "UPDATE orders SET amount = amount + 1 WHERE customer IN ({}, {})",
            "INSERT INTO orders VALUES (110, {}, 1, 8, 'b'), (111, {}, 1, 9, 'b')",
            "DELETE FROM orders WHERE customer IN ({}, {}) AND note = 'n'",
        )
    ):
        doing = one.pool.submit(one.conn.execute, sql.SQL(statement).format(sql.Literal(higher), sql.Literal(lower)))
        one.is_held_up_by(other)
        two.conn.execute("INSERT INTO orders VALUES (%s, %s, 1, 71, 'a')", (120 + number, higher))
        other.run("COMMIT")
        doing.result()
        other.begin()
        other.conn.execute("INSERT INTO orders VALUES (%s, %s, 1, 70, 'a')", (130 + number, lower))
    other.run("COMMIT")
    check(shop)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE customers SET region = 'x' WHERE id = 1",
        "DELETE FROM customers WHERE id = 9",
        "INSERT INTO customers VALUES (20, 'x')",
        "WITH a AS (UPDATE customers SET region = 'y' WHERE id = 1) UPDATE orders SET amount = 80 WHERE id = 2",
        "INSERT INTO orders VALUES (2, 1, 1, 90, 'b') ON CONFLICT (id) DO UPDATE SET amount = 90",
    ],
)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_who_writes_another_source_waits_for_all_and_all_for_him(
    shop: Connection, sessions: tuple[Session, ...], statement: LiteralString, end: LiteralString
) -> None:
    """Or a statement whose changes are worked off together."""
    shop.execute("DELETE FROM orders WHERE customer = 9")
    warm(shop)
    one, two, other = sessions
    for session in (one, two):
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    waiting = two.waits(statement)
    one.run(end)
    waiting.result()
    last = other.waits("INSERT INTO orders VALUES (101, 1, 1, 71, 'a')")
    two.run(end)
    last.result()
    check(shop)
    assert side(shop, "joined") == oid(shop, "orders")


def test_who_came_before_those_who_share_waits_after_his_rows(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Nobody shared when he began."""
    warm(shop)
    one, two, other = sessions
    other.begin()
    other.run("SELECT FROM products WHERE id = 1 FOR UPDATE")
    waiting = two.waits("UPDATE products SET kind = 'x' WHERE id = 1")
    two.is_held_up_by(other)
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    other.run("COMMIT")
    two.is_held_up_by(one)
    one.run("COMMIT")
    waiting.result()
    check(shop)


def test_sharing_goes_on_beside_an_exclusive_one_that_came_first(
    shop: Connection, sessions: tuple[Session, ...]
) -> None:
    warm(shop)
    one, two, _ = sessions
    one.begin()
    one.run("UPDATE customers SET region = 'x' WHERE id = 1")
    waiting = two.waits("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    one.run("INSERT INTO orders VALUES (101, 1, 1, 71, 'a')")
    one.run("COMMIT")
    waiting.result()
    assert side(shop, "joined") == oid(shop, "orders")
    check(shop)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE customers SET region = 'x' WHERE id = 1",
        "UPDATE orders SET amount = amount + 1 WHERE id = 3",
        "TRUNCATE orders",
    ],
)
def test_an_older_snapshot_finds_who_has_shared_since(
    shop: Connection, sessions: tuple[Session, ...], level: str, statement: LiteralString
) -> None:
    """Also who had begun before it, and also when sharing has ended by then, and was undone."""
    warm(shop)
    one, two, other = sessions
    for ended in (False, True):
        one.begin()
        one.run("UPDATE orders SET amount = amount + 100 WHERE id = 1")
        two.begin(level)
        two.run("SELECT 1")
        one.run("COMMIT")
        if ended:
            other.begin()
            other.run("UPDATE orders SET amount = 60 WHERE id = 2")
            other.run("UPDATE customers SET region = 'y' WHERE id = 3")
            other.run("ROLLBACK")
            other.begin()
            other.run("UPDATE customers SET region = 'y' WHERE id = 3")
            other.run("ROLLBACK")
            assert side(shop, "regions") == -2
        with pytest.raises(psycopg.errors.SerializationFailure):
            two.run(statement)
        two.run("ROLLBACK")
        two.begin(level)
        two.run("UPDATE orders SET amount = amount + 1 WHERE id = 3")
        two.run("COMMIT")
        check(shop)


def test_who_waits_before_his_statement_is_in_nobodys_way(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """He has no slot while he waits for another, and not the turn that who shares may come to need."""
    warm(shop)
    one, two, other = sorted(sessions, key=lambda session: own_slot(session.conn), reverse=True)
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    waiting = two.waits("UPDATE customers SET region = 'y' WHERE id = 1")
    other.run("SET lock_timeout = '2s'")
    other.run("UPDATE orders SET amount = 60 WHERE id = 2")
    one.run("UPDATE orders SET amount = 61 WHERE id = 2")
    one.run("UPDATE customers SET region = 'x' WHERE id = 2")
    one.run("COMMIT")
    waiting.result()
    check(shop)


def test_a_prepared_transaction_goes_on_sharing(shop: Connection, sessions: tuple[Session, ...]) -> None:
    warm(shop)
    one, two, other = sessions
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    one.run("PREPARE TRANSACTION 'shared'")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    waiting = other.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    two.run("COMMIT PREPARED 'shared'")
    waiting.result()
    check(shop)


def test_who_has_waited_with_others_does_not_go_on_one_by_one(shop: Connection, sessions: tuple[Session, ...]) -> None:
    warm(shop)
    one, two, other = sessions
    other.begin()
    other.run("UPDATE customers SET region = 'x' WHERE id = 1")
    for session in (one, two):
        session.begin()
    doing = [
        one.waits("INSERT INTO orders VALUES (100, 2, 1, 70, 'a')"),
        two.waits("INSERT INTO orders VALUES (101, 3, 1, 71, 'a')"),
    ]
    other.run("COMMIT")
    for statement in doing:
        statement.result()
    two.run("COMMIT")
    one.run("COMMIT")
    check(shop)


@pytest.mark.parametrize(
    ("query", "sources"),
    [
        (QUERIES["joined"], {"orders"}),
        (QUERIES["regions"], {"customers", "orders"}),
        (COUNTS, {"customers", "orders"}),
        ("SELECT o.id, c.id AS customer FROM orders AS o JOIN customers AS c ON c.id = o.customer", {"orders"}),
        ("SELECT o.id, p.id AS product FROM orders AS o JOIN products AS p ON p.id < o.amount", {"orders", "products"}),
        ("SELECT o.amount, c.region FROM orders AS o JOIN customers AS c ON c.id = o.customer", set()),
        ("SELECT o.id, c.region FROM orders AS o LEFT JOIN customers AS c ON c.id = o.customer", set()),
        ("SELECT a.id, b.id AS other FROM orders AS a JOIN orders AS b ON a.amount = b.customer", set()),
        ("SELECT DISTINCT c.region, o.amount FROM orders AS o JOIN customers AS c ON c.id = o.customer", set()),
        ("SELECT o.id FROM orders AS o WHERE EXISTS (SELECT FROM customers AS c WHERE c.id = o.customer)", set()),
        (
            "SELECT c.region, max(amount) AS most FROM orders AS o JOIN customers AS c ON c.id = customer GROUP BY 1",
            set(),
        ),
        (
            "SELECT c.region, avg(o.amount) AS m FROM orders AS o JOIN customers AS c ON c.id = o.customer GROUP BY 1"
            " HAVING count(*) > 2",
            set(),
        ),
        ("SELECT o.id, c.region, 100 / o.amount AS x FROM orders AS o JOIN customers AS c ON c.id = o.customer", set()),
        ("SELECT o.id, r.n FROM orders AS o JOIN regions AS r ON r.n = o.amount", set()),
    ],
)
def test_whose_writers_may_share(shop: Connection, query: str, sources: set[str]) -> None:
    """Only where changes of one source commute in all that they write."""
    pg_trickle.create_stream_table(shop, "other", query, refresh_mode="IMMEDIATE")
    found = shop.execute(
        """SELECT s.oid::oid::regclass::text FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
            CROSS JOIN LATERAL jsonb_array_elements_text(plan #> '{programs,immediate,shared}') AS s(oid)
            WHERE pgt_name = 'other'"""
    )
    assert {name for (name,) in found} == sources
