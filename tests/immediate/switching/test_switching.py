"""Changing the mode while a transaction is under way that began before: nothing is lost or counted twice."""

from __future__ import annotations

import contextlib
from typing import Any, LiteralString

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.test_isolation import LEVELS, Session

Connection = psycopg.Connection[tuple[Any, ...]]

QUERIES: dict[str, LiteralString] = {
    "totals": "SELECT g, count(*) AS n, sum(v) AS total FROM t GROUP BY g",
    "named": "SELECT t.id, t.v, u.name FROM t JOIN u ON u.id = t.g",
}
MODES = [("AUTO", "IMMEDIATE"), ("IMMEDIATE", "AUTO")]


def make(db: Connection, mode: str) -> None:
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode=mode)


def check(db: Connection, mode: str) -> None:
    for name in QUERIES:
        if mode != "IMMEDIATE":
            pg_trickle.refresh_stream_table(db, name)
        assert differences(db, name) == [], name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("before", "after"), MODES)
def test_a_transaction_that_began_before_and_writes_after(
    tables: Connection, sessions: tuple[Session, Session], before: str, after: str, level: str
) -> None:
    """With an older snapshot it is told to try again where it can't see what it would have to change."""
    make(tables, before)
    writer, _ = sessions
    writer.begin(level)
    writer.run("SELECT count(*) FROM t CROSS JOIN u")
    tables.execute("SET lock_timeout = '5s'")
    for name in QUERIES:
        pg_trickle.alter_stream_table(tables, name, refresh_mode=after)
    tables.execute("UPDATE t SET v = v + 1 WHERE id = 5")
    try:
        writer.run("UPDATE t SET g = 2 WHERE id = 1")
        writer.run("INSERT INTO t VALUES (100, 1, 5)")
        writer.run("DELETE FROM t WHERE id = 2")
        writer.run("COMMIT")
    except psycopg.errors.SerializationFailure:
        assert level != "READ COMMITTED"
        writer.run("ROLLBACK")
    check(tables, after)
    tables.execute("DELETE FROM t WHERE g = 1; UPDATE u SET name = name || '!'")
    check(tables, after)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_snapshot_from_before_a_buffer_was_made_or_widened(
    tables: Connection, sessions: tuple[Session, Session], level: str
) -> None:
    """Its transaction can't see that the buffer is as it should be; what it writes is noticed nevertheless."""
    for writer, query in zip(sessions, ("SELECT g FROM t", QUERIES["totals"]), strict=True):
        writer.begin(level)
        writer.run("SELECT 1")
        pg_trickle.create_stream_table(tables, f"of_{len(query)}", query, schedule=None, refresh_mode="DIFFERENTIAL")
        writer.run("INSERT INTO t SELECT max(id) + 1, 3, 7 FROM t")
        writer.run("COMMIT")
        pg_trickle.refresh_stream_table(tables, f"of_{len(query)}")
        assert differences(tables, f"of_{len(query)}") == []


@pytest.mark.parametrize(
    "change",
    [
        "SELECT pgtrickle.drop_stream_table('named')",
        "SELECT pgtrickle.drop_stream_table('totals', \"cascade\" => true)",
        "SELECT pgtrickle.suspend_stream_table('named')",
        "SELECT pgtrickle.suspend_stream_table('totals')",
    ],
)
def test_who_drops_or_suspends_waits_for_a_writer_and_he_for_nobody(
    tables: Connection, sessions: tuple[Session, Session], change: LiteralString
) -> None:
    """He comes from the source to the stream table: who holds that, and waits for the source, is in his way."""
    make(tables, "IMMEDIATE")
    pg_trickle.create_stream_table(tables, "above", "SELECT count(*) AS n FROM totals", refresh_mode="IMMEDIATE")
    writer, other = sessions
    writer.begin()
    writer.run("LOCK TABLE t IN ROW EXCLUSIVE MODE")
    changing = other.waits(change)
    writer.run("UPDATE t SET g = g + 1, v = v + 1")
    writer.run("COMMIT")
    changing.result()


@pytest.mark.parametrize(("before", "after"), MODES)
def test_who_switches_waits_for_a_writer_and_he_for_nobody(
    tables: Connection, sessions: tuple[Session, Session], before: str, after: str
) -> None:
    """He may have begun with either source."""
    make(tables, before)
    writer, other = sessions
    writer.begin()
    writer.run("UPDATE t SET v = v + 1 WHERE id = 1")
    changing = other.waits(f"SELECT pgtrickle.alter_stream_table('named', refresh_mode => '{after}')")
    writer.run("UPDATE u SET name = name || 'x'")
    writer.run("COMMIT")
    changing.result()
    pg_trickle.alter_stream_table(tables, "totals", refresh_mode=after)
    check(tables, after)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("statement", ["INSERT INTO t VALUES (100, 9, 5)", "UPDATE t SET g = 9 WHERE id = 1"])
