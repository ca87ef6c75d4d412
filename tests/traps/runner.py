"""Carries a script out, and holds every refresh against what PostgreSQL says the queries give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.traps.script import Script, Statement, statement
from tests.upkeep import check_states, last_refresh

Connection = psycopg.Connection[tuple[Any, ...]]

DIFFERENTIAL = "DIFFERENTIAL"


class Runner:
    """One script in a database of its own; ``connect`` opens the sessions that it names."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.connect = connect
        self.conn = connect()
        self.sessions: dict[str, Connection] = {}
        self.streams: dict[str, str] = {}

    def run(self, script: Script) -> None:
        """Do everything; at the end nothing is left to do, and computing it all anew changes nothing."""
        for one in script.statements():
            self.do(one)
        assert self.streams, "a script without a stream table proves nothing"
        self.refresh((*self.streams,), recomputed=True)
        self.recompute()

    def do(self, one: Statement) -> None:
        match one.kind:
            case "stream":
                self.create(one)
            case "alter":
                pg_trickle.alter_stream_table(self.conn, one.name, query=one.rest)
                self.check(one.name)
            case "refresh":
                self.refresh(tuple(one.rest.split()) or (*self.streams,), recomputed=one.full)
            case "recompute":
                self.recompute()
            case "on":
                if one.name not in self.sessions:
                    self.sessions[one.name] = self.connect()
                self.sessions[one.name].execute(one.rest.encode())
            case "fails":
                with pytest.raises(psycopg.Error) as error, self.conn.transaction():
                    self.do(statement(one.rest))
                assert error.value.sqlstate == one.name, error.value
            case _:
                self.conn.execute(one.rest.encode())

    def create(self, one: Statement) -> None:
        mode = "FULL" if one.full else DIFFERENTIAL
        pg_trickle.create_stream_table(self.conn, one.name, one.rest, schedule=None, refresh_mode=mode)
        self.streams[one.name] = mode
        self.check(one.name)

    def refresh(self, names: tuple[str, ...], *, recomputed: bool) -> None:
        """Refresh, by applying deltas unless some may be recomputed; then once more, with nothing to do."""
        for name in names:
            pg_trickle.refresh_stream_table(self.conn, name)
            mode, _, reason = last_refresh(self.conn, name)
            assert recomputed or mode == self.streams[name], f"{name} was recomputed: {reason}"
        for name in names:
            self.check(name)
            pg_trickle.refresh_stream_table(self.conn, name)
            assert last_refresh(self.conn, name)[1] == 0, f"refreshing {name} again wrote rows"

    def recompute(self) -> None:
        """What was maintained step by step is what computing it anew gives, down to its states."""
        for name in self.streams:
            pg_trickle.reinitialize_stream_table(self.conn, name)
            pg_trickle.refresh_stream_table(self.conn, name)
            assert last_refresh(self.conn, name)[1] == 0, f"recomputing {name} wrote rows"
            self.check(name)

    def check(self, name: str) -> None:
        assert_fresh(self.conn, name)
        check_states(self.conn, name)
