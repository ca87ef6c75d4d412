"""What the WAL tells of a source gets into its buffer, to the letter, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

# Types, and values whose text depends on a session's settings, or is hard to carry.
VALUES = {
    "int": ["-2147483648", "NULL"],
    "boolean": ["true", "false"],
    "text": ["'it''s \\\\ \"ä€😀\"'", "''", "repeat('long ', 3000)"],
    "varchar(5)": ["'a   '", "NULL"],
    "char(5)": ["'a'"],
    '"char"': ["'x'", "''"],
    "numeric(9,3)": ["1.500", "'NaN'"],
    "float8": ["'-0'", "0.1::float8 + 0.2", "'Infinity'"],
    "timestamptz": ["'2024-03-31 01:30:00.123456+00'", "'infinity'"],
    "date": ["'0044-03-15 BC'"],
    "interval": ["'-1 year 2 days -03:00'"],
    "bytea": ["'\\x00ff5c'", "convert_to(repeat('y', 9000), 'UTF8')"],
    "money": ["'12.34'"],
    "json": ['\'{"b": 1,  "a": [1, null]}\'', "'\"text\"'", "'null'"],
    "jsonb": ['\'{"b": 1,  "a": [1, null]}\'', "'\"text\"'"],
    "text[]": ["ARRAY['a,b', NULL, '\"', '']", "'{}'"],
    "int[]": ["'[0:1]={1,2}'"],
    "int4range": ["'[1,5)'", "'empty'"],
    "uuid": ["'00000000-0000-0000-0000-0000000000ff'"],
    "tsvector": ["'a:1 b:2'"],
    "bit varying(5)": ["B'101'"],
    "mood": ["'so so'"],
    "pair": ["ROW('x y', 2)"],
    "short": ["'abc'"],
    "required": ["'given'"],
}
TYPES = """
CREATE TYPE mood AS ENUM ('good', 'so so');
CREATE TYPE pair AS (a text, b int);
CREATE DOMAIN short AS varchar(3);
CREATE DOMAIN required AS text NOT NULL;
"""


def captured(db: Connection, source: str, columns: str) -> list[tuple[Any, ...]]:
    """The change rows of a source."""
    buffer = db.execute(
        "SELECT buffer FROM pgtrickle.pgt_captures WHERE source_relid = %s::regclass", (source,)
    ).fetchone()
    assert buffer is not None
    return db.execute(f"SELECT w, {columns} FROM pgtrickle_changes.{buffer[0]} ORDER BY seq, w, 2".encode()).fetchall()


def last(db: Connection) -> tuple[Any, ...]:
    row = db.execute(
        "SELECT refresh_mode, rows_in, rows_out FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1"
    ).fetchone()
    assert row is not None
    return row


@pytest.mark.versions
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
def test_values_of_all_types(db: Connection, database: Any, assert_fresh: Oracle, encoding: str) -> None:
    """Also to a session that speaks another encoding than the database, and has settings of its own."""
    db.execute(TYPES)
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(VALUES))
    db.execute(f"CREATE TABLE t (id int, dropped int, {columns}, unread text)".encode())
    db.execute("ALTER TABLE t DROP COLUMN dropped; ALTER TABLE t REPLICA IDENTITY FULL")
    names = [f"c{number}" for number in range(len(VALUES))]
    pg_trickle.create_stream_table(
        db, "st", f"SELECT {', '.join(['id', *names])} FROM t", schedule=None, cdc_mode="wal"
    )
    longest = max(map(len, VALUES.values()))
    for row in range(longest):
        values = ", ".join(each[row % len(each)] for each in VALUES.values())
        db.execute(f"INSERT INTO t VALUES ({row}, {values}, 'unread')".encode())
    session = database.connect()
    session.execute(f"SET client_encoding = '{encoding}'")
    session.execute("SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape'")
    session.execute("SET TimeZone = 'Asia/Tokyo'; SET extra_float_digits = -10")
    session.execute("SELECT pgtrickle.refresh_stream_table('st')")
    assert last(db) == ("DIFFERENTIAL", longest, longest)
    assert_fresh(db, "st")
    # Long values that an UPDATE leaves alone aren't in the WAL a second time.
    db.execute("UPDATE t SET id = id + 100")
    session.execute("SELECT pgtrickle.refresh_stream_table('st')")
    assert last(db) == ("DIFFERENTIAL", 2 * longest, 2 * longest)
    assert_fresh(db, "st")
    db.execute("UPDATE t SET unread = 'still'; DELETE FROM t WHERE id = 101")
    session.execute("SELECT pgtrickle.refresh_stream_table('st')")
    assert last(db) == ("DIFFERENTIAL", 1, 1)
    assert_fresh(db, "st")


@pytest.fixture
def pairs(db: Connection) -> Connection:
    """A table whose key is all that is read of it."""
    db.execute("CREATE TABLE p (a int, b text, c int, PRIMARY KEY (a, b))")
    db.execute("INSERT INTO p VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3)")
    pg_trickle.create_stream_table(db, "st", "SELECT b, count(*) AS n FROM p GROUP BY b", schedule=None, cdc_mode="wal")
    return db


def test_a_key_is_enough_where_nothing_else_is_read(pairs: Connection, assert_fresh: Oracle) -> None:
    pairs.execute(
        """UPDATE p SET c = 7; UPDATE p SET b = 'x' WHERE a = 2;
           UPDATE p SET a = 9 WHERE a = 1; DELETE FROM p WHERE a = 3"""
    )
    pg_trickle.refresh_stream_table(pairs, "st")
    assert captured(pairs, "p", "b") == [(-1, "y"), (-1, "z"), (1, "x")]
    assert_fresh(pairs, "st")


def test_only_what_is_read_is_stored(pairs: Connection) -> None:
    found = pairs.execute(
        """SELECT array_agg(a.attname::text ORDER BY a.attnum)
             FROM pg_attribute AS a JOIN pgtrickle.pgt_captures AS k ON k.buffer_relid = a.attrelid
            WHERE a.attnum > 0"""
    ).fetchone()
    assert found == (["xid", "seq", "w", "b"],)


def test_no_column_at_all(pairs: Connection, assert_fresh: Oracle) -> None:
    pg_trickle.create_stream_table(pairs, "n", "SELECT count(*) AS n FROM p", schedule=None, cdc_mode="wal")
    pg_trickle.drop_stream_table(pairs, "st")
    pairs.execute("INSERT INTO p VALUES (4, 'w', 4), (5, 'w', 4); UPDATE p SET c = 0; DELETE FROM p WHERE a = 1")
    pg_trickle.refresh_stream_table(pairs, "n")
    assert last(pairs)[:2] == ("DIFFERENTIAL", 3)
    assert_fresh(pairs, "n")


@pytest.mark.versions
def test_truncate_comes_through_the_wal(pairs: Connection, assert_fresh: Oracle) -> None:
    pairs.execute("CREATE TABLE q (a int PRIMARY KEY); INSERT INTO q VALUES (1)")
    pg_trickle.create_stream_table(pairs, "both", "SELECT a FROM q", schedule=None, cdc_mode="wal")
    pairs.execute("BEGIN; INSERT INTO q VALUES (2); TRUNCATE p, q; INSERT INTO q VALUES (3); COMMIT")
    for name in ("st", "both"):
        pg_trickle.refresh_stream_table(pairs, name)
        assert last(pairs)[0] == "FULL"
        assert_fresh(pairs, name)
    pairs.execute("INSERT INTO q VALUES (4)")
    pg_trickle.refresh_stream_table(pairs, "both")
    assert last(pairs) == ("DIFFERENTIAL", 1, 1)


@pytest.mark.versions
def test_what_is_not_on_disk_yet_is_waited_for(pairs: Connection, database: Any, assert_fresh: Oracle) -> None:
    writer = database.connect()
    writer.execute("SET synchronous_commit = off")
    for number in range(10):
        writer.execute("INSERT INTO p VALUES (%s, 'async', 0)", (100 + number,))
        pg_trickle.refresh_stream_table(pairs, "st")
        assert last(pairs)[:2] == ("DIFFERENTIAL", 1)
        assert_fresh(pairs, "st")


@pytest.mark.versions
def test_own_writes_are_seen_and_counted_once(pairs: Connection, assert_fresh: Oracle) -> None:
    """The WAL tells of a transaction when it has committed: its own refresh recomputes, and so does the next one."""
    with pairs.transaction():
        pairs.execute("INSERT INTO p VALUES (10, 'own', 0)")
        pg_trickle.refresh_stream_table(pairs, "st")
        assert pairs.execute("SELECT n FROM st WHERE b = 'own'").fetchone() == (1,)
        pairs.execute("INSERT INTO p VALUES (11, 'own', 0)")
    for mode in ("FULL", "DIFFERENTIAL"):
        pairs.execute("INSERT INTO p SELECT max(a) + 1, 'own', 0 FROM p")
        pg_trickle.refresh_stream_table(pairs, "st")
        assert last(pairs)[0] == mode
        assert_fresh(pairs, "st")


def test_transaction_ids_beyond_32_bits(db: Connection) -> None:
    """The WAL has the lower half; the snapshot tells which is meant."""
    for low, xmax, want in (
        (5, 7, 5),
        (4294967295, 4294967296 + 3, 4294967295),
        (2, 4294967296 + 3, 4294967298),
        (4294967290, 3 * 4294967296 + 100, 3 * 4294967296 - 6),
        (2147483650, 4294967296 + 1, 2147483650),
    ):
        row = db.execute(
            "SELECT pgtrickle_changes.wal_xid(%s, %s::pg_snapshot)::text::bigint", (low, f"{xmax}:{xmax}:")
        ).fetchone()
        assert row == (want,)
