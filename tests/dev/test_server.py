"""The embedded server: comes up anywhere, and goes away with whoever started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_trickle.testing import Binaries, EmbeddedServer, account, find_binaries
from pg_trickle.testing.account import server_account
from pg_trickle.testing.process import Process, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a closed home is no obstacle to ourselves")

STARTS_AND_DIES = """
import os, signal, sys
from pg_trickle.testing import EmbeddedServer
server = EmbeddedServer.temporary(in_memory=True).start()
print(server.process.pid, server.directory, server.data, server.socket_directory, flush=True)
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""


@pytest.fixture
def own_server(major: int) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.temporary(major) as server:
        yield server


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that the server's account can get to, unlike pytest's own ones."""
    made = server_account().temporary_directory(shared=True)
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


@pytest.fixture
def closed_home(directory: Path) -> Path:
    """A directory that only its owner may enter."""
    directory.chmod(0o700)
    return directory


@pytest.mark.versions
def test_the_extension_comes_from_the_package(own_server: EmbeddedServer) -> None:
    with own_server.connect() as conn:
        conn.execute("CREATE EXTENSION pg_trickle")
        found = conn.execute("SELECT extname FROM pg_extension WHERE extname = 'pg_trickle'").fetchone()
    assert found == ("pg_trickle",)


@pytest.mark.versions
def test_what_was_committed_survives_a_crash(own_server: EmbeddedServer) -> None:
    with own_server.connect() as conn:
        conn.execute("CREATE TABLE kept AS SELECT 1 AS a")
    own_server.crash()
    assert not own_server.is_running
    own_server.start()
    with own_server.connect() as conn:
        assert conn.execute("TABLE kept").fetchall() == [(1,)]


@pytest.mark.versions
def test_an_undone_creation_of_something_unlogged_is_no_obstacle_after_a_crash(own_server: EmbeddedServer) -> None:
    """PostgreSQL's recovery makes its file, finds what is left of it, and gives up; the second time it removes that."""
    with own_server.connect() as one, own_server.connect() as other:
        one.execute("CREATE TABLE t (n int)")
        with one.transaction(force_rollback=True):
            one.execute("CREATE UNLOGGED TABLE u (n int); CREATE UNLOGGED TABLE v (n int)")
            # It writes the log out, which then has the creation, but not yet that it was undone.
            other.execute("INSERT INTO t VALUES (1)")
        own_server.crash()
    own_server.start()
    with own_server.connect() as conn:
        assert conn.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_a_restart_keeps_the_port(own_server: EmbeddedServer) -> None:
    before = own_server.port
    own_server.restart()
    assert own_server.port == before
    assert own_server.is_running


@pytest.mark.parametrize("in_memory", [False, True])
def test_nothing_is_left_of_a_temporary_server(in_memory: bool) -> None:
    with EmbeddedServer.temporary(in_memory=in_memory) as server:
        process, directory, data, sockets = server.process, server.directory, server.data, server.socket_directory
        assert data.exists()
    assert process is not None
    assert sockets is not None
    assert not process.is_alive
    assert not directory.exists()
    assert not data.parent.exists()
    assert not sockets.exists()


def test_a_cluster_in_memory_is_on_the_disk_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "MEMORY_FREE", 1 << 60)
    with EmbeddedServer.temporary(in_memory=True) as server:
        assert server.data.parent == server.directory


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_the_server_ends_with_the_process_that_started_it(name: str) -> None:
    parent = subprocess.run([sys.executable, "-c", STARTS_AND_DIES, name], check=False, capture_output=True, text=True)
    assert parent.returncode == -getattr(signal, name)
    pid, *directories = parent.stdout.split()
    assert wait_until(lambda: Process.of(int(pid)) is None, 60)
    assert wait_until(lambda: not any(Path(each).exists() for each in directories), 60)


def test_a_port_taken_meanwhile_is_exchanged_for_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedServer.temporary()
        server.port = taken.getsockname()[1]
        with server:
            assert server.port != taken.getsockname()[1]


def test_a_setting_with_a_quote_arrives() -> None:
    with EmbeddedServer.temporary(settings={"cluster_name": "it's"}) as server, server.connect() as conn:
        assert conn.execute("SHOW cluster_name").fetchone() == ("it's",)


def test_a_failing_start_says_what_the_server_said() -> None:
    server = EmbeddedServer.temporary(settings={"shared_buffers": "nonsense"})
    with pytest.raises(Exception, match="did not start") as caught, server:
        pass
    assert "shared_buffers" in caught.value.detail  # type: ignore[attr-defined]
    assert not server.directory.exists()


@pytest.mark.versions(until=17)
def test_a_cluster_of_another_version_is_refused(directory: Path, major: int) -> None:
    newest = find_binaries()
    with EmbeddedServer(directory, binaries=newest, durable=False):
        pass
    with pytest.raises(Exception, match=f"is a cluster of PostgreSQL {newest.major}"):
        EmbeddedServer(directory, binaries=find_binaries(major), durable=False).start()


@as_root
def test_a_cluster_below_a_closed_home_is_kept_elsewhere(closed_home: Path) -> None:
    data = closed_home / "play"
    server = EmbeddedServer(data, durable=False)
    try:
        with server, server.connect() as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
        assert closed_home.stat().st_mode & 0o777 == 0o700
        assert (data / "server").resolve() == server.directory
    finally:
        subprocess.run(["rm", "-rf", server.directory], check=True)


@as_root
def test_programs_below_a_closed_home_are_copied(closed_home: Path) -> None:
    original = find_binaries()
    package = original.bin.parent.parent
    subprocess.run(["cp", "-a", package, *package.parent.glob(f"{package.name}.libs"), closed_home], check=True)
    paths = (original.bin, original.share, original.lib)
    moved = Binaries(original.version, *(closed_home / path.relative_to(package.parent) for path in paths))
    reachable = moved.reachable(server_account())
    server = EmbeddedServer(closed_home / "play", binaries=moved, durable=False)
    try:
        assert reachable != moved
        with server, server.connect() as conn:
            conn.execute("CREATE EXTENSION dblink")
        assert closed_home.stat().st_mode & 0o777 == 0o700
    finally:
        subprocess.run(["rm", "-rf", reachable.bin.parents[2], server.directory], check=True)
