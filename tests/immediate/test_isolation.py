"""Several sessions at once: whatever was committed, in whatever order, IMMEDIATE stream tables are their queries."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest

import pg_trickle
from tests.immediate.conftest import QUERIES, Shop, made

Connection = psycopg.Connection[tuple[Any, ...]]

LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
# Seconds after which a session that should wait for another is said not to.
PATIENCE = 60
# Stream tables that are maintained under the locks of their rows alone.
BY_ROWS = ("totals", "counted", "dear", "kinds", "often", "extremes", "spans", "lists")


class Session:
    """A session whose statements may have to wait for another's."""

    def __init__(self, conn: Connection, watcher: Connection, pool: ThreadPoolExecutor) -> None:
        self.conn = conn
        self.watcher = watcher
        self.pool = pool

    def begin(self, level: str = "READ COMMITTED") -> None:
        self.conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())

    def run(self, statement: LiteralString) -> None:
        self.conn.execute(statement)

    def waits(self, statement: LiteralString) -> Future[Any]:
        """A statement that has to wait for somebody."""
        doing = self.pool.submit(self.conn.execute, statement)
        while not doing.done():
            if self.waits_for():
                return doing
        doing.result()
        raise AssertionError(f"nobody was in the way of {statement}")

    def is_held_up_by(self, other: Session) -> None:
        """Wait until it waits for that one, and no other."""
        until = time.monotonic() + PATIENCE
        while self.waits_for() != [other.conn.info.backend_pid]:
            if time.monotonic() > until:
                raise AssertionError("\n".join(self.waiting()))

    def waits_for(self) -> list[int]:
        """The processes that are in its way."""
        (pids,) = self.watcher.execute("SELECT pg_blocking_pids(%s)", (self.conn.info.backend_pid,)).fetchone() or ([],)
        return list(pids)

    def waiting(self) -> list[str]:
        """What every session does, and who waits for whom."""
        return [
            f"{pid} ({state}) waits for {blockers}: {query}"
            for pid, state, blockers, query in self.watcher.execute(
                """SELECT pid, state, pg_blocking_pids(pid), query FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"""
            )
        ]


@contextmanager
def several(database: Any, count: int) -> Iterator[tuple[Session, ...]]:
    with ThreadPoolExecutor(count) as pool:
        watcher = database.connect()
        yield tuple(Session(database.connect(), watcher, pool) for _ in range(count))


@pytest.fixture
def sessions(database: Any, shop: Shop) -> Iterator[tuple[Session, ...]]:
    del shop
    with several(database, 2) as both:
        yield both


def only(shop: Shop, *names: str) -> None:
    """Without the other stream tables, which may make a writer wait."""
    for name in [name for name in shop.names if name not in names]:
        pg_trickle.drop_stream_table(shop.conn, name)
        shop.names.remove(name)


def test_writers_of_different_groups_do_not_wait(shop: Shop, sessions: tuple[Session, Session]) -> None:
    only(shop, "totals", "counted", "dear", "often", "extremes", "lists")
    one, two = sessions
    two.run("SET lock_timeout = '2s'")
    for session in sessions:
        session.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 70, 'a')")
    two.run("INSERT INTO orders VALUES (101, 2, 70, 'a')")
    one.run("UPDATE orders SET amount = amount + 1 WHERE customer_id = 1")
    two.run("DELETE FROM orders WHERE customer_id = 2")
    one.run("INSERT INTO customers VALUES (20, 'x')")
    one.run("INSERT INTO orders VALUES (102, 20, 1, 'first of its group')")
    two.run("COMMIT")
    one.run("COMMIT")
    shop.check()


CROSSING: dict[str, tuple[LiteralString, LiteralString]] = {
    "the same group": (
        "INSERT INTO orders VALUES (100, 1, 70, 'a')",
        "INSERT INTO orders VALUES (101, 1, 71, 'b')",
    ),
    "the first row of a group, twice": (
        "INSERT INTO orders VALUES (100, NULL, 70, 'new')",
        "INSERT INTO orders VALUES (101, NULL, 71, 'new')",
    ),
    "the last row goes, another comes": (
        "DELETE FROM orders WHERE customer_id = 3",
        "INSERT INTO orders VALUES (101, 3, 71, 'b')",
    ),
    "a row comes, the last of the others goes": (
        "INSERT INTO orders VALUES (101, 3, 71, 'b')",
        "DELETE FROM orders WHERE customer_id = 3 AND id < 100",
    ),
    "two halves of a group go": (
        "DELETE FROM orders WHERE customer_id = 4 AND id % 2 = 0",
        "DELETE FROM orders WHERE customer_id = 4 AND id % 2 = 1",
    ),
    "just enough to be shown, and not any more": (
        "INSERT INTO orders VALUES (100, 6, 70, 'a'), (101, 6, 70, 'a')",
        "DELETE FROM orders WHERE customer_id = 6 AND id < 30",
    ),
    "the extreme goes, twice": (
        "DELETE FROM orders WHERE id = (SELECT max(id) FROM orders WHERE customer_id = 5)",
        "DELETE FROM orders WHERE id = (SELECT min(id) FROM orders WHERE customer_id = 5)",
    ),
    "both sides of a join": (
        "UPDATE customers SET region = 'moved' WHERE id = 7",
        "INSERT INTO orders VALUES (100, 7, 1, 'a')",
    ),
    "both sides of a self-join": (
        "INSERT INTO orders VALUES (100, 8, 70, 'a')",
        "INSERT INTO orders VALUES (101, 8, 71, 'b')",
    ),
}


