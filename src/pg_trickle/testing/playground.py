"""A server and a worker that go on when the command that started them is done: ``pgtrickle dev``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from pg_trickle.errors import NotInstalled
from pg_trickle.testing.process import Process, wait_until
from pg_trickle.testing.server import STOP_SECONDS, EmbeddedServer

WORKER_ROLE = "pgtrickle_worker"
WORKER_SECONDS = 30
# The session lock that a live worker holds (docs/internals.md §6), as pg_locks shows it.
WORKER_LOCK = (1885762401,)


@dataclass(frozen=True, slots=True)
class State:
    """What ``up`` started."""

    dsn: str
    port: int
    data: str
    server: Process
    worker: Process
    socket_directory: str
    schedule: bool = True
    version: str = ""

    @property
    def is_up(self) -> bool:
        return self.server.is_alive and self.worker.is_alive

    def to_json(self) -> dict[str, Any]:
        """What a program needs to know of it."""
        return {
            "dsn": self.dsn,
            "pid": self.server.pid,
            "worker_pid": self.worker.pid,
            "port": self.port,
            "data": self.data,
            "postgresql": self.version,
        }


def up(data: Path, *, port: int | None = None, schedule: bool = True) -> State:
    """Start a server in ``data`` and a worker on it, and wait until both are ready; if they run already, say where.

    A worker that is there and isn't as asked for gives way to another; a server on another port is refused.
    """
    data = data.absolute()
    data.mkdir(parents=True, exist_ok=True)
    with _locked(data):
        before = status(data)
        if before and before.server.is_alive:
            _demand_port(before, port)
            if before.worker.is_alive and before.schedule == schedule:
                return before
            return _with_new_worker(before, data, schedule=schedule)
        if before:
            _end(before)
        server = EmbeddedServer(data, port=port, attached=False)
        try:
            server.start()
            prepare(server)
            worker = start_worker(server, data / "worker.log", schedule=schedule)
        except BaseException:
            server.close()
            raise
        assert server.process is not None
        assert server.port is not None
        place, version = str(server.socket_directory), server.binaries.version
        state = State(server.dsn(), server.port, str(data), server.process, worker, place, schedule, version)
        return _noted(state, data)


def _with_new_worker(before: State, data: Path, *, schedule: bool) -> State:
    """The server goes on, with whoever is connected to it."""
    _end_process(before.worker, signal.SIGTERM)
    server = EmbeddedServer(data, port=before.port, attached=False)
    worker = start_worker(server, data / "worker.log", schedule=schedule)
    return _noted(replace(before, worker=worker, schedule=schedule), data)


def _demand_port(before: State, port: int | None) -> None:
    if port not in (None, before.port):
        raise NotInstalled(
            f"a server runs there already, on port {before.port}",
            hint=f'Stop it with pgtrickle dev down --data "{before.data}" first, or choose another directory.',
        )


def _noted(state: State, data: Path) -> State:
    _state_file(data).write_text(json.dumps(asdict(state)))
    return state


def down(data: Path) -> bool:
    """Stop what ``up`` started there; say whether anything was running."""
    data = data.absolute()
    if not data.is_dir():
        return False
    with _locked(data):
        state = status(data)
        if state is None:
            return False
        was_running = state.server.is_alive or state.worker.is_alive
        _end(state)
        _state_file(data).unlink()
        return was_running


def status(data: Path) -> State | None:
    """What ``up`` started there, running or not; None if nothing, or if ``down`` stopped it."""
    try:
        found = json.loads(_state_file(data.absolute()).read_text())
    except FileNotFoundError:
        return None
    return State(**{**found, "server": Process(**found["server"]), "worker": Process(**found["worker"])})


def prepare(server: EmbeddedServer, dbname: str = "postgres") -> None:
    """Make the extension and the worker's role, unless they are there."""
    with server.connect(dbname) as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS pg_trickle")
        if conn.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", (WORKER_ROLE,)).rowcount == 0:
            conn.execute(sql.SQL("CREATE ROLE {role} LOGIN").format(role=sql.Identifier(WORKER_ROLE)))
        conn.execute("SELECT pgtrickle.grant_worker(%s)", (WORKER_ROLE,))


def start_worker(server: EmbeddedServer, log: Path, *, dbname: str = "postgres", schedule: bool = True) -> Process:
    """Start ``pgtrickle worker`` as a process of its own, and wait until it answers compile requests."""
    options = [] if schedule else ["--no-schedule"]
    command = [
        sys.executable,
        "-m",
        "pg_trickle.cli.main",
        "worker",
        "--dsn",
        server.dsn(dbname, WORKER_ROLE),
        *options,
    ]
    with log.open("ab") as file:
        popen = subprocess.Popen(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    process = Process.of(popen.pid)
    with server.connect(dbname) as conn:

        def settled() -> bool:
            return popen.poll() is not None or _has_worker(conn)

        if not wait_until(settled, WORKER_SECONDS) or popen.poll() is not None or process is None:
            popen.kill()
            popen.wait()
            words = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise NotInstalled("the worker did not start", detail=words, hint=f'See "{log}".')
    # It is to outlive us, so nobody will wait for it: that is no leak.
    popen.returncode = 0
    return process


def _has_worker(conn: psycopg.Connection[Any]) -> bool:
    found = conn.execute(
        """
        SELECT l.pid
          FROM pg_catalog.pg_locks    AS l
          JOIN pg_catalog.pg_database AS d ON d.oid = l.database
         WHERE d.datname = pg_catalog.current_database()
           AND l.locktype = 'advisory' AND l.classid = %s AND l.objsubid = 2
           AND l.granted
        """,
        WORKER_LOCK,
    ).fetchone()
    return found is not None


def _end(state: State) -> None:
    # The worker first: it logs off, and has no server to miss.
    _end_process(state.worker, signal.SIGTERM)
    _end_process(state.server, signal.SIGINT)
    shutil.rmtree(state.socket_directory, ignore_errors=True)


def _end_process(process: Process, polite: signal.Signals) -> None:
    if not process.end(polite, signal.SIGQUIT, signal.SIGKILL, seconds_each=STOP_SECONDS):
        raise NotInstalled(f"process {process.pid} could not be stopped")


def _state_file(data: Path) -> Path:
    return data / "dev.json"


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time."""
    handle = os.open(data / "dev.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