@pytest.mark.parametrize("since", ["switched", "rewritten"])
def test_a_snapshot_that_lacks_what_the_maintenance_reads(
    tables: Connection, sessions: tuple[Session, Session], level: str, statement: LiteralString, since: str
) -> None:
    """Whose turn it is isn't in it, if maintenance began later; and in a table that was rewritten it sees no row."""
    make(tables, "AUTO" if since == "switched" else "IMMEDIATE")
    writer, _ = sessions
    writer.begin(level)
    writer.run("SELECT 1")
    if since == "switched":
        pg_trickle.alter_stream_table(tables, "named", refresh_mode="IMMEDIATE")
        tables.execute("INSERT INTO u VALUES (9, 'n9')")
    else:
        tables.execute("ALTER TABLE u ADD COLUMN at timestamptz DEFAULT clock_timestamp()")
    with pytest.raises(psycopg.errors.SerializationFailure):
        writer.run(statement)
    writer.run("ROLLBACK")
    writer.run(statement)
    assert differences(tables, "named") == []


@pytest.mark.parametrize("since", ["made", "switched", "resumed"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM t WHERE id = 5",
        "DELETE FROM t WHERE id > 4",
        "UPDATE t SET v = 0 WHERE id = 5",
        "UPDATE t SET id = 50 WHERE id = 5",
    ],
)
def test_a_snapshot_that_lacks_the_rows_that_have_to_go(
    tables: Connection, sessions: tuple[Session, Session], statement: LiteralString, since: str
) -> None:
    """They are in the stream table, but it doesn't see them there."""

    def create(mode: str) -> None:
        pg_trickle.create_stream_table(tables, "shown", "SELECT id, v FROM t WHERE v > 2", refresh_mode=mode)

    if since != "made":
        create("IMMEDIATE" if since == "resumed" else "AUTO")
    if since == "resumed":
        tables.execute("DELETE FROM t WHERE id = 5")
        pg_trickle.suspend_stream_table(tables, "shown")
        tables.execute("INSERT INTO t VALUES (5, 1, 5)")
    writer, _ = sessions
    writer.begin("REPEATABLE READ")
    writer.run("SELECT FROM t")
    if since == "made":
        create("IMMEDIATE")
    elif since == "switched":
        pg_trickle.alter_stream_table(tables, "shown", refresh_mode="IMMEDIATE")
    else:
        pg_trickle.resume_stream_table(tables, "shown")
    with pytest.raises(psycopg.errors.SerializationFailure):
        writer.run(statement)
    writer.run("ROLLBACK")
    writer.run(statement)
    assert differences(tables, "shown") == []


# What is done to a table that a transaction has still to read, and whether its snapshot shows all that is in it.
REWRITTEN: dict[str, tuple[tuple[LiteralString, ...], bool]] = {
    "packed": (("VACUUM FULL u",), True),
    "in another order": (("CLUSTER u USING u_pkey", "VACUUM u"), True),
    "changed, and packed": (
        ("ALTER TABLE u ADD COLUMN at timestamptz DEFAULT clock_timestamp()", "VACUUM FULL u"),
        False,
    ),
    "packed, and emptied": (("VACUUM FULL u", "TRUNCATE u", "INSERT INTO u VALUES (0, 'back')"), False),
    "filled with frozen rows": (
        ("BEGIN; TRUNCATE u; COPY u FROM PROGRAM 'echo 0,x' (FORMAT csv, FREEZE); COMMIT",),
        False,
    ),
}


@pytest.mark.versions
@pytest.mark.parametrize("rewriting", REWRITTEN)
def test_rewriting_that_keeps_the_rows_stops_no_older_snapshot(
    tables: Connection, sessions: tuple[Session, Session], rewriting: str
) -> None:
    statements, shown = REWRITTEN[rewriting]
    make(tables, "IMMEDIATE")
    writer, _ = sessions
    writer.begin("REPEATABLE READ")
    writer.run("SELECT 1")
    for statement in statements:
        tables.execute(statement)
    with contextlib.nullcontext() if shown else pytest.raises(psycopg.errors.SerializationFailure):
        writer.run("INSERT INTO t VALUES (100, 0, 5)")
    writer.run("COMMIT" if shown else "ROLLBACK")
    assert differences(tables, "named") == []


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("trigger_mode", ["statement", "row"])
def test_an_update_of_what_nobody_reads_is_not_missed(
    tables: Connection, sessions: tuple[Session, Session], level: str, trigger_mode: str
) -> None:
    tables.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s)", (trigger_mode,))
    pg_trickle.create_stream_table(tables, "counted", "SELECT count(*) AS n FROM t", schedule=None)
    writer, _ = sessions
    writer.begin(level)
    writer.run("UPDATE t SET v = v + 1, g = g + 1")
    writer.run("COMMIT")
    assert tables.execute("SELECT count(*) FROM pgtrickle_changes.missed_changes").fetchone() == (0,)


