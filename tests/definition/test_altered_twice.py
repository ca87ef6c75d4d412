"""What is altered once more in the transaction that had altered it, with a refresh in between, is noticed as well.

Both versions of a catalog row are then from one transaction, and differ in their place alone.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

Connection = psycopg.Connection[tuple[Any, ...]]
SWAP = "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b"
MULTIPLY = "CREATE OR REPLACE FUNCTION f(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT {} * n'"


@pytest.fixture
def source(database: Any, db: Connection) -> Connection:
    database.make_role("reader")
    db.execute(
        f"""
        CREATE TYPE mood AS ENUM ('well', 'ill');
        CREATE TABLE t (id int PRIMARY KEY, a int, b int, feels mood);
        INSERT INTO t VALUES (1, 1, 10, 'well'), (2, 2, 20, 'ill'), (3, 3, 30, 'ill');
        {MULTIPLY.format(2)};
        CREATE VIEW v AS SELECT id, 2 * a AS n FROM t;
        CREATE POLICY p ON t USING (a > 0);
        ALTER TABLE t ENABLE ROW LEVEL SECURITY;
        GRANT SELECT ON t TO reader;
        GRANT USAGE, CREATE ON SCHEMA public TO reader
        """.encode()
    )
    return db


def refresh(db: Connection, times: int = 1) -> None:
    """The first time it may notice something, the second time that all is as it was then."""
    for _ in range(times):
        pg_trickle.refresh_stream_table(db, "st")


@pytest.mark.versions
@pytest.mark.parametrize(
    ("query", "once", "again"),
    [
        ("SELECT id, a, b FROM t", SWAP, f"{SWAP}; INSERT INTO t VALUES (4, 4, 40)"),
        ("SELECT id, f(a) AS n FROM t", MULTIPLY.format(3), MULTIPLY.format(4)),
        ("SELECT id, n FROM v", *(f"CREATE OR REPLACE VIEW v AS SELECT id, {n} * a AS n FROM t" for n in (3, 4))),
        (
            "SELECT id, feels::text AS feels FROM t",
            *(f"ALTER TYPE mood RENAME VALUE {n}" for n in ("'ill' TO 'low'", "'low' TO 'bad'")),
        ),
        ("SELECT id, a FROM t", *(f"ALTER POLICY p ON t USING (a > {n})" for n in (1, 2))),
    ],
    ids=["names of columns", "a function", "a view", "a label", "a policy"],
)
def test_it_is_noticed(source, query, once, again):
    pg_trickle.create_stream_table(source, "st", query, schedule=None)
    if "POLICY" in once:
        source.execute("ALTER TABLE st OWNER TO reader")
    refresh(source, 2)
    with source.transaction():
        source.execute(once.encode())
        refresh(source, 3)
        source.execute(again.encode())
        refresh(source)
        assert_fresh(source, "st")
    assert_fresh(source, "st")


def test_rows_are_not_judged_by_the_policy_before(source):
    """Who writes before a refresh looks at the policy leaves nothing in the buffer that it hides from its owner."""
    pg_trickle.create_stream_table(source, "st", "SELECT id, a FROM t", schedule=None)
    source.execute("ALTER TABLE st OWNER TO reader")
    refresh(source, 2)
    (buffer,) = source.execute("SELECT k.buffer_relid::regclass::text FROM pgtrickle.pgt_captures AS k").fetchone() or (
        "",
    )
    with source.transaction():
        source.execute("ALTER POLICY p ON t USING (a > 4)")
        refresh(source, 2)
        source.execute("ALTER POLICY p ON t USING (a > 6)")
    source.execute("INSERT INTO t VALUES (5, 5), (7, 7)")
    assert source.execute(f"SELECT a FROM {buffer} WHERE a = 5".encode()).fetchall() == []
    refresh(source)
    assert_fresh(source, "st")


def test_versions_are_not_added_up(source, database):
    """A transaction may alter after one with a higher number did: the sum is what it was, and the names are others."""
    pg_trickle.create_stream_table(source, "st", "SELECT id, a, b FROM t", schedule=None)
    refresh(source, 2)
    other = database.connect()
    source.execute("ALTER TABLE t ALTER b SET STATISTICS 10")
    with other.transaction():
        other.execute("SELECT pg_current_xact_id()")
        source.execute("ALTER TABLE t ALTER a SET STATISTICS 10")
        refresh(source, 2)
        other.execute(SWAP.encode())
    source.execute("INSERT INTO t VALUES (4, 4, 40)")
    refresh(source)
    assert_fresh(source, "st")
