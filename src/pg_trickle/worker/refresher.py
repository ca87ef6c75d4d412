"""One run: a group refreshed in one transaction, with what its failures ask for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from pg_trickle.worker import retry
from pg_trickle.worker.compiler_process import CompilerProcess, shared
from pg_trickle.worker.gateway import Connection, Gateway, Result
from pg_trickle.worker.log import logger
from pg_trickle.worker.scheduler import Outcome, Run
from pg_trickle.worker.tally import Tally

# A plan that is stale again right after it was made: somebody alters the sources all the time.
PLANS_A_RUN = 3
CONNECTION_LOST = "08006"
CONFLICT = "40001"

log = logger("pg_trickle.worker.refresh")


@dataclass(frozen=True, slots=True)
class Refresher:
    """Runs groups on connections of a pool.  Safe to use from several threads."""

    pool: ConnectionPool[Connection]
    compiler: CompilerProcess = field(default_factory=shared)
    stopping: threading.Event = field(default_factory=threading.Event)
    tally: Tally = field(default_factory=Tally)
    _busy: set[Connection] = field(default_factory=set)

    @contextmanager
    def _gateway(self) -> Iterator[Gateway]:
        with self.pool.connection() as connection:
            self._busy.add(connection)
            try:
                yield Gateway(connection)
            finally:
                self._busy.discard(connection)

    def cancel(self) -> None:
        """Break off what is running; it is rolled back, and the next worker does it again."""
        for connection in tuple(self._busy):
            connection.cancel_safe(timeout=1)

    def run(self, run: Run) -> dict[int, Outcome]:
        """Refresh a group; what became of each member.  Raises nothing that has to do with the server."""
        try:
            return self._refresh(run)
        except (psycopg.Error, PoolTimeout) as exc:
            sqlstate = _sqlstate(exc)
            log.warning("refresh broken off", tables=run.group, sqlstate=sqlstate)
            if self.stopping.is_set() or retry.may_be_retried(sqlstate, max(run.failures.values())):
                return dict.fromkeys(run.group, Outcome.RETRY)
            if len(run.group) > 1:
                return self._one_by_one(run)
            return {run.group[0]: self._failed(run, run.group[0], sqlstate, _message(exc))}

    def _one_by_one(self, run: Run) -> dict[int, Outcome]:
        """Find out which member it was.

        Some errors can't be caught inside the transaction (a cancelled statement, a failed assertion in a
        function of the query), and nobody's query may keep the others in the group from being refreshed: not even
        at one moment.
        """
        outcomes: dict[int, Outcome] = {}
        for table in run.group:
            alone = replace(run, group=(table,), companions=(), graph=None, failures={table: run.failures[table]})
            outcomes.update(self.run(alone))
        return outcomes

    def _refresh(self, run: Run) -> dict[int, Outcome]:
        broken: dict[int, Outcome] = {}
        stale: list[int] = []
        for _ in range(PLANS_A_RUN):
            with self._gateway() as gateway:
                # Who can't be compiled is left behind, and what reads it.
                results = gateway.refresh(run, graph=None if broken else run.graph)
            if any(result.outdated for result in results):
                log.info("graph outdated", tables=run.group)
                # A new plan makes another graph, too.  One that is made again and again is slowed down.
                return dict.fromkeys(run.group, Outcome.RETRY if stale else Outcome.OUTDATED)
            stale = [result.id for result in results if result.stale_plan]
            if not stale or broken:
                return {result.id: broken.get(result.id) or self._outcome(run, result) for result in results}
            broken = {table: outcome for table in stale if (outcome := self._replan(run, table)) is not None}
        failed = {table: self._failed(run, table, CONFLICT, "the sources are altered all the time") for table in stale}
        return dict.fromkeys(run.group, Outcome.RETRY) | broken | failed

    def _outcome(self, run: Run, result: Result) -> Outcome:
        log.debug("refreshed", table=result.id, mode=result.mode, rows_in=result.rows_in, rows_out=result.rows_out)
        if result.sqlstate is not None:
            return self._failed(run, result.id, result.sqlstate, result.message or "")
        outcome = Outcome.SKIPPED if result.stale_plan or result.skipped else Outcome.REFRESHED
        self.tally.note(result, outcome)
        return outcome

    def _replan(self, run: Run, table: int) -> Outcome | None:
        """Compile a stream table's query again; an outcome if that failed."""
        try:
            with self._gateway() as gateway:
                request = gateway.compile_request(table)
            found = self.compiler.answer(request, give_up=self.stopping.is_set)
            if found["error"] is not None:
                return self._failed(run, table, found["error"]["sqlstate"], found["error"]["message"])
            with self._gateway() as gateway:
                gateway.install_plan(table, found["plan"])
        except psycopg.Error as exc:
            return self._failed(run, table, _sqlstate(exc), _message(exc))
        log.info("compiled again", table=table)
        return None

    def _failed(self, run: Run, table: int, sqlstate: str, message: str) -> Outcome:
        outcome = self._judged(run, table, sqlstate, message)
        self.tally.note_failure(table, outcome)
        return outcome

    def _judged(self, run: Run, table: int, sqlstate: str, message: str) -> Outcome:
        """Retry what may pass by itself, a few times; record anything else as an error of this stream table."""
        if self.stopping.is_set() or retry.may_be_retried(sqlstate, run.failures[table]):
            log.info("refresh to be retried", table=table, sqlstate=sqlstate, failures=run.failures[table] + 1)
            return Outcome.RETRY
        # The message may quote values of the data: it belongs in the history, which has its readers, not in the log.
        log.warning("refresh failed", table=table, sqlstate=sqlstate)
        try:
            with self._gateway() as gateway:
                gateway.failed(
                    table, started_at=run.started_at, sqlstate=sqlstate, message=message, max_errors=run.max_errors
                )
        except (psycopg.Error, PoolTimeout) as exc:
            log.warning("failure not recorded", table=table, sqlstate=_sqlstate(exc))
            return Outcome.RETRY
        return Outcome.FAILED


def _sqlstate(exc: BaseException) -> str:
    """The error's SQLSTATE; errors without one come from the connection, not from the server."""
    return (exc.sqlstate if isinstance(exc, psycopg.Error) else None) or CONNECTION_LOST


def _message(exc: psycopg.Error) -> str:
    return exc.diag.message_primary or "connection lost"
