"""The worker: one thread that looks at the database and decides, others that refresh, compile and tidy up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pg_trickle.errors import InvalidDefinition
from pg_trickle.worker import retry
from pg_trickle.worker.compile_service import CompileService
from pg_trickle.worker.drainer import Drainer
from pg_trickle.worker.exporter import Exporter
from pg_trickle.worker.gateway import Gateway, Poll, connect, connect_pool
from pg_trickle.worker.housekeeping import Housekeeper
from pg_trickle.worker.log import logger
from pg_trickle.worker.marks import Snapshot
from pg_trickle.worker.metrics import Metrics
from pg_trickle.worker.refresher import Refresher
from pg_trickle.worker.scheduler import Outcome, Run, Scheduler
from pg_trickle.worker.tally import Tally

# How long to wait between two looks, by how long nothing has happened: (quiet for, wait).
PACES_SECONDS = ((1.0, 0.003), (10.0, 0.01), (float("inf"), 0.02))
STANDBY_SECONDS = 0.5
# Settings change without a word in the WAL.
ASK_WHETHER_ENABLED_EVERY_SECONDS = 1.0
RELOAD_AT_LEAST_EVERY_SECONDS = 15.0
HOUSEKEEPING_SECONDS = 3.0
# What a refresh may take to end by itself when the worker is told to stop.
GRACE_SECONDS = 3.0
MOST_THREADS = 32
# For who waits until the worker has done something: a bound, long enough for a machine that is busy with other things.
PATIENCE_SECONDS = 60.0

log = logger("pg_trickle.worker")


class Clock(Protocol):
    """The time of this machine.  Schedules go by the server's."""

    def monotonic(self) -> float: ...

    def wait(self, event: threading.Event, seconds: float) -> None: ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> None:
        event.wait(seconds)


@dataclass(slots=True)
class Sight:
    """What was seen last, to see that nothing is new."""

    wal_lsn: str | None = None
    snapshot: Snapshot | None = None
    enabled: bool = True
    asked_at: float = float("-inf")
    loaded_at: float = float("-inf")
    busy_at: float = float("-inf")


