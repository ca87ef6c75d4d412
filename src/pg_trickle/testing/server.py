"""An embedded PostgreSQL server: made, started, stopped, restarted and crashed from Python.

    with EmbeddedServer.temporary() as server, server.connect() as conn:
        conn.execute("CREATE EXTENSION pg_trickle")

Connections are trusted, and come in through the loopback interface and a private
directory's unix socket only.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pg_trickle.errors import NotInstalled
from pg_trickle.install.install import write_extension
from pg_trickle.testing.account import SHARED_STATE, Account, server_account, server_environment
from pg_trickle.testing.binaries import Binaries, find_binaries
from pg_trickle.testing.process import Process, Watchdog, children, wait_until

SUPERUSER = "postgres"
START_SECONDS = 60
STOP_SECONDS = 30
ATTEMPTS = 5

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "128MB",
    "max_connections": "100",
    # Compiling a delta query would take longer than running it.
    "jit": "off",
    "logging_collector": "off",
}
# A crash of the machine may lose a throwaway cluster; a crash of the server loses nothing.
THROWAWAY_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_prepared_transactions": "10",
    "shared_buffers": "64MB",
}
# The WAL alone would take a gigabyte of it, and what one query spills all there is.
IN_MEMORY_SETTINGS: Mapping[str, str] = {"min_wal_size": "64MB", "max_wal_size": "256MB", "temp_file_limit": "2GB"}

_LEFT_BEHIND = re.compile(r'FATAL:  could not create file "[^"]+/[0-9]+": File exists')


class EmbeddedServer:
    """A cluster in ``directory`` and the server on it.

    ``durable`` servers keep their data through a crash of the machine; ``attached`` ones
    end with this process, whatever it dies of.
    """

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Binaries | None = None,
        port: int | None = None,
        durable: bool = True,
        attached: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.account = server_account()
        self.directory = _reachable_directory(directory.absolute(), self.account)
        self.binaries = (binaries or find_binaries()).reachable(self.account)
        self.data = self.directory / "cluster"
        self.log = self.directory / "server.log"
        self.configuration = self.directory / "server.conf"
        self.port = port
        self.process: Process | None = None
        self.socket_directory: Path | None = None
        self._durable = durable
        self._attached = attached
        self._fixed_port = port is not None
        self._temporary = False
        self._memory: Path | None = None
        self._words_from = 0
        self._settings = {**SETTINGS, **({} if durable else THROWAWAY_SETTINGS), **(settings or {})}
        self._popen: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None

    @classmethod
    def temporary(
        cls, major: int | None = None, *, settings: Mapping[str, str] | None = None, in_memory: bool = False
    ) -> Self:
        """A server on a cluster of its own that vanishes with it.

        ``in_memory`` keeps the cluster there, where there is room: a database is some four hundred files, and a disk's
        file system takes ten times as long over making and removing them again and again.
        """
        binaries = find_binaries(major)
        account = server_account()
        directory = account.temporary_directory(shared=True)
        memory = account.memory_directory() if in_memory else None
        settings = {**({} if memory is None else IN_MEMORY_SETTINGS), **(settings or {})}
        server = cls(directory, binaries=binaries, durable=False, settings=settings)
        server._temporary = True
        if memory is not None:
            server._memory, server.data = memory, memory / "cluster"
        return server

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Make the cluster unless it is there, start the server, and wait until it answers; failing leaves nothing."""
        if not self.is_running:
            try:
                self._start()
            except BaseException:
                self.close()
                raise
        return self

    def _start(self) -> None:
        self._make_cluster()
        programs = self._place_extension()
        for _ in range(ATTEMPTS):
            self.port = self.port or _free_port()
            self.socket_directory = self.socket_directory or self.account.temporary_directory()
            self._configure()
            self._launch(programs)
            if self._is_ready():
                return
            words = self._words()
            # Between finding a free port and taking it, somebody else may have.
            is_taken = "Address already in use" in words and not self._fixed_port
            # What PostgreSQL has left of unlogged tables and sequences whose creation was undone just before a crash
            # is in the way of its recovery, once: then it knows them.
            if not is_taken and not _LEFT_BEHIND.search(words):
                break
            self._forget()
            if is_taken:
                self.port = None
        raise NotInstalled("PostgreSQL did not start", detail=self._last_words(), hint=f'See "{self.log}".')

    def stop(self) -> None:
        """Shut down: fast; if that doesn't end it, by force."""
        if self.process is not None:
            self.process.end(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, seconds_each=STOP_SECONDS)
        self._forget()
        if self.socket_directory is not None:
            shutil.rmtree(self.socket_directory, ignore_errors=True)
            self.socket_directory = None

    def close(self) -> None:
        """Stop, and remove the cluster if it is a temporary one."""
        self.stop()
        for each in self._vanishing:
            shutil.rmtree(each, ignore_errors=True)

    @property
    def _vanishing(self) -> tuple[Path, ...]:
        """The directories that go away with the server."""
        return tuple(filter(None, (self.directory if self._temporary else None, self._memory)))

    def restart(self) -> None:
        """Stop and start again, on the same port if it is still free."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """Kill every process of the server at once, as a crash would; ``start`` recovers, on the same port."""
        if self.process is None:
            return
        # So that it can't start one more meanwhile, which would keep the next server from starting.
        self.process.send(signal.SIGSTOP)
        backends = children(self.process.pid)
        for process in (self.process, *backends):
            process.send(signal.SIGKILL)
        wait_until(lambda: not any(process.is_alive for process in backends), STOP_SECONDS)
        self._forget()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.is_alive

    def dsn(self, dbname: str = "postgres", user: str = SUPERUSER, **more: Any) -> str:
        """A connection string, by way of the loopback interface."""
        return make_conninfo("", host="127.0.0.1", port=self.port, dbname=dbname, user=user, **more)

    def connect(
        self, dbname: str = "postgres", user: str = SUPERUSER, *, autocommit: bool = True
    ) -> psycopg.Connection[tuple[Any, ...]]:
        """A new connection."""
        return psycopg.connect(self.dsn(dbname, user), autocommit=autocommit)

    def create_database(self, name: str, template: str = "template0") -> None:
        """A new database; one cloned from a template costs a few milliseconds."""
        # Copying files instead of logging pages is faster when nothing is ever synced.
        strategy = sql.SQL("") if self._durable else sql.SQL(" STRATEGY file_copy")
        with self.connect() as conn:
            conn.execute(
                sql.SQL("CREATE DATABASE {name} TEMPLATE {template}{strategy}").format(
                    name=sql.Identifier(name), template=sql.Identifier(template), strategy=strategy
                )
            )

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        with self.connect() as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {name} WITH (FORCE)").format(name=sql.Identifier(name)))

    def _make_cluster(self) -> None:
        if (self.data / "PG_VERSION").exists():
            found = (self.data / "PG_VERSION").read_text().strip()
            if found != str(self.binaries.major):
                raise NotInstalled(
                    f'"{self.data}" is a cluster of PostgreSQL {found}, this is {self.binaries.major}',
                    hint="Choose another directory, or move the data with pg_upgrade.",
                )
            return
        self.account.make_directory(self.data)
        builtin = self.binaries.major >= 17
        locale = (
            ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"] if builtin else ["--locale=C.UTF-8"]
        )
        sync = [] if self._durable else ["--no-sync"]
        answer = self.account.run(
            [
                self.binaries.bin / "initdb",
                f"--pgdata={self.data}",
                f"--username={SUPERUSER}",
                "--auth=trust",
                "--encoding=UTF8",
                *locale,
                *sync,
            ]
        )
        if answer.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise NotInstalled("initdb failed", detail=answer.stderr.strip() or answer.stdout.strip())
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"include {_quoted(str(self.configuration))}\n")

    def _place_extension(self) -> Binaries:
        """Put the extension's files where the server looks for them; the programs to start it with."""
        place = self.directory / "share"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if self.binaries.reads_control_path:
            programs = self.binaries
            self._settings["extension_control_path"] = f"$system:{place}"
            extension = place / "extension"
            extension.mkdir()
        else:
            programs = self.binaries.overlay(place)
            extension = programs.share / "extension"
        write_extension(extension)
        self.account.let_read(place)
        return programs

    def _configure(self) -> None:
        settings = {**self._settings, "port": str(self.port), "unix_socket_directories": str(self.socket_directory)}
        self.configuration.write_text(
            "# Written at every start; settings of your own belong into postgresql.conf.\n"
            + "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items())
        )
        self.account.let_read(self.configuration)

    def _launch(self, programs: Binaries) -> None:
        with self.log.open("ab") as log:
            self._words_from = log.tell()
            self._popen = subprocess.Popen(
                [programs.bin / "postgres", "-D", self.data],
                cwd="/",
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.account.popen_options(),
            )
        self.process = Process.of(self._popen.pid)
        if self._attached:
            remove = filter(None, (self.socket_directory, *self._vanishing))
            self._watchdog = Watchdog(self.data, self._popen.pid, remove)

    def _is_ready(self) -> bool:
        def settled() -> bool:
            return not self.is_running or self._answers()

        return wait_until(settled, START_SECONDS) and self.is_running

    def _answers(self) -> bool:
        # By the private socket: another server may have the port, and answer there until this one has given up.
        dsn = make_conninfo(self.dsn(connect_timeout=2), host=str(self.socket_directory))
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    def _words(self) -> str:
        """What this start has logged, not what others did."""
        return self.log.read_bytes()[self._words_from :].decode(errors="replace")

    def _last_words(self) -> str:
        return "\n".join(self._words().splitlines()[-5:])

    def _forget(self) -> None:
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._popen is not None:
            self._popen.wait()
            self._popen = None
        self.process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(value: str) -> str:
    """A value as configuration files take it."""
    return "'" + value.replace("'", "''") + "'"


def _reachable_directory(directory: Path, account: Account) -> Path:
    """Where the server can keep its files: ``directory``, or a place that it links to.

    A directory below somebody's closed home is of no use to the server's account, and
    opening the home is not ours to do.  Only the cluster belongs to that account: what
    root writes lies where nobody else could put a link in its way.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if account.can_read(directory):
        return directory
    target = SHARED_STATE / hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    for path in (SHARED_STATE, target):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    link = directory / "server"
    if not link.is_symlink():
        link.symlink_to(target)
    return target
