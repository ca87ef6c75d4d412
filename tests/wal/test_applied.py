"""What logical replication applies: the first row flags IMMEDIATE stream tables, and each holds what it calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.conftest import Database

Connection = psycopg.Connection[tuple[Any, ...]]
QUERIES = {
    "totals": "SELECT k, count(*) AS n FROM t GROUP BY k",
    "joined": "SELECT t.id, u.name FROM t JOIN u ON u.k = t.k",
}
SOURCES = {
    "plain": "CREATE TABLE t (id int PRIMARY KEY, k int)",
    "partitioned": """CREATE TABLE t (id int PRIMARY KEY, k int) PARTITION BY HASH (id);
                      CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)""",
}
# Where what is applied can be kept waiting, after its row; and a role that may make stream tables of it.
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
CREATE TRIGGER aaa AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow();
ALTER TABLE t ENABLE ALWAYS TRIGGER aaa;
CREATE SCHEMA his AUTHORIZATION author;
GRANT SELECT ON t TO author;
GRANT USAGE, CREATE ON SCHEMA public TO author;
GRANT USAGE ON SCHEMA pgtrickle TO author;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO author
"""
FLAGGED = "SELECT count(*) FILTER (WHERE needs_reinit) FROM pgtrickle.pgt_stream_tables"


@pytest.fixture
def publisher(bare_database: Database) -> Connection:
    conn = bare_database.connect()
    conn.execute("CREATE TABLE t (id int PRIMARY KEY, k int)")
    conn.execute("CREATE PUBLICATION feed FOR TABLE t WITH (publish_via_partition_root = true)")
    conn.execute("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
    return conn


@pytest.fixture
def subscriber(database: Database, publisher: Connection) -> Iterator[Connection]:
    """Both databases are on one server, which has to have the slot ahead."""
    conn = database.connect()
    yield conn
    conn.execute("DROP SUBSCRIPTION IF EXISTS feed")
    for (slot,) in publisher.execute("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"):
        publisher.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def subscribe(conn: Connection, publisher: Connection) -> None:
    info = publisher.info
    dsn = make_conninfo(host=info.host, port=info.port, user=info.user, dbname=info.dbname)
    conn.execute(
        sql.SQL(
            """CREATE SUBSCRIPTION feed CONNECTION {} PUBLICATION feed
                   WITH (create_slot = false, copy_data = false)"""
        ).format(sql.Literal(dsn))
    )


def one(conn: Connection, query: str) -> Any:
    (value,) = conn.execute(query.encode()).fetchone() or (None,)
    return value


def wait_for(conn: Connection, query: str, value: Any) -> None:
    """What another process does by and by."""
    until = time.monotonic() + 30
    while one(conn, query) != value:
        assert time.monotonic() < until, query


@pytest.mark.versions
@pytest.mark.parametrize("kind", ["", "PARTITION BY HASH (id)"])
def test_the_first_row_that_is_applied_flags_its_stream_tables(
    publisher: Connection, subscriber: Connection, kind: str
) -> None:
    subscriber.execute(f"CREATE TABLE t (id int PRIMARY KEY, k int) {kind}".encode())
    if kind:
        subscriber.execute("CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    subscriber.execute("CREATE TABLE u (k int PRIMARY KEY, name text); INSERT INTO u VALUES (1, 'a')")
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(subscriber, name, query, refresh_mode="IMMEDIATE")
    subscribe(subscriber, publisher)
    publisher.execute("INSERT INTO t VALUES (1, 1)")
    wait_for(subscriber, "SELECT count(*) FROM t", 1)
    assert one(subscriber, FLAGGED) == len(QUERIES)
    assert "logical replication" in one(subscriber, "SELECT min(reinit_reason) FROM pgtrickle.pgt_stream_tables")
    subscriber.execute("DROP SUBSCRIPTION feed")
    for name in QUERIES:
        pg_trickle.refresh_stream_table(subscriber, name)
        assert differences(subscriber, name) == []


@pytest.mark.versions
@pytest.mark.parametrize("kind", ["plain", "partitioned"])
def test_what_is_applied_to_a_strangers_source_holds_what_it_calls(
    database: Database, publisher: Connection, subscriber: Connection, kind: str
) -> None:
    """A partitioned table is captured row by row anyway, a plain one as soon as the subscription is noticed."""
    database.make_role("author")
    subscriber.execute(SOURCES[kind].encode())
    subscriber.execute(SLOW)
    author = database.connect("author")
    pg_trickle.create_stream_table(author, "st", QUERIES["totals"])
    subscribe(subscriber, publisher)
    if kind == "plain":
        pg_trickle.refresh_stream_table(author, "st")
    subscriber.execute("SELECT pg_advisory_lock(1)")
    publisher.execute("INSERT INTO t VALUES (1, 1)")
    wait_for(subscriber, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 1)
    author.execute("SET lock_timeout = '100ms'")
    inserts = one(
        author, "SELECT proname FROM pg_proc WHERE proowner = 'author'::regrole AND proname ~ '^capture_.*_ins$'"
    )
    with pytest.raises(psycopg.errors.LockNotAvailable):
        author.execute(f"ALTER FUNCTION pgtrickle_changes.{inserts}() SET SCHEMA his".encode())
    subscriber.execute("SELECT pg_advisory_unlock(1)")
    wait_for(subscriber, "SELECT count(*) FROM t", 1)
    pg_trickle.refresh_stream_table(author, "st")
    assert differences(subscriber, "st") == []


def test_a_session_that_plays_a_replica_is_followed(database: Database) -> None:
    """Its statements fire our triggers as ever: nothing needs to be flagged."""
    conn = database.connect()
    conn.execute("CREATE TABLE t (id int PRIMARY KEY, k int); CREATE TABLE u (k int PRIMARY KEY, name text)")
    conn.execute("INSERT INTO u VALUES (1, 'a')")
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(conn, name, query, refresh_mode="IMMEDIATE")
    conn.execute("SET session_replication_role = replica")
    for statement in (
        "INSERT INTO t VALUES (1, 1), (2, 1)",
        "UPDATE t SET id = 3 WHERE id = 2",
        "DELETE FROM t WHERE id = 1",
    ):
        conn.execute(statement.encode())
        for name in QUERIES:
            assert differences(conn, name) == []
    assert one(conn, FLAGGED) == 0
