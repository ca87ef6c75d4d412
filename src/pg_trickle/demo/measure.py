"""What the stream tables do, read from the product's own history; and what recomputing would cost, tried out."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, median
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from pg_trickle.demo.tables import StreamTable

# Figures on the screen are of the last seconds; those in the summary of up to so many refreshes and commits.
WINDOW_SECONDS = 5.0
REFRESHES_KEPT = 10_000
LAGS_KEPT = 100_000
COUNT_EVERY_SECONDS = 2.0
# The rivals get a tenth of one processor at most.
RIVALS_REST = 10.0
RIVALS_REST_AT_LEAST_SECONDS = 1.0
RIVAL_TRIES_KEPT = 5

# When a refresh can be seen is when its transaction has committed; what it shows is what had committed when it began.
_HISTORY: LiteralString = """
    SELECT h.refresh_id, h.pgt_name,
           extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(h.xmin))::float8 AS shown_at,
           extract(epoch FROM h.data_timestamp)::float8 AS data_at,
           1000 * extract(epoch FROM h.finished_at - h.started_at)::float8 AS milliseconds,
           h.rows_in, h.rows_out, h.refresh_mode
      FROM pgtrickle.pgt_refresh_history AS h
     WHERE h.refresh_id > %s AND h.success AND h.data_timestamp IS NOT NULL
     ORDER BY h.refresh_id
"""
_LATEST: LiteralString = """
    SELECT sched_dep_time AT TIME ZONE 'America/New_York', airline, carrier, flight, origin, dest, dep_delay
      FROM public.late_departures
     ORDER BY time_hour DESC, sched_dep_time DESC, carrier, flight
     LIMIT %s
"""
_COUNT: LiteralString = "SELECT count(*) FROM {table}"
_RECOMPUTE: LiteralString = "REFRESH MATERIALIZED VIEW {view}"


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh that found something to do."""

    shown_at: float
    milliseconds: float
    rows_in: int
    rows_out: int
    mode: str


class Late(NamedTuple):
    """A row of the stream table late_departures."""

    scheduled: datetime
    airline: str
    carrier: str
    flight: int
    origin: str
    dest: str
    minutes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to say about a stream table at some moment; None for what has not been seen yet."""

    name: str
    shows: str
    rows: int
    refreshes: int
    lag_ms: float | None = None
    worst_lag_ms: float | None = None
    rows_in: float | None = None
    rows_out: float | None = None
    refresh_ms: float | None = None
    recompute_ms: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times cheaper a refresh is than recomputing."""
        return self.recompute_ms / self.refresh_ms if self.recompute_ms and self.refresh_ms else None


@dataclass(slots=True)
class _Observed:
    """What has been seen of one stream table."""

    rows: int = 0
    data_at: float | None = None
    count: int = 0
    recomputed: int = 0
    refreshes: deque[Refresh] = field(default_factory=lambda: deque(maxlen=REFRESHES_KEPT))
    # When a commit was shown, and how long after it had returned, in milliseconds.
    lags: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=LAGS_KEPT))


class Monitor:
    """Reads the history of refreshes as it grows, and sets it against the times of the writer's commits."""

    def __init__(self, conn: psycopg.Connection[Any], tables: Sequence[StreamTable]) -> None:
        self._conn = conn
        self._tables = tables
        self._seen = 0
        self._counted_at = float("-inf")
        self._observed: dict[str, _Observed] = defaultdict(_Observed)
        self.look(())
        for observed in self._observed.values():
            observed.refreshes.clear()
            observed.count = 0

    def look(self, commits: Iterable[float]) -> None:
        """Take in what has happened since the last look; ``commits`` are in order."""
        times = list(commits)
        for number, name, shown_at, data_at, milliseconds, rows_in, rows_out, mode in self._conn.execute(
            _HISTORY, (self._seen,)
        ):
            self._seen = number
            observed = self._observed[name]
            if observed.data_at is not None:
                shown = times[bisect_right(times, observed.data_at) : bisect_right(times, data_at)]
                observed.lags.extend((shown_at, 1000 * (shown_at - each)) for each in shown)
            observed.data_at = data_at
            if rows_in:
                observed.refreshes.append(Refresh(shown_at, milliseconds, rows_in, rows_out, mode))
                observed.count += 1
        if time.monotonic() - self._counted_at >= COUNT_EVERY_SECONDS:
            self.count_rows()

    def count_rows(self) -> None:
        """Count the rows of every stream table."""
        for table in self._tables:
            statement = sql.SQL(_COUNT).format(table=sql.Identifier("public", table.name))
            row = self._conn.execute(statement).fetchone()
            assert row is not None
            (self._observed[table.name].rows,) = row
        self._counted_at = time.monotonic()

    def latest(self, rows: int) -> list[Late]:
        """The latest late departures, as the stream table has them."""
        return [Late(*row) for row in self._conn.execute(_LATEST, (rows,))]

    def figures(self, rivals: Rivals, *, seconds: float = WINDOW_SECONDS) -> list[Figures]:
        """The figures of the last so many seconds; of the last refresh where there was none in them."""
        since = time.time() - seconds
        return [self._figures(table, rivals.milliseconds(table.name), since) for table in self._tables]

    def _figures(self, table: StreamTable, recompute_ms: float | None, since: float) -> Figures:
        observed = self._observed[table.name]
        refreshes = [each for each in observed.refreshes if each.shown_at >= since] or list(observed.refreshes)[-1:]
        lags = [lag for shown_at, lag in observed.lags if shown_at >= since] or [lag for _, lag in observed.lags][-1:]
        if not refreshes:
            return Figures(table.name, table.shows, observed.rows, 0, recompute_ms=recompute_ms)
        return Figures(
            table.name,
            table.shows,
            observed.rows,
            observed.count,
            lag_ms=median(lags) if lags else None,
            worst_lag_ms=max(lags) if lags else None,
            rows_in=fmean(each.rows_in for each in refreshes),
            rows_out=fmean(each.rows_out for each in refreshes),
            refresh_ms=median(each.milliseconds for each in refreshes),
            recompute_ms=recompute_ms,
        )


class Rivals:
    """Refreshes the materialized views of the same queries, one now and then, and notes how long that takes."""

    def __init__(self, dsn: str, tables: Sequence[StreamTable]) -> None:
        self.error: BaseException | None = None
        self._dsn = dsn
        self._tables = tables
        self._tries = {table.name: deque[float](maxlen=RIVAL_TRIES_KEPT) for table in tables}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rivals", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def milliseconds(self, name: str) -> float | None:
        """What REFRESH MATERIALIZED VIEW costs: the median of the last few."""
        tries = list(self._tries[name])
        return median(tries) if tries else None

    def _run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True, application_name="rivals") as conn:
                for table in self._in_turn():
                    self._stopping.wait(self._rest(self._try(conn, table)))
        except Exception as exc:
            self.error = exc

    def _rest(self, tried_ms: float) -> float:
        # Each once at the beginning, so that there is something to compare with.
        if not all(self._tries.values()):
            return 0.0
        return max(RIVALS_REST_AT_LEAST_SECONDS, RIVALS_REST * tried_ms / 1000)

    def _in_turn(self) -> Iterator[StreamTable]:
        while True:
            for table in self._tables:
                if self._stopping.is_set():
                    return
                yield table

    def _try(self, conn: psycopg.Connection[Any], table: StreamTable) -> float:
        statement = sql.SQL(_RECOMPUTE).format(view=sql.Identifier("materialized", table.name))
        began = time.perf_counter()
        conn.execute(statement)
        took = 1000 * (time.perf_counter() - began)
        self._tries[table.name].append(took)
        return took
