"""``pgtrickle dashboard``: what it shows, and that it ends."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl

import pytest

PATIENCE_SECONDS = 30


@pytest.fixture
def tables(db, pgtrickle):
    """Three stream tables: one that waits, one that was refreshed, one that failed."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    db.execute("INSERT INTO t VALUES (1), (2), (3)")
    for name in ("first", "second", "broken"):
        pgtrickle("create", name, "SELECT 10 / id AS share FROM t" if name == "broken" else "SELECT id FROM t")
    db.execute("INSERT INTO t VALUES (0)")
    assert pgtrickle("refresh", "first").code == 0
    return db


def test_it_shows_status_lag_refreshes_and_what_waits(tables, pgtrickle):
    shown = pgtrickle("dashboard", "--once").out
    assert "3 stream tables" in shown
    assert "worker_running" in shown
    assert re.search(r"public\.second .*ACTIVE", shown)
    assert re.search(r"public\.second +public\.t +1", shown)
    assert "MANUAL" in shown


def test_json_has_it_all(tables, pgtrickle):
    seen = pgtrickle("dashboard", "--json").json
    assert [row["name"] for row in seen["stream_tables"]] == ["public.broken", "public.first", "public.second"]
    first = seen["stream_tables"][1]
    assert (first["status"], first["rows_in"], first["rows_out"]) == ("ACTIVE", 1, 1)
    assert {row["stream_table"]: row["pending_rows"] for row in seen["buffers"]} == {
        "public.broken": 1,
        "public.first": 0,
        "public.second": 1,
    }
    assert seen["history"][0]["by"] == "MANUAL"


def test_what_anybody_called_something_commands_no_terminal(db, pgtrickle):
    """A name may hold what clears a screen, or sets a window's title."""
    db.execute("CREATE TABLE t (id int)")
    pgtrickle("create", '"a\x1b]0;mine\x07b\x9b2J"', "SELECT 10 / id AS share FROM t")
    db.execute("INSERT INTO t VALUES (0)")
    told = [
        pgtrickle("dashboard", "--once").out,
        pgtrickle("status").out,
        pgtrickle("refresh", '"a\x1b]0;mine\x07b\x9b2J"').err,
        pgtrickle("refresh", '"no\x1b[2J"').err,
    ]
    assert all(not set("\x1b\x07\x9b") & set(text) for text in told), told
    assert r"a\x1b]0;mine\x07b\x9b2J" in told[0]
    assert r"no\x1b[2J" in told[3]


def test_without_stream_tables_it_says_so(database, pgtrickle):
    assert "no stream tables" in pgtrickle("dashboard", "--once").out


def test_who_may_see_nothing_sees_nothing(tables, database, run):
    database.make_role("stranger")
    refused = run("dashboard", "--dsn", database.dsn_of("stranger"), "--once")
    assert (refused.code, refused.out) == (1, "")
    assert "42501" in refused.err


@contextmanager
def _terminal(dsn: str, *, lines: int = 12, columns: int = 40) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a terminal of that size; the other end of it."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    command = [sys.executable, "-m", "pg_trickle.cli.main", "dashboard", "--every", "0.2", "--dsn", dsn]
    environment = {**os.environ, "TERM": "xterm"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, text: str) -> str:
    seen = ""
    until = time.monotonic() + PATIENCE_SECONDS
    while text not in seen and select.select([terminal], [], [], max(until - time.monotonic(), 0))[0]:
        seen += os.read(terminal, 65536).decode(errors="replace")
    assert text in seen
    return seen


def test_q_ends_it_also_in_a_small_terminal(tables, database):
    with _terminal(database.dsn) as (process, terminal):
        _read_until(terminal, "second")
        os.write(terminal, b"xq")
        _read_until(terminal, "\x1b[?1049l")
        assert process.wait(PATIENCE_SECONDS) == 0


def test_ctrl_c_ends_it_and_a_server_that_went_away_does_not(tables, database):
    with _terminal(database.dsn, columns=120) as (process, terminal):
        _read_until(terminal, "public.second")
        tables.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = %s",
            (database.name,),
        )
        _read_until(terminal, "trying again")
        _read_until(terminal, "public.second")
        process.send_signal(signal.SIGINT)
        _read_until(terminal, "\x1b[?1049l")
        assert process.wait(PATIENCE_SECONDS) == 0
