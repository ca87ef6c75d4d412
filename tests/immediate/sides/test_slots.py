"""Who shares a turn has a slot, his session's own or any that is free; he waits for nobody's (decision 0010)."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.sides.conftest import with_one_slot
from tests.immediate.sides.shop import Connection, check, lock_slots, oid, own_slot, side, warm
from tests.immediate.test_isolation import Session


@pytest.fixture
def both(database: Any, sessions: tuple[Session, ...]) -> tuple[Session, Session]:
    """Two sessions whose own slot is the same."""
    one = sessions[0]
    two = Session(with_one_slot(database, one.conn), one.watcher, one.pool)
    two.run("SET lock_timeout = '60s'")
    return one, two


def test_of_two_sessions_with_one_slot_nobody_waits(shop: Connection, both: tuple[Session, Session]) -> None:
    """Or who has it couldn't go on to a row that the other, who waits for it, has locked."""
    warm(shop)
    one, two = both
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    doing = two.pool.submit(two.conn.execute, "UPDATE orders SET amount = 60 WHERE id = 2")
    while not doing.done() and not two.waits_for():
        pass
    one.run("UPDATE orders SET amount = 61 WHERE id = 2")
    doing.result()
    one.run("COMMIT")
    check(shop)


def test_whatever_slot_they_have_all_who_share_are_waited_for(
    shop: Connection, both: tuple[Session, Session], sessions: tuple[Session, ...]
) -> None:
    """The second has another's slot; he goes on to share with that, and whoever wants the turn whole waits for him."""
    warm(shop)
    one, two = both
    for session in both:
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    one.run("COMMIT")
    waiting = sessions[2].waits("UPDATE customers SET region = 'x' WHERE id = 2")
    sessions[2].is_held_up_by(two)
    two.run("INSERT INTO orders VALUES (102, 2, 1, 72, 'a')")
    two.run("COMMIT")
    waiting.result()
    check(shop)


def test_whatever_slot_he_has_who_comes_to_another_source_ends_sharing(
    shop: Connection, both: tuple[Session, Session]
) -> None:
    warm(shop)
    one, two = both
    for session in both:
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    waiting = two.waits("UPDATE customers SET region = 'x' WHERE id = 2")
    with pytest.raises(psycopg.errors.SerializationFailure, match="for one source"):
        one.run("UPDATE customers SET region = 'y' WHERE id = 1")
    one.run("ROLLBACK")
    waiting.result()
    two.run("INSERT INTO orders VALUES (102, 2, 1, 72, 'a')")
    two.run("COMMIT")
    assert side(shop, "regions") == -1
    check(shop)


def test_a_slot_that_was_given_up_is_not_waited_for(shop: Connection, both: tuple[Session, Session]) -> None:
    warm(shop)
    one, two = both
    for session in both:
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    two.run("SAVEPOINT before")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    two.run("ROLLBACK TO before")
    one.run("SET LOCAL lock_timeout = '2s'")
    one.run("UPDATE customers SET region = 'x' WHERE id = 1")
    one.run("COMMIT")
    two.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    two.run("COMMIT")
    check(shop)


def test_whose_transaction_is_prepared_goes_on_with_another_slot(
    shop: Connection, sessions: tuple[Session, ...]
) -> None:
    warm(shop)
    one, two, _ = sessions
    one.run("SET lock_timeout = '2s'")
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    one.run("PREPARE TRANSACTION 'first'")
    one.begin()
    one.run("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    one.run("PREPARE TRANSACTION 'second'")
    waiting = two.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    one.run("COMMIT PREPARED 'first'")
    assert two.waits_for()
    one.run("COMMIT PREPARED 'second'")
    waiting.result()
    check(shop)


def test_where_no_slot_is_free_his_own_is_waited_for(shop: Connection, sessions: tuple[Session, ...]) -> None:
    warm(shop)
    one, two, other = sessions
    other.begin()
    lock_slots(other, "joined", own_slot(one.conn))
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    waiting = two.waits("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    two.is_held_up_by(other)
    other.run("COMMIT")
    waiting.result()
    one.run("COMMIT")
    assert side(shop, "joined") == oid(shop, "orders")
    check(shop)


def test_as_many_share_as_there_are_free_slots(database: Any, shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Whatever their sessions' own slots are."""
    pg_trickle.drop_stream_table(shop, "regions")
    warm(shop)
    other = sessions[0]
    other.begin()
    lock_slots(other, "joined", *range(100, 120))
    sharing = []
    for number in range(20):
        conn = database.connect()
        conn.execute("SET lock_timeout = '2s'; BEGIN")
        conn.execute("INSERT INTO orders VALUES (%s, %s, 1, %s, 'a')", (100 + number, number % 9 + 1, number))
        conn.execute("UPDATE orders SET amount = 10 WHERE id = %s", (100 + number,))
        sharing.append(conn)
    other.run("COMMIT")
    for conn in sharing:
        conn.execute("COMMIT")
    assert differences(shop, "joined") == []


def test_updates_in_one_order_never_deadlock(shop: Connection, both: tuple[Session, Session]) -> None:
    """As on ordinary tables, also where sessions have one slot: each row of the join is one order's."""
    pg_trickle.drop_stream_table(shop, "regions")
    warm(shop)

    def update(session: Session, seed: int) -> None:
        chance = random.Random(seed)
        for number in range(100):
            with session.conn.transaction():
                for order in sorted(chance.sample((2, 3, 4), chance.randint(1, 3))):
                    session.conn.execute("UPDATE orders SET amount = %s WHERE id = %s", (number + 3, order))

    for doing in [session.pool.submit(update, session, seed) for seed, session in enumerate(both)]:
        doing.result()
    assert differences(shop, "joined") == []
