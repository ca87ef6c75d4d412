"""Random stream tables over random tables equal their queries after every statement, whatever is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from hypothesis import event, given, settings

import pg_trickle
from tests.refresh.workload.cases import Case, Refresh, cases
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.runner import HARMLESS, NoQuery, Runner
from tests.refresh.workload.sessions import Sessions
from tests.refresh.workload.shrink import raise_small

Connection = psycopg.Connection[tuple[Any, ...]]
pytestmark = [pytest.mark.property, pytest.mark.slow]


class ImmediateRunner(Runner):
    """Checks after each statement of the first session, not only after refreshes."""

    def __init__(self, conn: Connection, other: Connection, case: Case) -> None:
        super().__init__(conn, other, case)
        self.immediate: list[str] = []
        self.warnings: list[str] = []

    def create(self) -> list[str]:
        """Every stream table whose query can be IMMEDIATE is; the others are refreshed."""
        refused = super().create()
        for name, _ in self.case.streams:
            try:
                pg_trickle.alter_stream_table(self.conn, name, refresh_mode="IMMEDIATE")
                self.immediate.append(name)
            except psycopg.errors.FeatureNotSupported:
                continue
        return refused

    def _write(self, conn: Connection, statement: str) -> None:
        with self._in_time("a statement"):
            try:
                with conn.transaction():
                    conn.execute(statement)
            except (*HARMLESS, psycopg.errors.SerializationFailure):
                return
            if conn is self.conn:
                self.check_all()

    def check_all(self) -> None:
        """Every IMMEDIATE stream table equals its query; one that reads a deferred one, what that holds."""
        for name in self.immediate:
            self.check(name)
        assert self.warnings == []

    def _refresh(self, step: Refresh) -> None:
        try:
            super()._refresh(step)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.SerializationFailure):
            self.conn.execute("ROLLBACK")


@contextmanager
def warnings_of(conn: Connection) -> Iterator[list[str]]:
    """What the server warns of."""
    found: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING" and "recomputed" in (diagnostic.message_primary or ""):
            found.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    try:
        yield found
    finally:
        conn.remove_notice_handler(note)


@pytest.fixture
def sessions(database) -> Sessions:
    return Sessions(database)


# Each example is compared after every statement.
FEW = max(10, settings().max_examples // 4)


@afresh(FEW)
@given(case=cases())
def test_immediate_stream_tables_equal_their_queries(sessions, case: Case):
    trouble = carried_out(sessions, case)
    if trouble is not None:
        raise_small(case, trouble, lambda other: carried_out(sessions, other))


def carried_out(sessions: Sessions, case: Case) -> Exception | None:
    """What went wrong with a case, if anything did."""
    runner = ImmediateRunner(*sessions.pair(), case)
    with warnings_of(runner.conn) as runner.warnings:
        try:
            runner.create()
            event(f"{len(runner.immediate)} of {len(case.streams)} are IMMEDIATE")
            runner.run()
        except (psycopg.Error, AssertionError, NoQuery) as exc:
            return exc
        finally:
            runner.remove()
    return None
