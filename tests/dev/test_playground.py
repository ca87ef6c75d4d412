"""``pgtrickle dev``: up, status, down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pg_trickle.testing.account import server_account
from pg_trickle.testing.process import Process, wait_until
from pg_trickle.testing.server import EmbeddedServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def data() -> Iterator[Path]:
    made = server_account().temporary_directory(shared=True)
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


@pytest.fixture
def dev(data: Path) -> Iterator[Run]:
    """Run ``pgtrickle dev``; whatever a failing test leaves running is stopped."""

    def dev(command: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pg_trickle.cli.main", "dev", command, "--data", str(data), *options],
            check=False,
            capture_output=True,
            text=True,
        )

    yield dev
    dev("down")


def started(dev: Run, *options: str) -> dict[str, Any]:
    answer = dev("up", "--json", *options)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_sql_alone_is_enough_once_it_is_up(dev: Run) -> None:
    state = started(dev)
    with psycopg.connect(state["dsn"], autocommit=True) as conn:
        conn.execute("CREATE TABLE orders (id int PRIMARY KEY, amount int)")
        conn.execute("SELECT pgtrickle.create_stream_table('total', 'SELECT sum(amount) AS amount FROM orders')")
        conn.execute("INSERT INTO orders VALUES (1, 42)")
        assert wait_until(lambda: conn.execute("TABLE total").fetchall() == [(42,)], 60)
        version = conn.execute("SHOW server_version").fetchone()
    assert version is not None
    assert state["postgresql"] == version[0].split()[0]
    assert dev("up").stdout == f"PostgreSQL {state['postgresql']} is ready: psql '{state['dsn']}'\n"


def test_down_stops_both_and_the_data_stays(dev: Run) -> None:
    state = started(dev)
    processes = [Process.of(state["pid"]), Process.of(state["worker_pid"])]
    with psycopg.connect(state["dsn"]) as conn:
        conn.execute("CREATE TABLE kept ()")
    assert dev("status").returncode == 0
    assert dev("down").stdout == "stopped\n"
    assert not any(process.is_alive for process in processes if process)
    assert dev("status").returncode == 1
    with psycopg.connect(started(dev)["dsn"]) as conn:
        assert conn.execute("SELECT to_regclass('kept')::text").fetchone() == ("kept",)


def test_up_twice_is_up_once(dev: Run) -> None:
    assert started(dev) == started(dev)


def test_up_again_gives_the_worker_that_is_asked_for(dev: Run, data: Path) -> None:
    first = started(dev)
    with psycopg.connect(first["dsn"], autocommit=True) as conn:
        second = started(dev, "--no-worker-schedule")
        assert second == {**first, "worker_pid": second["worker_pid"]}
        assert second["worker_pid"] != first["worker_pid"]
        assert started(dev, "--no-worker-schedule") == second
        assert conn.execute("SELECT 1").fetchone() == (1,), "the server goes on"
    assert Process.of(first["worker_pid"]) is None
    assert '"schedule": false' in (data / "worker.log").read_text().splitlines()[-1]


def test_up_again_on_another_port_is_refused(dev: Run) -> None:
    first = started(dev)
    answer = dev("up", "--port", str(first["port"] % 60_000 + 1_024))
    assert answer.returncode == 1
    assert f"runs there already, on port {first['port']}" in answer.stderr
    assert started(dev, "--port", str(first["port"])) == first


@pytest.mark.parametrize(
    "options", [["up", "--port", "0"], ["up", "--port", "65536"], ["up", "--data", ""], ["status", "--data", ""]]
)
def test_what_is_no_port_or_directory_is_told_at_once(dev: Run, data: Path, options: list[str]) -> None:
    answer = dev(*options)
    assert answer.returncode == 2, answer.stderr
    assert list(data.iterdir()) == []


def test_there_is_no_connection_string_before_up(dev: Run) -> None:
    answer = dev("status", "--dsn-only")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "nothing was started there" in answer.stderr


def test_up_mends_a_dead_worker(dev: Run) -> None:
    first = started(dev)
    os.kill(first["worker_pid"], signal.SIGKILL)
    assert wait_until(lambda: Process.of(first["worker_pid"]) is None, 60)
    second = started(dev)
    assert second == {**first, "worker_pid": second["worker_pid"]}, "the server goes on where it was"
    assert second["worker_pid"] != first["worker_pid"]
    assert dev("status").returncode == 0


def test_the_port_can_be_chosen(dev: Run) -> None:
    port = 20_000 + os.getpid() % 10_000
    assert started(dev, "--port", str(port))["port"] == port


def test_a_port_of_another_server_is_refused_and_that_server_left_alone(dev: Run) -> None:
    with EmbeddedServer.temporary() as stranger:
        answer = dev("up", "--port", str(stranger.port))
        assert answer.returncode == 1
        assert "already in use" in answer.stderr
        with stranger.connect() as conn:
            found = conn.execute("SELECT FROM pg_extension WHERE extname = 'pg_trickle'")
            assert found.rowcount == 0
        assert dev("status").returncode == 1


def test_a_worker_without_schedule_still_compiles(dev: Run, data: Path) -> None:
    with psycopg.connect(started(dev, "--no-worker-schedule")["dsn"], autocommit=True) as conn:
        conn.execute("CREATE TABLE t (a int)")
        conn.execute("SELECT pgtrickle.create_stream_table('s', 'SELECT a FROM t')")
        conn.execute("INSERT INTO t VALUES (1)")
        assert conn.execute("TABLE s").fetchall() == []
        conn.execute("SELECT pgtrickle.refresh_stream_table('s')")
        assert conn.execute("TABLE s").fetchall() == [(1,)]
    assert '"schedule": false' in (data / "worker.log").read_text()


def test_down_without_up_stops_nothing(dev: Run) -> None:
    assert dev("down").stdout == "nothing was running\n"


def test_down_leaves_a_stranger_alone_that_got_the_pid(dev: Run, data: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        theirs = {"pid": stranger.pid, "started": "another time"}
        state = {"dsn": "", "port": 1, "data": str(data), "server": theirs, "worker": theirs}
        (data / "dev.json").write_text(json.dumps({**state, "socket_directory": str(data / "none")}))
        assert dev("down").returncode == 0
        assert stranger.poll() is None
        stranger.kill()
