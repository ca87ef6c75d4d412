"""Writers of one source of a join have its turn together, and nobody else meanwhile (decision 0010)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.test_isolation import Session

Connection = psycopg.Connection[tuple[Any, ...]]

# After so many transactions that wrote one source only, its writers share the turn.
RUN = 201
QUERIES: dict[str, LiteralString] = {
    "joined": """SELECT o.id, o.amount, c.region, p.kind FROM orders AS o JOIN customers AS c ON c.id = o.customer
                   JOIN products AS p ON p.id = o.product WHERE o.amount > 2""",
    "regions": """SELECT c.region, count(*) AS n, sum(o.amount) AS total, avg(o.amount) AS mean
                    FROM orders AS o JOIN customers AS c ON c.id = o.customer GROUP BY c.region""",
}


@pytest.fixture
def shop(db: Connection) -> Connection:
    db.execute(
        """CREATE TABLE customers (id int PRIMARY KEY, region text);
           CREATE TABLE products (id int PRIMARY KEY, kind text);
           CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, product int, amount int,
                                note text);
           INSERT INTO customers SELECT g, 'r' || g % 3 FROM generate_series(1, 9) AS g;
           INSERT INTO products SELECT g, 'k' || g % 2 FROM generate_series(1, 4) AS g;
           INSERT INTO orders SELECT g, g % 9 + 1, g % 4 + 1, g, 'n' FROM generate_series(1, 40) AS g"""
    )
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE")
    return db


def with_slots_of_their_own(database: Any, number: int) -> list[Connection]:
    """Connections that needn't wait for each other to share a turn."""
    found: dict[int, Connection] = {}
    while len(found) < number:
        conn = database.connect()
        found.setdefault(conn.info.backend_pid % 32, conn)
    return list(found.values())


@pytest.fixture
def sessions(database: Any, shop: Connection) -> Iterator[tuple[Session, Session, Session]]:
    del shop
    with ThreadPoolExecutor(3) as pool:
        watcher = database.connect()
        one, two, other = (Session(conn, watcher, pool) for conn in with_slots_of_their_own(database, 3))
        for session in (one, two, other):
            session.run("SET lock_timeout = '60s'")
        yield one, two, other


def side(conn: Connection, name: str) -> int | None:
    """Who may share a stream table's turn, as its sequence says."""
    (number,) = conn.execute(
        "SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,)
    ).fetchone() or (0,)
    found = conn.execute(
        "SELECT pg_sequence_last_value(to_regclass(%s))", (f"pgtrickle_changes.side_{number}",)
    ).fetchone()
    return None if found is None else found[0]


def oid(conn: Connection, name: str) -> int:
    (found,) = conn.execute("SELECT %s::regclass::oid::bigint", (name,)).fetchone() or (0,)
    return int(found)


def warm(conn: Connection, table: str = "orders") -> None:
    """A run of transactions that write one source only."""
    column = "amount" if table == "orders" else "region"
    for number in range(RUN):
        conn.execute(
            sql.SQL("UPDATE {} SET {} = {} WHERE id = {}").format(
                sql.Identifier(table),
                sql.Identifier(column),
                sql.Literal(number if table == "orders" else f"r{number % 3}"),
                sql.Literal(number % 7 + 1),
            )
        )


def check(conn: Connection) -> None:
    for name in QUERIES:
        assert differences(conn, name) == [], name


def test_sharing_is_earned_by_writing_one_source(shop: Connection) -> None:
    warm(shop)
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
    two.run("SET lock_timeout = '1ms'")
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


def test_groups_that_two_write_are_added_up(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """The second waits for the group's row alone, and adds to what the first has left there, or gives up."""
    warm(shop)
    one, two, _ = sessions
    for first, second, end in (
        ("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')", "INSERT INTO orders VALUES (101, 1, 1, 71, 'a')", "COMMIT"),
        ("DELETE FROM orders WHERE id = 100", "UPDATE orders SET amount = 5 WHERE id = 101", "ROLLBACK"),
        ("DELETE FROM orders WHERE id = 100", "DELETE FROM orders WHERE id = 101", "COMMIT"),
        ("DELETE FROM orders WHERE product = 1 AND id < 20", "DELETE FROM orders WHERE product = 1", "COMMIT"),
        ("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')", "INSERT INTO orders VALUES (101, 1, 1, 71, 'a')", "COMMIT"),
        ("DELETE FROM orders WHERE customer = 1", "INSERT INTO orders VALUES (102, 1, 1, 71, 'a')", "COMMIT"),
    ):  # fmt: skip
        for session in (one, two):
            session.begin()
        one.run(first)
        waiting = two.waits(second)
        two.is_held_up_by(one)
        one.run(end)
        waiting.result()
        two.run("COMMIT")
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


def test_who_waits_before_his_statement_is_in_nobodys_way(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """He has no slot while he waits for another, and not the turn that who shares may come to need."""
    warm(shop)
    one, two, other = sorted(sessions, key=lambda session: session.conn.info.backend_pid % 32, reverse=True)
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    waiting = two.waits("UPDATE customers SET region = 'y' WHERE id = 1")
    other.run("SET lock_timeout = '1s'")
    other.run("UPDATE orders SET amount = 60 WHERE id = 2")
    one.run("UPDATE orders SET amount = 61 WHERE id = 2")
    one.run("UPDATE customers SET region = 'x' WHERE id = 2")
    one.run("COMMIT")
    waiting.result()
    check(shop)


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


def test_who_gets_his_slot_while_sharing_ends_still_shares(shop: Connection, sessions: tuple[Session, ...]) -> None:
    """Of two sessions with one slot the second waits; by then another has come to another source, and waits for it."""
    warm(shop)
    one, two, other = sessions
    (number,) = shop.execute("SELECT max(pgt_id) FROM pgtrickle.pgt_stream_tables").fetchone() or (0,)
    other.begin()
    other.conn.execute(
        sql.SQL("SELECT FROM {} WHERE slot = {} % 32 FOR UPDATE").format(
            sql.Identifier("pgtrickle_changes", f"slots_{number}"), sql.Literal(two.conn.info.backend_pid)
        )
    )
    waiting = two.waits("INSERT INTO orders VALUES (101, 2, 1, 71, 'a')")
    one.begin()
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    coming = one.waits("UPDATE customers SET region = 'x' WHERE id = 1")
    other.run("COMMIT")
    waiting.result()
    coming.result()
    one.run("COMMIT")
    check(shop)


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
    two.run("SET lock_timeout = '1ms'")
    two.run("UPDATE customers SET region = 'x' WHERE id = 1")
    one.run("UPDATE customers SET region = 'y' WHERE id = 2")
    one.run("INSERT INTO orders VALUES (100, 1, 1, 70, 'a')")
    one.run("COMMIT")
    assert side(shop, "regions") == oid(shop, "orders")
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


@pytest.mark.parametrize(
    ("query", "sources"),
    [
        (QUERIES["joined"], {"orders"}),
        (QUERIES["regions"], {"customers", "orders"}),
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
