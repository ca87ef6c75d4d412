"""What all tests share: servers, a database each, roles, the oracle and a worker.

A process of the test run starts each server once, on first use, and clones a database for
each test from a template in which the extension is installed: about twenty milliseconds.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from pg_trickle.testing import Binaries, EmbeddedServer, installed_binaries
from pg_trickle.testing.binaries import NEWEST, OLDEST
from pg_trickle.testing.oracle import assert_fresh as check_fresh
from pg_trickle.worker.loop import Worker

TEMPLATE = "pgtrickle_template"
WORKER_ROLE = "pgtrickle_worker"
LOGIN = sql.SQL("LOGIN")

Connection = psycopg.Connection[tuple[Any, ...]]

# Databases are cloned per test, and examples of one test clean up after themselves.
COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "print_blob": True,
}
settings.register_profile("dev", max_examples=20, **COMMON)
settings.register_profile("ci", max_examples=200, derandomize=True, **COMMON)
settings.register_profile("fuzz", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "5000")), **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the corpus again, with what the compiler makes now")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take long: at the end one process would be alone with them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked ``versions`` on every PostgreSQL that is here, and can do what the mark asks for."""
    mark = metafunc.definition.get_closest_marker("versions")
    if "major" in metafunc.fixturenames and mark:
        majors = [binaries.major for binaries in installed_binaries() if _can(binaries, **mark.kwargs)]
        metafunc.parametrize("major", majors, ids=[f"pg{major}" for major in majors])


def _can(
    binaries: Binaries,
    *,
    since: int = OLDEST,
    until: int = NEWEST,
    icu: bool = False,
    extension: str | None = None,
    program: str | None = None,
) -> bool:
    return (
        since <= binaries.major <= until
        and (program is None or (binaries.bin / program).exists())
        and (not icu or _has_icu(binaries.bin))
        and (extension is None or (binaries.share / "extension" / f"{extension}.control").exists())
    )


@cache
def _has_icu(directory: Path) -> bool:
    answer = subprocess.run([directory / "pg_config", "--configure"], check=True, capture_output=True, text=True)
    return "--with-icu" in answer.stdout


class Servers:
    """The running servers of this process, one a major version."""

    def __init__(self, configuration: Mapping[str, str] | None = None) -> None:
        self._configuration = configuration
        self._running: dict[int, EmbeddedServer] = {}

    def of(self, major: int) -> EmbeddedServer:
        if major not in self._running:
            made = EmbeddedServer.temporary(major, settings=self._configuration, in_memory=True)
            self._running[major] = _prepared(made)
        server = self._running[major]
        return server if server.is_running else server.start()

    def close(self) -> None:
        for server in self._running.values():
            server.close()


def _prepared(server: EmbeddedServer) -> EmbeddedServer:
    """A started server that has the template database and the worker's role."""
    try:
        server.start()
        server.create_database(TEMPLATE)
        with server.connect(TEMPLATE) as conn:
            conn.execute("CREATE EXTENSION pg_trickle")
            conn.execute(sql.SQL("CREATE ROLE {role} LOGIN").format(role=sql.Identifier(WORKER_ROLE)))
            conn.execute("SELECT pgtrickle.grant_worker(%s)", (WORKER_ROLE,))
    except BaseException:
        server.close()
        raise
    return server


@dataclass
class Database:
    """A database of one test: connections to it and roles for it, all gone afterwards."""

    server: EmbeddedServer
    name: str
    connections: list[Connection] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    def dsn_of(self, role: str) -> str:
        return self.server.dsn(self.name, role)

    def connect(self, role: str = "postgres", *, autocommit: bool = True) -> Connection:
        """A new connection as a role."""
        conn = self.server.connect(self.name, role, autocommit=autocommit)
        self.connections.append(conn)
        return conn

    def make_role(self, name: str, attributes: sql.SQL = LOGIN) -> str:
        """A role that is dropped after the test."""
        with self.server.connect(self.name) as conn:
            conn.execute(sql.SQL("CREATE ROLE {name} {how}").format(name=sql.Identifier(name), how=attributes))
        self.roles.append(name)
        return name

    def adopt_role(self, name: str) -> None:
        """Drop a role after the test that the test itself makes."""
        self.roles.append(name)

    def remove(self) -> None:
        for conn in self.connections:
            conn.close()
        if not self.server.is_running:
            self.server.start()
        self.server.drop_database(self.name)
        if self.roles:
            with self.server.connect() as conn:
                for role in reversed(self.roles):
                    conn.execute(sql.SQL("DROP ROLE IF EXISTS {role}").format(role=sql.Identifier(role)))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    every = Servers()
    yield every
    every.close()


@pytest.fixture
def major() -> int:
    """The PostgreSQL version of this test: the newest, unless the test is marked ``versions``."""
    return installed_binaries()[0].major


@pytest.fixture
def server(servers: Servers, major: int) -> EmbeddedServer:
    """A running server, shared with other tests."""
    return servers.of(major)


_numbers = itertools.count(1)


@pytest.fixture
def database(server: EmbeddedServer) -> Iterator[Database]:
    """A database of this test's own, with the extension."""
    made = Database(server, f"test_{next(_numbers)}")
    server.create_database(made.name, TEMPLATE)
    yield made
    made.remove()


@pytest.fixture
def bare_database(server: EmbeddedServer) -> Iterator[Database]:
    """A database of this test's own, without the extension."""
    made = Database(server, f"test_{next(_numbers)}")
    server.create_database(made.name)
    yield made
    made.remove()


@pytest.fixture
def db(database: Database) -> Connection:
    """A superuser's connection in autocommit mode to the test's database."""
    return database.connect()


@pytest.fixture
def worker(database: Database) -> Iterator[Worker]:
    """A worker on the test's database, in this process, as its own role that may do nothing else."""
    made = Worker(database.dsn_of(WORKER_ROLE))
    made.start()
    try:
        made.wait_for(lambda: made.is_active)
        yield made
    finally:
        made.stop()


@pytest.fixture
def assert_fresh() -> Callable[[Connection, str], None]:
    """The oracle: fails unless a stream table equals its query."""
    return check_fresh


@pytest.fixture
def fails() -> Callable[..., psycopg.Error]:
    """Run something that must fail with an SQLSTATE, and give back the error."""

    def run(sqlstate: str, action: Callable[..., Any], *arguments: Any, **named: Any) -> psycopg.Error:
        with pytest.raises(psycopg.Error) as caught:
            action(*arguments, **named)
        assert caught.value.sqlstate == sqlstate, caught.value
        return caught.value

    return run
