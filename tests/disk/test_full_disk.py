"""A full disk: what can't be captured isn't written, what can't be refreshed stays as it was, and both say so."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing import EmbeddedServer
from pg_trickle.testing.oracle import assert_fresh
from tests.disk.conftest import Disk, small_disk

Connection = psycopg.Connection[tuple[Any, ...]]

MEGABYTES = 8
HISTORY = "SELECT success, error_message FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1"
WRITE = "INSERT INTO t SELECT n, n %% 500, repeat('x', 200) FROM generate_series(%s::int, %s::int) AS n"
MISPLACED = """
SELECT c.relname FROM pg_class AS c
 WHERE c.relkind = 'r' AND c.reltablespace = 0
   AND (c.relname = 'st' OR c.relname IN (SELECT buffer FROM pgtrickle.pgt_captures))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Connection, Disk]]:
    """A server with a tablespace on a small disk, for all that this session makes but the source."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        mountpoint = Path(directory, "disk")
        mountpoint.mkdir()
        with small_disk(mountpoint, MEGABYTES), EmbeddedServer.temporary() as server:
            owner = server.data.stat()
            tablespace = mountpoint / "tablespace"
            tablespace.mkdir()
            for path in (mountpoint, tablespace):
                os.chown(path, owner.st_uid, owner.st_gid)
            with server.connect() as db:
                db.execute("CREATE EXTENSION pg_trickle; CREATE ROLE pgtrickle_worker LOGIN")
                # Failures are noted by its role, over another connection.
                db.execute("SELECT pgtrickle.grant_worker('pgtrickle_worker')")
                db.execute(f"CREATE TABLESPACE small LOCATION '{tablespace}'".encode())
                yield db, Disk(mountpoint)


@pytest.fixture
def disk(place: tuple[Connection, Disk]) -> Iterator[Disk]:
    db, disk = place
    db.execute("CREATE TABLE t (id int PRIMARY KEY, k int, note text)")
    db.execute(WRITE, (1, 100))
    yield disk
    disk.clear()
    db.execute("RESET default_tablespace")
    pg_trickle.drop_stream_table(db, "st")
    db.execute("DROP TABLE t")


@pytest.fixture
def db(place: tuple[Connection, Disk], disk: Disk) -> Connection:
    return place[0]


def make(db: Connection, query: str, mode: str) -> None:
    db.execute("SET default_tablespace = small")
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode=mode)
    assert db.execute(MISPLACED.encode()).fetchall() == []


def rows(db: Connection, query: bytes = b"SELECT count(*) FROM t") -> Any:
    return db.execute(query).fetchall()


QUERIES = ["SELECT id, k, note FROM t", "SELECT k, count(*) AS n, max(note) AS note FROM t GROUP BY k"]


@pytest.mark.parametrize("query", QUERIES)
def test_a_write_is_captured_or_fails(db: Connection, disk: Disk, query: str) -> None:
    """As long as there is room for its change, and not a row longer."""
    make(db, query, "DIFFERENTIAL")
    disk.fill()
    written, failed = 100, 0
    for _ in range(60):
        try:
            db.execute(WRITE, (written + 1, written + 20))
            written += 20
        except psycopg.errors.DiskFull:
            failed += 1
    assert failed > 0
    assert rows(db) == [(written,)]
    disk.clear()
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    assert rows(db, b"SELECT refresh_mode FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1") == [
        ("DIFFERENTIAL",)
    ]


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL"])
def test_a_refresh_that_finds_no_room_fails_and_says_so(db: Connection, disk: Disk, mode: str) -> None:
    make(db, QUERIES[0], mode)
    db.execute(WRITE, (101, 3000))
    before = rows(db, b"SELECT * FROM st ORDER BY id")
    disk.fill()
    for _ in range(2):
        with pytest.raises(psycopg.errors.DiskFull):
            pg_trickle.refresh_stream_table(db, "st")
        (success, message) = rows(db, HISTORY.encode())[0]
        assert not success
        assert "53100" in message
        assert rows(db, b"SELECT * FROM st ORDER BY id") == before
    disk.clear()
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    assert rows(db, b"SELECT count(*) FROM st") == [(3000,)]


def test_immediate_mode_fails_with_the_writers_statement(db: Connection, disk: Disk) -> None:
    make(db, QUERIES[0], "IMMEDIATE")
    disk.fill()
    with pytest.raises(psycopg.errors.DiskFull):
        db.execute(WRITE, (101, 3000))
    assert rows(db) == [(100,)]
    assert_fresh(db, "st")
    disk.clear()
    db.execute(WRITE, (101, 3000))
    assert_fresh(db, "st")