class Worker:
    """Keeps the stream tables of one database up to date: ``start()``, ``stop()``.

    Stateless: what has to outlive it is in the database's tables.  A second worker waits until the first is gone.
    """

    def __init__(
        self, dsn: str, *, schedule: bool = True, clock: Clock | None = None, heeds_metrics_port: bool = True
    ) -> None:
        """``heeds_metrics_port``: serve metrics if pg_trickle.metrics_port says where."""
        self._dsn = dsn
        self._heeds_metrics_port = heeds_metrics_port
        self.metrics = Metrics(dsn, Tally(), lambda: self._active)
        self._schedule = schedule
        self._clock = clock or SystemClock()
        self._scheduler = Scheduler()
        self._finished: SimpleQueue[tuple[Run, dict[int, Outcome]]] = SimpleQueue()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._looks = 0
        self._idle_looks = 0
        self._active = False
        self._looked = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pg_trickle worker", daemon=True)

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End, cleanly: what is being refreshed is finished, or rolled back if that takes too long."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.metrics.close()

    @property
    def is_active(self) -> bool:
        """Whether this is the one worker of its database, and at work."""
        return self._active

    def wait_for(self, predicate: Callable[[], bool], timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until something is so, looking whenever the worker has done something; TimeoutError if it isn't."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so after {timeout} seconds")
            with self._looked:
                self._looked.wait(0.05)

    def wait_until_idle(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until the worker has looked, after this call began, and found nothing (more) to do."""
        # The next look may have begun already.
        begin = self._looks + 1
        self.wait_for(lambda: self._idle_looks > begin, timeout)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                self._session()
            except psycopg.Error as exc:
                log.warning(
                    "connection to the server ended",
                    sqlstate=exc.sqlstate,
                    error=type(exc).__name__,
                    reason=reason(exc),
                )
            except Exception as exc:
                log.exception("worker stumbled", error=type(exc).__name__)
            failures = 1 if self._clock.monotonic() - began > retry.LONGEST_DELAY_SECONDS else failures + 1
            self._clock.wait(self._stopping, retry.delay(failures, random.random()))

    def _session(self) -> None:
        """From one connection to its end."""
        with connect(self._dsn) as connection, ExitStack() as stack:
            gateway = Gateway(connection)
            if not self._take_lock(gateway):
                return
            log.info("worker active", **_place(self._dsn), schedule=self._schedule)
            self._active = True
            stack.callback(self._set_inactive)
            if self._heeds_metrics_port:
                self._serve_metrics(gateway.settings().metrics_port, stack)
            service = CompileService(self._dsn)
            service.start()
            stack.callback(service.stop)
            if self._schedule:
                self._keep_up_to_date(gateway, stack)
            else:
                while not self._stopping.is_set():
                    # The lock goes with the connection.
                    gateway.look(known_lsn=None, with_enabled=False)
                    self._clock.wait(self._stopping, STANDBY_SECONDS)

    def _serve_metrics(self, port: int, stack: ExitStack) -> None:
        """As the setting has it; a port that can't be had is no reason not to refresh."""
        if port == 0:
            return
        try:
            exporter = Exporter(self.metrics, port)
        except InvalidDefinition as exc:
            log.warning("metrics not served", port=port, error=exc.detail)
            return
        exporter.start()
        stack.callback(exporter.stop)

    def _take_lock(self, gateway: Gateway) -> bool:
        """Become the one worker, however long that takes; False if stopped before."""
        waiting = False
        while not self._stopping.is_set():
            if gateway.lock():
                return True
            if not waiting:
                log.info("standing by: another worker is active", **_place(self._dsn))
                waiting = True
            self._clock.wait(self._stopping, STANDBY_SECONDS)
        return False

    def _set_inactive(self) -> None:
        self._active = False

    def _keep_up_to_date(self, gateway: Gateway, stack: ExitStack) -> None:
        housekeeper = Housekeeper(self._dsn, every_seconds=HOUSEKEEPING_SECONDS)
        housekeeper.start()
        stack.callback(housekeeper.stop)
        drainer = Drainer(self._dsn)
        drainer.start()
        stack.callback(drainer.stop)
        pool = stack.enter_context(connect_pool(self._dsn, most=MOST_THREADS))
        refresher = Refresher(pool, tally=self.metrics.tally)
        executor = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="pg_trickle refresh")
        stack.callback(self._wind_up, refresher, executor)
        self._scheduler.forget()
        sight = Sight()
        while not self._stopping.is_set():
            self._wake.clear()
            began = self._clock.monotonic()
            for run in self._look(gateway, sight):
                executor.submit(self._refresh, refresher, run)
            self._note_look(idle=self._scheduler.idle or not (sight.enabled or self._scheduler.runs))
            now = self._clock.monotonic()
            pace = next(pace for limit, pace in PACES_SECONDS if now - sight.busy_at <= limit)
            # Looking after thousands of stream tables takes its time: half of one processor at most.
            self._clock.wait(self._wake, max(pace, now - began))

    def _look(self, gateway: Gateway, sight: Sight) -> list[Run]:
        """See what is new, and what to begin with."""
        scheduler = self._scheduler
        asked_at = self._clock.monotonic()
        ask = asked_at - sight.asked_at >= ASK_WHETHER_ENABLED_EVERY_SECONDS
        look = gateway.look(known_lsn=sight.wal_lsn, known_snapshot=sight.snapshot, with_enabled=ask)
        sight.wal_lsn, sight.snapshot = look.wal_lsn, look.snapshot
        sight.asked_at = asked_at if ask else sight.asked_at
        self._take_in_finished(look.now)
        moved = look.poll is not None and self._take_in_poll(look.poll, sight)
        if scheduler.stale or look.now - sight.loaded_at >= RELOAD_AT_LEAST_EVERY_SECONDS:
            tables, graph = gateway.graph()
            scheduler.load(tables, gateway.settings(), graph=graph)
            sight.loaded_at = look.now
            # There may be sources now whose marks didn't matter before.
            sight.wal_lsn = None
        if not sight.enabled:
            return []
        check = scheduler.to_check(look.snapshot)
        if check.tables or check.sources:
            found = gateway.pending(check.tables)
            scheduler.checked(check, pending=found.tables, snapshot=found.snapshot, next_xid=found.next_xid)
        runs = scheduler.start(look.now)
        if moved or runs or scheduler.runs:
            sight.busy_at = self._clock.monotonic()
        return runs

    def _take_in_poll(self, poll: Poll, sight: Sight) -> bool:
        """Whether a mark has moved."""
        if poll.enabled is not None and poll.enabled != sight.enabled:
            log.info("scheduling switched on" if poll.enabled else "scheduling switched off")
            sight.enabled = poll.enabled
        self._scheduler.stale |= poll.catalog_version != self._scheduler.graph
        return self._scheduler.observe(poll.high_water)

    def _refresh(self, refresher: Refresher, run: Run) -> None:
        """Runs in a thread of the executor.  Whatever happens, the scheduler hears of it."""
        outcomes = dict.fromkeys(run.group, Outcome.RETRY)
        try:
            outcomes |= refresher.run(run)
        except Exception as exc:
            log.exception("refresh stumbled", error=type(exc).__name__, tables=run.group)
        finally:
            self._finished.put((run, outcomes))
            self._wake.set()

    def _take_in_finished(self, now: float) -> None:
        while True:
            try:
                run, outcomes = self._finished.get_nowait()
            except Empty:
                return
            self._scheduler.finished(run, outcomes, now=now, jitter=random.random())

    def _wind_up(self, refresher: Refresher, executor: ThreadPoolExecutor) -> None:
        """Let the refreshes that are under way end, then make them."""
        deadline = self._clock.monotonic() + GRACE_SECONDS
        executor.shutdown(wait=False)
        refresher.stopping.set()
        while self._scheduler.runs > self._finished.qsize():
            if self._clock.monotonic() > deadline:
                refresher.cancel()
            self._wake.clear()
            self._clock.wait(self._wake, 0.1)
        self._take_in_finished(time.time())

    def _note_look(self, *, idle: bool) -> None:
        with self._looked:
            self._looks += 1
            if idle:
                self._idle_looks = self._looks
            self._looked.notify_all()


def reason(error: psycopg.Error) -> str | None:
    """Why there is no connection: the server isn't there, or turns us away, or every transaction is another session.

    Other words may quote what isn't for a log, such as half of a connection string.
    """
    if isinstance(error, psycopg.errors.InvalidSqlStatementName):
        return "A pooler gives transactions to any session, and the worker needs its own: connect past it."
    words = str(error)
    return words if words.startswith("connection failed: connection to server") else None


def _place(dsn: str) -> dict[str, object]:
    """Where a DSN leads, without how to get in."""
    given = conninfo_to_dict(dsn)
    return {key: given[key] for key in ("host", "port", "dbname", "user") if key in given}