@pytest.mark.parametrize("level", LEVELS)
def test_two_writers_of_what_belongs_together(shop: Shop, sessions: tuple[Session, Session], level: str) -> None:
    """In READ COMMITTED the second waits and is right; with an older snapshot it is told to try again."""
    one, two = sessions
    for name, (first, second) in CROSSING.items():
        for session in sessions:
            session.begin(level)
        two.run("SELECT count(*) FROM orders")
        one.run(first)
        waiting = two.waits(second)
        one.run("COMMIT")
        if level == "READ COMMITTED":
            waiting.result()
            two.run("COMMIT")
        else:
            with pytest.raises(psycopg.errors.SerializationFailure):
                waiting.result()
            two.run("ROLLBACK")
            two.run(second)
        shop.check()
        shop.run(
            "DELETE FROM orders WHERE id >= 100",
            "UPDATE customers SET region = 'r' || id % 3",
            "INSERT INTO orders SELECT g, g % 9 + 1, g, 'n' FROM generate_series(1, 40) AS g ON CONFLICT DO NOTHING",
        )
        assert name


@pytest.mark.parametrize("level", LEVELS)
def test_row_locks_are_enough(shop: Shop, sessions: tuple[Session, Session], level: str) -> None:
    """The same with those stream tables alone that nobody has to wait for as a whole."""
    only(shop, *BY_ROWS)
    one, two = sessions
    for first, second in CROSSING.values():
        for session in sessions:
            session.begin(level)
        two.run("SELECT count(*) FROM orders")
        one.run(first)
        doing = two.pool.submit(two.conn.execute, second)
        while not doing.done() and not shop.one("SELECT cardinality(pg_blocking_pids(%s))", two.conn.info.backend_pid):
            continue
        one.run("COMMIT")
        try:
            doing.result()
            two.run("COMMIT")
        except psycopg.errors.SerializationFailure:
            assert level != "READ COMMITTED"
            two.run("ROLLBACK")
        shop.check()
        shop.run("DELETE FROM orders WHERE id >= 100")
        shop.run(
            "INSERT INTO orders SELECT g, g % 9 + 1, g, 'n' FROM generate_series(1, 40) AS g ON CONFLICT DO NOTHING"
        )


@pytest.mark.parametrize("level", LEVELS)
def test_truncating_what_an_older_snapshot_does_not_see(
    shop: Shop, sessions: tuple[Session, Session], level: str
) -> None:
    """TRUNCATE removes rows that its transaction can't see; so does the maintenance."""
    only(shop, *BY_ROWS)
    shop.add("below", "SELECT n, count(*) AS groups FROM counted GROUP BY n")
    one, two = sessions
    two.begin(level)
    two.run("SELECT count(*) FROM orders")
    one.run("INSERT INTO orders VALUES (100, NULL, 70, 'new'), (101, 5, 70, 'new')")
    two.run("TRUNCATE orders")
    two.run("INSERT INTO orders VALUES (102, 5, 70, 'after')")
    two.run("COMMIT")
    shop.check()
    shop.run("INSERT INTO orders VALUES (103, 5, 70, 'x')", "DELETE FROM orders WHERE id = 102")


def test_a_rolled_back_writer_is_forgotten_by_who_waited(shop: Shop, sessions: tuple[Session, Session]) -> None:
    one, two = sessions
    for session in sessions:
        session.begin()
    one.run("DELETE FROM orders WHERE customer_id = 3")
    waiting = two.waits("INSERT INTO orders VALUES (101, 3, 71, 'b')")
    one.run("ROLLBACK")
    waiting.result()
    two.run("COMMIT")
    shop.check()


