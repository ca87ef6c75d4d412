"""A server that has no room even for its WAL: with room again nothing is lost, and all is right."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import psycopg

import pg_trickle
from pg_trickle.testing import EmbeddedServer
from pg_trickle.testing.oracle import assert_fresh
from tests.disk.conftest import Disk, small_disk

Connection = psycopg.Connection[tuple[Any, ...]]

MEGABYTES = 160
SETTINGS = {"min_wal_size": "32MB", "max_wal_size": "32MB", "shared_buffers": "16MB", "restart_after_crash": "off"}
WRITE = "INSERT INTO t SELECT n, n %% 500, repeat('x', 200) FROM generate_series(%s::int, %s::int) AS n"
MODE = "SELECT refresh_mode, rows_in FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1"


def written_until_down(db: Connection) -> int:
    """Write, and use up the WAL until the server goes down; how many rows are there for certain."""
    written = 100
    for _ in range(100):
        for statement, parameters in (
            (WRITE, (written + 1, written + 1000)),
            ("SELECT pg_logical_emit_message(false, 'more', 'WAL')", None),
            ("SELECT pg_switch_wal()", None),
        ):
            try:
                db.execute(statement.encode(), parameters)
                written += 1000 if statement == WRITE else 0
            except psycopg.OperationalError:
                if db.closed:
                    return written
    raise AssertionError("the server found room")


def test_a_server_without_room_goes_on_where_it_was() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        mountpoint = Path(directory, "disk")
        mountpoint.mkdir()
        with small_disk(mountpoint, MEGABYTES):
            mountpoint.chmod(0o755)
            with EmbeddedServer(mountpoint / "server", settings=SETTINGS) as server:
                survive(server, Disk(mountpoint))


def survive(server: EmbeddedServer, disk: Disk) -> None:
    with server.connect() as db:
        db.execute("CREATE EXTENSION pg_trickle; CREATE TABLE t (id int PRIMARY KEY, k int, note text)")
        db.execute(WRITE.encode(), (1, 100))
        pg_trickle.create_stream_table(db, "st", "SELECT k, count(*) AS n FROM t GROUP BY k", schedule=None)
        disk.fill()
        # Some writes are to succeed.
        os.truncate(disk.ballast, disk.ballast.stat().st_size - 4 * 1024**2)
        written = written_until_down(db)
    disk.clear()
    server.stop()
    server.start()
    with server.connect() as db:
        (rows,) = db.execute("SELECT count(*) FROM t").fetchone() or (0,)
        # The last one may have been committed, though nobody could be told.
        assert rows - written in {0, 1000}
        assert rows > 100
        pg_trickle.refresh_stream_table(db, "st")
        assert_fresh(db, "st")
        assert db.execute(MODE.encode()).fetchone() == ("DIFFERENTIAL", rows - 100)
