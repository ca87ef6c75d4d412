"""Policies that read other tables, while several sessions write these and the source (A13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.concurrency.steps import Stage, interleavings
from tests.security.conftest import MEMBER, Connection, Place
from tests.security.test_policies import COUNT, LINES, create, protect, refreshed
from tests.security.test_policy_subqueries import SUBQUERIES

Fails = Callable[..., psycopg.Error]

# In every order: what was hidden, or shown, when it was written isn't any more when it is committed.
RACES = {
    "joins": ("INSERT INTO memberships VALUES (2, 'st_author')", "INSERT INTO orders VALUES (102, 2, 1, 1, '')"),
    "leaves": ("DELETE FROM memberships WHERE usr = 'st_author'", "INSERT INTO orders VALUES (101, 1, 1, 1, '')"),
    "moves": (
        "UPDATE memberships SET tenant_id = 3 - tenant_id",
        "UPDATE orders SET tenant_id = 3 - tenant_id WHERE id = 2",
    ),
    "goes": ("INSERT INTO memberships VALUES (3, 'st_author')", "DELETE FROM orders WHERE id % 3 = 2"),
}


@pytest.fixture
def stage(tenants: Place) -> Iterator[Stage]:
    protect(tenants, MEMBER)
    create(tenants)
    made = Stage(tenants.superuser, {name: tenants.as_("postgres") for name in ("writer", "joiner", "refresher")})
    yield made
    made.close()


@pytest.mark.parametrize(
    ("race", "level"), [*((race, "READ COMMITTED") for race in RACES), ("joins", "REPEATABLE READ")]
)
def test_a13_a_writer_who_judged_by_former_memberships_is_noticed(
    tenants: Place, stage: Stage, race: str, level: str
) -> None:
    changes = RACES[race]
    steps = {
        "writer": (f"BEGIN; {changes[1]}", "COMMIT"),
        "joiner": (changes[0],),
        "refresher": (f"BEGIN ISOLATION LEVEL {level}; SELECT pgtrickle.refresh_stream_table('st')", "COMMIT"),
    }
    author = tenants.as_("st_author")
    for schedule in interleavings({name: len(own) for name, own in steps.items()}):
        for _ in stage.play(schedule, steps):
            pass
        for _ in range(2):
            pg_trickle.refresh_stream_table(author, "st")
            assert_fresh(author, "st")
        tenants.superuser.execute(
            """DELETE FROM memberships; INSERT INTO memberships VALUES (1, 'st_author'), (2, 'somebody');
               DELETE FROM orders;
               INSERT INTO orders SELECT i, 1 + i % 3, i % 7, i, 'note ' || i FROM generate_series(1, 9) AS i"""
        )
        pg_trickle.refresh_stream_table(author, "st")


def test_a13_who_was_not_writing_costs_no_second_recomputation(tenants: Place) -> None:
    """Nor does who wrote something else, or has rolled back."""
    protect(tenants, MEMBER)
    author = create(tenants)
    idle, other, failed = (tenants.as_("postgres") for _ in range(3))
    idle.execute("BEGIN; SELECT pg_current_xact_id(); SELECT count(*) FROM orders")
    other.execute("BEGIN; UPDATE customers SET name = ''")
    failed.execute("BEGIN; UPDATE orders SET amount = 0")
    tenants.superuser.execute("INSERT INTO memberships VALUES (2, 'st_author')")
    refreshed(tenants, author, "FULL")
    for conn in (idle, other):
        conn.execute("COMMIT")
    failed.execute("ROLLBACK")
    pg_trickle.refresh_stream_table(author, "st")
    assert tenants.last_refresh("skipped_reason") == "no changes"
    tenants.superuser.execute("UPDATE orders SET amount = 0")
    refreshed(tenants, author)


def test_a13_the_worker_comes_back_for_a_writer_who_left_no_trace(tenants: Place, worker: Any) -> None:
    protect(tenants, MEMBER)
    author = tenants.as_("st_author")
    pg_trickle.create_stream_table(author, "st", LINES, schedule="calculated")
    writer = tenants.as_("postgres")
    writer.execute("BEGIN; INSERT INTO orders VALUES (102, 2, 1, 1, '')")
    tenants.superuser.execute("INSERT INTO memberships VALUES (2, 'st_author')")
    worker.wait_for(lambda: tenants.value("SELECT count(*) FROM st WHERE tenant_id = 2") == 10)
    writer.execute("COMMIT")
    worker.wait_for(lambda: tenants.value("SELECT count(*) FROM st WHERE tenant_id = 2") == 11)
    assert_fresh(author, "st")


# At random: sessions that write orders and memberships, each of rows of its own so that none waits for another.

number = st.integers(1, 9)
session = st.sampled_from("abc")
writes = st.one_of(
    st.builds(
        "INSERT INTO orders VALUES ({0}{1}, {2}, {3}, 1, NULL)".format,
        st.just("{base}"),
        number,
        st.integers(1, 3),
        number,
    ),
    st.builds(
        "UPDATE orders SET tenant_id = {} WHERE id / 1000 = {{base}} AND id % 3 = {}".format,
        st.integers(1, 3),
        st.integers(0, 2),
    ),
    st.builds("UPDATE orders SET amount = {} WHERE id / 1000 = {{base}}".format, number),
    st.builds("DELETE FROM orders WHERE id / 1000 = {{base}} AND id % 4 = {}".format, st.integers(0, 3)),
    st.builds("INSERT INTO memberships VALUES ({}, 'st_author', '{{base}}')".format, st.integers(1, 3)),
    st.builds("UPDATE memberships SET tenant_id = {} WHERE role = '{{base}}'".format, st.integers(1, 3)),
    st.just("DELETE FROM memberships WHERE role = '{base}'"),
    st.sampled_from(["SAVEPOINT s", "ROLLBACK TO s", "COMMIT", "COMMIT", "ROLLBACK"]),
)
turns = st.one_of(
    st.tuples(session, writes),
    st.tuples(session, writes),
    st.tuples(st.just("refresh"), st.sampled_from(["READ COMMITTED", "REPEATABLE READ"])),
)
POLICIES = [
    [MEMBER],
    [SUBQUERIES["exists"], "FOR SELECT USING (amount > 5)"],
    ["FOR ALL USING (true)", "AS RESTRICTIVE " + MEMBER],
    ["USING (tenant_id <> 2 OR (SELECT count(*) FROM memberships) % 2 = 0)"],
]
LEVELS = st.sampled_from(["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
FEW = max(10, settings().max_examples // 10)


@pytest.fixture
def people(tenants: Place) -> dict[str, Connection]:
    return {"author": tenants.as_("st_author")} | {name: tenants.as_("postgres") for name in "abc"}


def turn(conn: Connection, statement: str, level: str) -> None:
    """A statement of a session, in a transaction; what a client has to expect rolls it back."""
    if conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        conn.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT".encode())
    try:
        conn.execute(statement.encode())
    except (
        psycopg.errors.SerializationFailure,
        psycopg.errors.UniqueViolation,
        psycopg.errors.InvalidSavepointSpecification,
    ):
        conn.execute("ROLLBACK")


@pytest.mark.parametrize("trigger_mode", ["statement", "row"])
@settings(max_examples=FEW)
@given(
    policies=st.sampled_from(POLICIES), levels=st.tuples(LEVELS, LEVELS, LEVELS), query=st.sampled_from([LINES, COUNT]),
    play=st.lists(turns, min_size=5, max_size=30),
)  # fmt: skip
def test_a13_any_sessions_and_any_memberships(
    tenants: Place,
    people: dict[str, Connection],
    trigger_mode: str,
    policies: list[str],
    levels: tuple[str, ...],
    query: str,
    play: list[tuple[str, str]],
) -> None:
    """After every refresh the stream table is what its owner sees."""
    author, superuser = people["author"], tenants.superuser
    superuser.execute(
        "INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s) ON CONFLICT DO NOTHING", (trigger_mode,)
    )
    superuser.execute("UPDATE orders SET id = 1000 * (1 + id % 3) + id")
    try:
        protect(tenants, *policies)
        pg_trickle.create_stream_table(author, "st", query, refresh_mode="DIFFERENTIAL", schedule=None)
        for who, what in play:
            if who == "refresh":
                with author.transaction():
                    author.execute(f"SET TRANSACTION ISOLATION LEVEL {what}".encode())
                    pg_trickle.refresh_stream_table(author, "st")
                assert_fresh(author, "st")
            else:
                place = "abc".index(who)
                turn(people[who], what.format(base=place + 1), levels[place])
        for name in "abc":
            turn(people[name], "COMMIT", "READ COMMITTED")
        pg_trickle.refresh_stream_table(author, "st")
        assert_fresh(author, "st")
    finally:
        for conn in people.values():
            conn.rollback()
        superuser.execute("SELECT pgtrickle.drop_stream_table('st') FROM pgtrickle.pgt_stream_tables")
        for (policy,) in superuser.execute("SELECT policyname FROM pg_policies WHERE tablename = 'orders'").fetchall():
            superuser.execute(f"DROP POLICY {policy} ON orders".encode())
        superuser.execute(
            """TRUNCATE memberships, orders; INSERT INTO memberships VALUES (1, 'st_author'), (2, 'somebody');
               INSERT INTO orders SELECT i, 1 + i % 3, i % 7, i, NULL FROM generate_series(1, 30) AS i"""
        )


def test_a13_how_a_writer_has_literals_read_does_not_change_what_a_policy_says(tenants: Place) -> None:
    """A backslash is a letter of the policy, whatever it is in his statements."""
    protect(tenants, r"USING (note <> 'a\\b')")
    author = create(tenants, LINES)
    writer = tenants.as_("postgres")
    writer.execute("SET standard_conforming_strings = off")
    writer.execute(r"INSERT INTO orders VALUES (101, 1, 1, 1, E'a\\\\b'), (102, 1, 1, 1, E'a\\b')")
    refreshed(tenants, author)
    assert tenants.superuser.execute("SELECT id FROM st WHERE id > 100").fetchall() == [(102,)]