STATEMENTS: list[LiteralString] = [
    """INSERT INTO orders VALUES (%(id)s, %(customer)s, %(amount)s, %(note)s)
           ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, note = excluded.note""",
    """INSERT INTO orders SELECT g, g %% 12 + 1, %(amount)s, 'many' FROM generate_series(%(id)s, %(id)s + 9) AS g
           ON CONFLICT DO NOTHING""",
    "UPDATE orders SET amount = amount + 1 WHERE customer_id = %(customer)s",
    "UPDATE orders SET customer_id = %(customer)s WHERE id = %(id)s",
    "DELETE FROM orders WHERE id = %(id)s",
    "DELETE FROM orders WHERE id BETWEEN %(id)s AND %(id)s + 5",
    "UPDATE customers SET region = %(note)s WHERE id = %(customer)s",
    """WITH c AS (UPDATE customers SET region = 'w' WHERE id = %(customer)s)
       DELETE FROM orders WHERE customer_id = %(customer)s AND id < %(id)s""",
    "UPDATE orders SET note = %(note)s WHERE id < %(id)s AND customer_id = %(customer)s",
    # Two changes of one table at once, which are held back.
    """WITH gone AS (DELETE FROM orders WHERE id BETWEEN %(id)s AND %(id)s + 1 RETURNING *)
       INSERT INTO orders SELECT id + 200, %(customer)s, amount + 1, note FROM gone ON CONFLICT DO NOTHING""",
    "DELETE FROM orders WHERE id >= 200 AND amount > %(amount)s",
]
TRY_AGAIN = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected, psycopg.errors.IntegrityError)


def _writes(conn: Connection, seed: int, transactions: int) -> int:
    """Random transactions; how many were committed."""
    chance = random.Random(seed)
    committed = 0
    for _ in range(transactions):
        try:
            conn.execute(f"BEGIN ISOLATION LEVEL {chance.choice(LEVELS)}".encode())
            for _ in range(chance.choice((1, 1, 2, 3))):
                values = {
                    "id": chance.randrange(1, 120),
                    "customer": chance.randrange(1, 13),
                    "amount": chance.randrange(1, 9),
                    "note": chance.choice("abc"),
                }
                conn.execute(chance.choice(STATEMENTS), values)
            conn.execute(chance.choice((b"COMMIT", b"COMMIT", b"COMMIT", b"ROLLBACK")))
            committed += 1
        except TRY_AGAIN:
            conn.execute("ROLLBACK")
    return committed


def _soak(database: Any, writers: int, transactions: int, meanwhile: Callable[[], None]) -> int:
    with ThreadPoolExecutor(writers) as pool:
        doing = [pool.submit(_writes, database.connect(), seed, transactions) for seed in range(writers)]
        meanwhile()
        return sum(one.result() for one in doing)


def test_many_writers(shop: Shop, database: Any) -> None:
    shop.conn.execute("INSERT INTO customers SELECT g, 'r' FROM generate_series(10, 12) AS g")
    assert _soak(database, 4, 60, lambda: None) > 60
    shop.check()


def test_many_writers_and_row_locks(shop: Shop, database: Any) -> None:
    only(shop, *BY_ROWS)
    shop.conn.execute("INSERT INTO customers SELECT g, 'r' FROM generate_series(10, 12) AS g")
    assert _soak(database, 4, 150, lambda: None) > 200
    shop.check()


def test_changing_modes_under_writers(shop: Shop, database: Any) -> None:
    """Nothing is lost on the way to IMMEDIATE and back, suspended and resumed, repaired and recomputed."""
    only(shop, "regions", "totals", "dear")
    shop.conn.execute("INSERT INTO customers SELECT g, 'r' FROM generate_series(10, 12) AS g")

    def again(action: Callable[..., None], *arguments: Any, **named: Any) -> None:
        while True:
            try:
                return action(shop.conn, *arguments, **named)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                continue

    def turn() -> None:
        for mode in ("AUTO", "IMMEDIATE", "FULL", "IMMEDIATE"):
            for name in shop.names:
                again(pg_trickle.alter_stream_table, name, refresh_mode=mode)
                again(pg_trickle.refresh_stream_table, name)
        for name in shop.names:
            again(pg_trickle.suspend_stream_table, name)
            again(pg_trickle.resume_stream_table, name)

    _soak(database, 3, 100, turn)
    shop.check()