RETIRED: LiteralString = "SELECT count(*) FROM pg_trigger WHERE tgfoid = 'pgtrickle_changes.retired()'::regprocedure"


def test_who_reads_the_sources_keeps_nobody_from_ending_their_maintenance(
    tables: Connection, sessions: tuple[Session, Session]
) -> None:
    """What would lock him out is left to housekeeping."""
    make(tables, "IMMEDIATE")
    reader, _ = sessions
    reader.begin()
    reader.run("SELECT count(*) FROM t CROSS JOIN u")
    tables.execute("SET lock_timeout = '5s'")
    for name in QUERIES:
        pg_trickle.suspend_stream_table(tables, name)
    tables.execute("UPDATE t SET v = v + 1; INSERT INTO u VALUES (9, 'x')")
    assert tables.execute(RETIRED).fetchone() != (0,)
    for name in QUERIES:
        pg_trickle.resume_stream_table(tables, name)
    tables.execute("UPDATE t SET v = v + 1; DELETE FROM u WHERE id = 9")
    check(tables, "IMMEDIATE")
    pg_trickle.drop_stream_table(tables, "named")
    tables.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert tables.execute(RETIRED).fetchone() != (0,)
    reader.run("COMMIT")
    tables.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert tables.execute(RETIRED).fetchone() == (0,)
    tables.execute("UPDATE t SET v = v + 1")
    assert differences(tables, "totals") == []


@pytest.mark.parametrize(("before", "after"), MODES)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_prepared_transaction_is_waited_for(
    tables: Connection, sessions: tuple[Session, Session], before: str, after: str, end: str
) -> None:
    make(tables, before)
    writer, other = sessions
    for name in QUERIES:
        writer.begin()
        writer.run("UPDATE t SET v = v + 1 WHERE id < 4")
        writer.run("INSERT INTO u SELECT max(id) + 1, 'new' FROM u")
        writer.run("PREPARE TRANSACTION 'ours'")
        waiting = other.waits(f"SELECT pgtrickle.alter_stream_table('{name}', refresh_mode => '{after}')")
        tables.execute(f"{end} PREPARED 'ours'".encode())
        waiting.result()
        if name == "totals":
            pg_trickle.refresh_stream_table(tables, "totals")
            assert differences(tables, "totals") == []
    check(tables, after)


def test_who_is_in_the_way_is_told(tables: Connection, sessions: tuple[Session, Session]) -> None:
    make(tables, "IMMEDIATE")
    writer, other = sessions
    writer.begin()
    writer.run("UPDATE t SET v = v + 1 WHERE id = 1")
    writer.run("PREPARE TRANSACTION 'it''s'")
    other.begin()
    other.run("LOCK TABLE t IN ROW EXCLUSIVE MODE")
    tables.execute("SET lock_timeout = '100ms'")
    for call in ("suspend_stream_table('totals')", "alter_stream_table('totals', refresh_mode => 'FULL')"):
        with pytest.raises(
            psycopg.errors.LockNotAvailable, match=r'"public\.t" could not be locked within 100ms'
        ) as failure:
            tables.execute(f"SELECT pgtrickle.{call}".encode())
        detail = failure.value.diag.message_detail or ""
        assert "prepared transaction 'it''s' of role \"postgres\"" in detail
        assert f"session {other.conn.info.backend_pid} of role" in detail
    assert tables.execute("SHOW lock_timeout").fetchone() == ("100ms",)
    other.run("COMMIT")
    tables.execute("COMMIT PREPARED 'it''s'")
    pg_trickle.suspend_stream_table(tables, "totals")


def test_two_writers_of_a_table_who_both_want_it_for_themselves(
    tables: Connection, sessions: tuple[Session, Session]
) -> None:
    """One of them is told what to do otherwise."""
    make(tables, "DIFFERENTIAL")
    tables.execute("CREATE TABLE w (id int PRIMARY KEY)")
    for number, session in enumerate(sessions):
        session.run("SET deadlock_timeout = '10ms'")
        session.begin()
        session.conn.execute("INSERT INTO w VALUES (%s)", (number,))

    def create(session: Session, name: str) -> str | None:
        try:
            pg_trickle.create_stream_table(session.conn, name, "SELECT id FROM w", schedule=None)
        except psycopg.errors.DeadlockDetected as failure:
            session.run("ROLLBACK")
            return failure.diag.message_hint
        session.run("COMMIT")
        return None

    doing = [session.pool.submit(create, session, f"of_{number}") for number, session in enumerate(sessions)]
    (told,) = [one.result() for one in doing if one.result() is not None]
    assert "create and change stream tables in transactions" in str(told)
