"""Who shares a turn and comes to another source ends it for all; what he takes back is taken into account (0010)."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.sides.shop import SLOTS, Connection, check, lock_slots, oid, own_slot, side, warm
from tests.immediate.test_isolation import Session


def test_coming_to_another_source_ends_sharing(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Whoever shares with it is waited for; from then on the turn is one transaction's, as before."""
    warm(shop)
    one, two, other = sessions
    for session in (one, two):
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    waiting = one.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    two.run("UPDATE orders SET amount = 72 WHERE id = 101")
    last = other.waits("INSERT INTO orders VALUES (102, 3, 1, 72, 'a')")
    two.run("COMMIT")
    waiting.result()
    one.run("COMMIT")
    last.result()
    assert side(shop, "regions") == -2
    warm(shop)
    assert side(shop, "regions") == -2
    check(shop)


def test_back_to_a_savepoint_it_shares_as_before(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Its having the turn whole is undone; what it wrote while it shared isn't, so it is waited for."""
    pg_trickle.drop_stream_table(shop, "regions")
    warm(shop)
    one, two, other = sessions
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    one.run("SAVEPOINT before")
    one.run("UPDATE customers SET region = 'x' WHERE id = 2")
    one.run("ROLLBACK TO before")
    waiting = two.waits("UPDATE customers SET region = 'y' WHERE id = 1")
    last = other.waits("INSERT INTO orders VALUES (101, 1, 1, 71, 'a')")
    two.is_held_up_by(one)
    one.run("INSERT INTO orders VALUES (102, 1, 1, 72, 'a')")
    one.run("COMMIT")
    waiting.result()
    last.result()
    assert differences(shop, "joined") == []
    assert side(shop, "joined") == -2


def test_who_has_to_try_again_has_ended_sharing(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Or he would meet somebody again and again."""
    warm(shop)
    one, two, other = sessions
    other.begin()
    other.run("SELECT FROM customers WHERE id = 1 FOR UPDATE")
    waiting = two.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    two.is_held_up_by(other)
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 3, 1, 70, 'a')")
    other.run("COMMIT")
    two.is_held_up_by(one)
    with pytest.raises(psycopg.errors.SerializationFailure, match='stream table "regions"'):
        one.run("UPDATE customers SET region = 'y' WHERE id = 2")
    one.run("ROLLBACK")
    waiting.result()
    assert side(shop, "regions") == -2
    check(shop)


def test_who_gets_a_slot_while_sharing_ends_still_shares(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """None was free, so he has waited; by then another has come to another source, and waits for him."""
    warm(shop)
    one, two, other = sessions
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    other.begin()
    lock_slots(other, "regions", *(number for number in range(SLOTS) if number != own_slot(two.conn)))
    other.run("SAVEPOINT before")
    lock_slots(other, "regions", own_slot(one.conn))
    waiting = two.waits("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    other.run("ROLLBACK TO before")
    coming = one.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    other.run("COMMIT")
    waiting.result()
    coming.result()
    one.run("COMMIT")
    check(shop)


def test_who_gets_a_slot_when_nobody_looks_at_slots_any_more(
    database: Any, shop: Connection, sessions: tuple[Session, ...]
) -> None:
    """He had read that turns are shared; now he has to take it whole, or he would be missed."""
    pg_trickle.drop_stream_table(shop, "regions")
    warm(shop)
    one, two, other = sessions
    of_order, of_customer, of_slots = (Session(database.connect(), one.watcher, one.pool) for _ in range(3))
    for session, rows in ((of_order, "orders WHERE id = 5"), (of_customer, "customers WHERE id = 1")):
        session.begin()
        session.conn.execute(f"SELECT FROM {rows} FOR UPDATE".encode())
    coming = other.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    two.begin()
    waiting = two.waits("UPDATE orders SET amount = 50, customer = 2 WHERE id = 5")
    # Who locks all slots has all others by the time he waits for the last.
    of_slots.begin()
    lock_slots(of_slots, "joined", SLOTS - 1)
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 3, 1, 70, 'a')")
    of_slots.run("COMMIT")
    of_customer.run("COMMIT")
    other.is_held_up_by(one)
    of_order.run("COMMIT")
    two.is_held_up_by(other)
    with pytest.raises(psycopg.errors.SerializationFailure):
        one.run("UPDATE customers SET region = 'y' WHERE id = 3")
    one.run("ROLLBACK")
    coming.result()
    waiting.result()
    assert side(shop, "joined") == -2
    last = other.waits("UPDATE customers SET region = 'z' WHERE id = 2")
    other.is_held_up_by(two)
    two.run("COMMIT")
    last.result()
    assert differences(shop, "joined") == []


def test_two_that_come_to_another_source_at_once(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Neither can go first: the second is told to try again, and which stream table it is about."""
    warm(shop)
    one, two, _ = sessions
    for session in (one, two):
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    waiting = one.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    with pytest.raises(psycopg.errors.SerializationFailure, match='stream table "regions"'):
        two.run("UPDATE customers SET region = 'y' WHERE id = 2")
    two.run("ROLLBACK")
    waiting.result()
    one.run("COMMIT")
    check(shop)


def test_who_comes_to_another_source_while_he_is_waited_for(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """What he would wait for is what waits for him: PostgreSQL finds that, and the stream table is named."""
    warm(shop)
    one, two, _ = sessions
    for session in (one, two):
        session.begin()
    one.run("SET LOCAL deadlock_timeout = '50ms'")
    two.run("SET LOCAL deadlock_timeout = '1h'")
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    waiting = two.waits("INSERT INTO orders VALUES (102, 1, 1, 72, 'a')")
    two.is_held_up_by(one)
    with pytest.raises(psycopg.errors.SerializationFailure, match='stream table "regions"'):
        one.run("UPDATE customers SET region = 'x' WHERE id = 1")
    one.run("ROLLBACK")
    waiting.result()
    two.run("COMMIT")
    check(shop)


def test_what_was_given_up_is_not_waited_for(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Back to a savepoint before it shared, a transaction may come to any source."""
    warm(shop)
    one, two, _ = sessions
    one.begin()
    one.run("SAVEPOINT before")
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    one.run("ROLLBACK TO before")
    two.run("SET lock_timeout = '2s'")
    two.run("UPDATE customers SET region = 'x' WHERE id = 1")
    one.run("UPDATE customers SET region = 'y' WHERE id = 2")
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    one.run("COMMIT")
    assert side(shop, "regions") == oid(shop, "orders")
    check(shop)


def test_rows_that_go_missing_are_found_alone(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Who shares and has to recompute takes the turn whole first."""
    warm(shop)
    one, two, _ = sessions
    shop.execute("DELETE FROM joined WHERE id = 7")
    two.begin()
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    waiting = one.waits("DELETE FROM orders WHERE id = 7")
    two.run("COMMIT")
    waiting.result()
    assert side(shop, "joined") == -1
    check(shop)