# Row 1 is the only one of its kind, and so is row 2.
MOVES: list[tuple[LiteralString, LiteralString]] = [
    ("UPDATE orders SET note = 'b' WHERE id = 1", "UPDATE orders SET note = 'a' WHERE id = 2"),
    ("UPDATE orders SET note = 'b' WHERE id = 1", "UPDATE orders SET note = 'c' WHERE id = 2"),
    ("UPDATE orders SET note = 'b' WHERE id = 1", "DELETE FROM orders WHERE id = 2"),
    ("DELETE FROM orders WHERE id = 1", "UPDATE orders SET note = 'a' WHERE id = 2"),
    ("INSERT INTO orders VALUES (100, 1, 1, 'b')", "UPDATE orders SET note = 'c' WHERE id = 2"),
    ("UPDATE orders SET note = 'c' WHERE id = 1", "UPDATE orders SET note = 'c' WHERE id = 2"),
    ("UPDATE orders SET note = 'c' WHERE id = 1", "INSERT INTO orders VALUES (100, 1, 1, 'a')"),
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_rows_are_moved_from_and_to_one_group(database: Any, db: Connection, ending: LiteralString, level: str) -> None:
    shop = made(db, {"kinds": QUERIES["kinds"]})
    with several(database, 2) as (one, two):
        for first, second in MOVES:
            shop.run("UPDATE orders SET note = chr(96 + id) WHERE id < 3")
            one.begin(level)
            one.run(first)
            two.begin(level)
            two.run("SELECT count(*) FROM orders")
            waiting = two.waits(second)
            one.run(ending)
            failed = waiting.exception()
            two.run("COMMIT" if failed is None else "ROLLBACK")
            shop.check()
            if failed is not None:
                assert isinstance(failed, psycopg.errors.SerializationFailure)
                assert (level == "READ COMMITTED", ending) == (False, "COMMIT")
            shop.run("DELETE FROM orders WHERE id < 3 OR id = 100", "INSERT INTO orders VALUES (1, 1, 1), (2, 1, 1)")


def test_rows_that_change_places_wait_for_their_groups_in_one_order(database: Any, db: Connection) -> None:
    shop = made(db, {"kinds": QUERIES["kinds"]})
    shop.run("UPDATE orders SET note = 'a' WHERE id = 1", "UPDATE orders SET note = 'b' WHERE id IN (2, 3)")
    with several(database, 3) as (one, two, three):
        one.begin()
        one.run("UPDATE orders SET note = 'c' WHERE id = 3")
        second = two.waits("UPDATE orders SET note = 'a' WHERE id = 2")
        third = three.waits("UPDATE orders SET note = 'b' WHERE id = 1")
        one.run("COMMIT")
        second.result()
        third.result()
    shop.check()


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_an_extreme_comes_to_a_group_to_which_another_brings_one(
    database: Any, db: Connection, ending: LiteralString
) -> None:
    """Whether a row is an extreme is told by what the group holds when the other one has ended."""
    shop = made(db, {"extremes": QUERIES["extremes"]})
    with several(database, 2) as (one, two):
        for first, second in ((900, 800), (901, 902), (-900, -800), (-901, -902)):
            one.begin()
            one.conn.execute("INSERT INTO orders VALUES (%s, 3, %s)", (1000 + first, first))
            waiting = two.waits(f"INSERT INTO orders VALUES ({1000 + second}, 3, {second})")
            one.run(ending)
            waiting.result()
            shop.check()
            shop.run("DELETE FROM orders WHERE id > 40")


# Customer 3 has orders 2, 11, 20, 29 and 38, as dear as their numbers.
NEXT_EXTREMES: list[tuple[LiteralString, LiteralString]] = [
    ("DELETE FROM orders WHERE id = 38", "DELETE FROM orders WHERE id = 29"),
    ("DELETE FROM orders WHERE id = 2", "UPDATE orders SET amount = 30 WHERE id = 11"),
    ("UPDATE orders SET amount = 15 WHERE id = 2", "DELETE FROM orders WHERE id = 11"),
    ("UPDATE orders SET amount = 1 WHERE id = 11", "UPDATE orders SET amount = 10 WHERE id = 2"),
    ("UPDATE orders SET amount = 21 WHERE id = 20", "DELETE FROM orders WHERE id = 2"),
    ("DELETE FROM orders WHERE id = 11", "UPDATE orders SET amount = 12 WHERE id = 2"),
]


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize(("first", "second"), NEXT_EXTREMES)
def test_an_extreme_goes_from_a_group_in_which_another_changes_the_next(
    database: Any, db: Connection, first: LiteralString, second: LiteralString, ending: LiteralString
) -> None:
    """What is an extreme when one of them has ended is told by the group's row, or by rows read after that."""
    shop = made(db, {"extremes": QUERIES["extremes"]})
    with several(database, 2) as (one, two):
        one.begin()
        one.conn.execute(first)
        waiting = two.waits(second)
        one.run(ending)
        waiting.result()
    shop.check()


def test_no_deadlocks_over_shared_groups(shop: Shop, database: Any) -> None:
    """Each statement locks the groups in one order, whatever the order of its rows."""
    only(shop, "totals", "counted")
    shop.conn.execute("ALTER TABLE orders DROP CONSTRAINT orders_customer_id_fkey")

    def insert(first: int) -> None:
        conn = database.connect()
        for turn in range(15):
            conn.execute(
                """INSERT INTO orders SELECT %s + g, (g * 7919) %% 40, 1, 'x' FROM generate_series(1, 100) AS g
                    ORDER BY random()""",
                (first + turn * 100,),
            )

    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(insert, writer * 100_000) for writer in (1, 2, 3)]:
            one.result()
    shop.check()
