"""The rest of the year as a live stream: flights are scheduled, leave, arrive, or are cancelled."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from itertools import count, groupby
from typing import Any, LiteralString

import psycopg

from pg_trickle.demo.flights import Flight

# How long before its hour of departure a flight appears, and when a cancelled one vanishes.
SCHEDULED_AHEAD = timedelta(hours=6)
CANCELLED_MINUTES = (-180, 60)
# After the year's end the same three months again: a whole number of weeks that is longer than they are.
REPEAT_AFTER = timedelta(weeks=14)
# A writer that was held up doesn't make up for more than this.
CATCH_UP_SECONDS = 0.5
COMMITS_KEPT = 50_000


class Kind(IntEnum):
    """What can happen to a flight, in the order in which it does."""

    SCHEDULED = 0
    DEPARTED = 1
    ARRIVED = 2
    CANCELLED = 3

    @property
    def statement(self) -> str:
        return ("INSERT", "UPDATE", "UPDATE", "DELETE")[self]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that becomes known of a flight at some time."""

    at: datetime
    kind: Kind
    flight: Flight

    @property
    def transaction(self) -> tuple[datetime, Kind, str]:
        """Events that are equal in this are written together: an airline's schedule; a minute at the airports."""
        return self.at, self.kind, self.flight.carrier if self.kind is Kind.SCHEDULED else ""


_STATEMENTS: dict[Kind, LiteralString] = {
    Kind.SCHEDULED: """
        INSERT INTO flights (year, month, day, sched_dep_time, sched_arr_time, carrier, flight, tailnum, origin, dest,
                             distance, hour, minute, time_hour)
        VALUES (%(year)s, %(month)s, %(day)s, %(sched_dep_time)s, %(sched_arr_time)s, %(carrier)s, %(flight)s,
                %(tailnum)s, %(origin)s, %(dest)s, %(distance)s, %(hour)s, %(minute)s, %(time_hour)s)
        """,
    Kind.DEPARTED: """
        UPDATE flights SET dep_time = %(dep_time)s, dep_delay = %(dep_delay)s
         WHERE time_hour = %(time_hour)s AND carrier = %(carrier)s AND flight = %(flight)s
        """,
    Kind.ARRIVED: """
        UPDATE flights SET arr_time = %(arr_time)s, arr_delay = %(arr_delay)s, air_time = %(air_time)s
         WHERE time_hour = %(time_hour)s AND carrier = %(carrier)s AND flight = %(flight)s
        """,
    Kind.CANCELLED: """
        DELETE FROM flights WHERE time_hour = %(time_hour)s AND carrier = %(carrier)s AND flight = %(flight)s
        """,
}


def events(stream: Sequence[Flight], seed: int = 2013) -> Iterator[Event]:
    """Everything that happens, in order; after the last flight it all happens again, some weeks later."""
    once = sorted(_events(stream, random.Random(seed)), key=_order)
    for repetition in count():
        shift = repetition * REPEAT_AFTER
        for event in once:
            yield event if not shift else Event(event.at + shift, event.kind, _later(event.flight, shift))


def transactions(stream: Iterable[Event]) -> Iterator[list[Event]]:
    """The events that are written together."""
    for _, group in groupby(stream, key=lambda event: event.transaction):
        yield list(group)


def _events(stream: Iterable[Flight], chance: random.Random) -> Iterator[Event]:
    for flight in stream:
        yield Event(flight.time_hour - SCHEDULED_AHEAD, Kind.SCHEDULED, flight)
        if flight.dep_time is None:
            # When it was called off is the one thing that the data set doesn't tell.
            minutes = chance.randint(*CANCELLED_MINUTES)
            yield Event(flight.sched_dep_time + timedelta(minutes=minutes), Kind.CANCELLED, flight)
            continue
        yield Event(flight.dep_time, Kind.DEPARTED, flight)
        if flight.arr_time is not None:
            yield Event(flight.arr_time, Kind.ARRIVED, flight)


def _order(event: Event) -> tuple[datetime, Kind, str, int]:
    return event.at, event.kind, event.flight.carrier, event.flight.flight


def _later(flight: Flight, shift: timedelta) -> Flight:
    date = datetime(flight.year, flight.month, flight.day) + shift
    return flight._replace(
        year=date.year,
        month=date.month,
        day=date.day,
        dep_time=flight.dep_time and flight.dep_time + shift,
        sched_dep_time=flight.sched_dep_time + shift,
        arr_time=flight.arr_time and flight.arr_time + shift,
        sched_arr_time=flight.sched_arr_time + shift,
        time_hour=flight.time_hour + shift,
    )


@dataclass(slots=True)
class Written:
    """What the writer has done so far."""

    rows: Counter[str] = field(default_factory=Counter)
    transactions: int = 0
    # What the clocks in New York show, in the story.
    clock: datetime | None = None
    # When each COMMIT had returned.
    commits: deque[float] = field(default_factory=lambda: deque(maxlen=COMMITS_KEPT))


class Writer:
    """Writes the stream, in a thread on a connection of its own, at some pace: ``start()``, ``stop()``."""

    def __init__(self, dsn: str, stream: Iterable[Event], *, rows_per_second: float) -> None:
        self.written = Written()
        self.error: BaseException | None = None
        self._dsn = dsn
        self._transactions = transactions(stream)
        self._rows_per_second = rows_per_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flight desk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, after the transaction that is under way."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with psycopg.connect(self._dsn, application_name="flight desk") as conn:
                self._write(conn)
        except Exception as exc:
            self.error = exc

    def _write(self, conn: psycopg.Connection[Any]) -> None:
        due = time.monotonic()
        for batch in self._transactions:
            due = max(due, time.monotonic() - CATCH_UP_SECONDS) + len(batch) / self._rows_per_second
            write(conn, batch)
            self._note(batch)
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return

    def _note(self, batch: Sequence[Event]) -> None:
        written = self.written
        written.commits.append(time.time())
        written.transactions += 1
        written.rows[batch[0].kind.statement] += len(batch)
        written.clock = batch[0].at + batch[0].flight.offset


def write(conn: psycopg.Connection[Any], batch: Sequence[Event]) -> None:
    """One transaction: events of one kind."""
    rows = [event.flight._asdict() for event in batch]
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(_STATEMENTS[batch[0].kind], rows)
