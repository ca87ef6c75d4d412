"""Carries out a case on a server, and compares with what PostgreSQL itself says the queries give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import psycopg

import pg_trickle
from tests.refresh.workload.cases import Alter, Case, Close, Commit, Open, Refresh, Switch
from tests.refresh.workload.tables import quoted
from tests.refresh.workload.values import Query
from tests.upkeep import check_reason, check_states, last_refresh, unlike

Connection = psycopg.Connection[tuple[Any, ...]]
# A statement that breaks a constraint, or has to wait for the other session, is not carried out.
HARMLESS = (
    psycopg.errors.IntegrityError,
    psycopg.errors.DataError,
    psycopg.errors.CardinalityViolation,
    psycopg.errors.LockNotAvailable,
)


LONGEST_QUERY_MS = 200
# What takes longer is left alone: how long a refresh takes depends on the machine, and isn't asked here.
LONGEST_REFRESH_S = 15


class NoQuery(Exception):
    """PostgreSQL doesn't take it for one, or takes too long over it."""


class Runner:
    """One case: its tables, stream tables and the two sessions."""

    harmless: tuple[type[Exception], ...] = HARMLESS

    def __init__(self, conn: Connection, other: Connection, case: Case) -> None:
        self.conn = conn
        self.other = other
        self.case = case
        self.queries = dict(case.streams)
        self.conn.execute(f"SET statement_timeout = '{LONGEST_REFRESH_S}s'")

    def run(self) -> None:
        """Do everything, comparing after each refresh; what it keeps up is looked at after each by itself, and last."""
        for step in self.case.steps:
            match step:
                case Commit(statements, undone, outcome):
                    self._commit(statements, undone, outcome)
                case Refresh():
                    self._refresh(step)
                case Open(statement):
                    self.other.execute("BEGIN")
                    self._write(self.other, statement)
                case Close(outcome):
                    self.other.execute(outcome)
                case Alter(statement):
                    self._alter(statement)
                case Switch(name, mode):
                    self._switch(name, mode)
        self.check_upkeep()

    def create(self) -> list[str]:
        """Make tables and stream tables; what kept a stream table from being incremental."""
        for one in self.case.tables:
            self.conn.execute(one.definition)
        for statement in self.case.first:
            self._write(self.conn, statement)
        for view in self.case.views:
            self._probe(view.query)
            self.conn.execute(view.definition)
        for name, query in self.case.streams:
            self._probe(query)
            with self._in_time(name), self._moment():
                self.create_stream_table(name, query)
                self.check(name)
        found = self.conn.execute(
            "SELECT plan -> 'refusal' ->> 'construct' FROM pgtrickle.pgt_plans WHERE plan -> 'refusal' <> 'null'"
        )
        return [construct for (construct,) in found]

    def create_stream_table(self, name: str, query: Query) -> None:
        """Make one stream table."""
        pg_trickle.create_stream_table(self.conn, name, query.sql, schedule=None)

    def _moment(self) -> AbstractContextManager[object]:
        """A transaction, where what is compared would not be the same a moment later."""
        return self.conn.transaction() if self.case.is_timed else nullcontext()

    def remove(self) -> None:
        """Leave nothing behind."""
        for conn in (self.conn, self.other):
            if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                conn.execute("ROLLBACK")
        for name, _ in reversed(self.case.streams):
            if self.conn.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,):
                pg_trickle.drop_stream_table(self.conn, name, cascade=True)
        for table in self.case.tables:
            # What was detached is no part of it.
            for name in (table.name, *(one.name for one in table.below)):
                self.conn.execute(f"DROP TABLE IF EXISTS {name} CASCADE")

    @contextmanager
    def _in_time(self, name: str) -> Iterator[None]:
        """What isn't done in time, joins of joins of views for the most part, tells nothing about rows."""
        try:
            yield
        except psycopg.errors.QueryCanceled as exc:
            self.conn.execute("ROLLBACK")
            raise NoQuery(f"{name} takes too long") from exc

    def _probe(self, query: Query) -> None:
        try:
            with self.conn.transaction(force_rollback=True):
                self.conn.execute(f"CREATE TEMP VIEW probe AS {query.sql}")
                # It runs again and again, over more rows than now; what many cross joins show, a few show, too.
                self.conn.execute(f"SET LOCAL statement_timeout = '{LONGEST_QUERY_MS}ms'")
                self.conn.execute("SELECT * FROM probe")
        except (psycopg.errors.ProgrammingError, psycopg.errors.QueryCanceled) as exc:
            raise NoQuery(str(exc)) from exc

    def _write(self, conn: Connection, statement: str) -> None:
        try:
            with conn.transaction():
                conn.execute(statement)
        except self.harmless:
            pass

    def _alter(self, statement: str) -> None:
        with suppress(*self.harmless, psycopg.errors.ProgrammingError):
            self.conn.execute(statement)

    def _switch(self, name: str, mode: str) -> None:
        with suppress(*self.harmless, psycopg.errors.FeatureNotSupported):
            pg_trickle.alter_stream_table(self.conn, name, refresh_mode=mode)

    def _commit(self, statements: Iterable[str], undone: Iterable[str], outcome: str) -> None:
        self.conn.execute("BEGIN")
        for statement in statements:
            self._write(self.conn, statement)
        self.conn.execute("SAVEPOINT s")
        for statement in undone:
            self._write(self.conn, statement)
        self.conn.execute("ROLLBACK TO s")
        self.conn.execute(outcome)

    def _refresh(self, step: Refresh) -> None:
        alone = not step.before and not step.after and step.isolation == "READ COMMITTED"
        if not alone:
            self.conn.execute(f"BEGIN ISOLATION LEVEL {step.isolation}")
        for statement in step.before:
            self._write(self.conn, statement)
        for name in step.names:
            with self._in_time(name), self._moment():
                pg_trickle.refresh_stream_table(self.conn, name)
                check_reason(self.conn, name)
                self.check(name)
        for statement in step.after:
            self._write(self.conn, statement)
        if not alone:
            self.conn.execute(step.outcome)
            return
        # Undone: recomputing now would take away what the next refresh is to go wrong by.
        for name in step.names:
            with self._in_time(name), self.conn.transaction(force_rollback=True):
                self._check_upkeep(name, self.queries[name])

    def check(self, name: str) -> None:
        """The stream table equals its query, by value; where values are certain, to the letter."""
        query = self.queries[name]
        listed = ", ".join(one.sql if one.loose else one.type.text(one.sql) for one in query.columns)
        (view,) = self._one(
            "SELECT definition_view::regclass::text FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", name
        )
        have, want = f"SELECT {listed} FROM {quoted(name)}", f"SELECT {listed} FROM {view}"
        wrong = unlike(self.conn, have, want)
        assert wrong == [], f"{name} is not its query: {wrong}\n{query.sql}"
        verdict = self._one("SELECT missing, extra, ok FROM pgtrickle.verify_stream_table(%s)", name)
        assert verdict == (0, 0, True), f"verify_stream_table({name}) says {verdict}"
        check_states(self.conn, name)

    def check_upkeep(self) -> None:
        """A refresh without changes writes nothing, nor does recomputing."""
        for name, query in self.case.streams:
            with self._in_time(name), self._moment():
                self._check_upkeep(name, query)

    def _check_upkeep(self, name: str, query: Query) -> None:
        if self.case.is_timed:
            pg_trickle.refresh_stream_table(self.conn, name)
        pg_trickle.refresh_stream_table(self.conn, name)
        assert last_refresh(self.conn, name)[1] == 0, f"refreshing {name} again wrote rows"
        pg_trickle.reinitialize_stream_table(self.conn, name)
        pg_trickle.refresh_stream_table(self.conn, name)
        # Recomputed, a group may show another of its equal values.
        if not any(one.loose for one in query.columns):
            assert last_refresh(self.conn, name)[1] == 0, f"recomputing {name} wrote rows"
        self.check(name)

    def _one(self, query: str, *parameters: str) -> tuple[Any, ...]:
        row = self.conn.execute(query, parameters).fetchone()
        assert row is not None
        return row
