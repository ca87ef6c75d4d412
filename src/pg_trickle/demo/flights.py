"""The flights of the data set, with instants where the file has local clock times."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

MISSING = "NA"
DAY_MINUTES = 24 * 60
# New York's in summer.
SUMMER_OFFSET_HOURS = -4
# Served from New York, but not in the table of airports: Puerto Rico and the Virgin Islands, without summer time.
ATLANTIC_AIRPORTS = ("BQN", "PSE", "SJU", "STT")
ATLANTIC_OFFSET_HOURS = -4

Progress = Callable[[int], None]


class Flight(NamedTuple):
    """A row of the table flights: columns, names and order are the data set's.

    Local times of day became instants.  What is not known yet, or never, is None.
    """

    year: int
    month: int
    day: int
    dep_time: datetime | None
    sched_dep_time: datetime
    dep_delay: int | None
    arr_time: datetime | None
    sched_arr_time: datetime
    arr_delay: int | None
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    air_time: int | None
    distance: int
    hour: int
    minute: int
    time_hour: datetime

    @property
    def offset(self) -> timedelta:
        """New York's offset from UTC on that day."""
        return timedelta(hours=_offset_hours(self.hour, self.time_hour))

    @property
    def is_cancelled(self) -> bool:
        return self.dep_time is None


class Zone(NamedTuple):
    """An airport's standard offset from UTC, and whether its clocks follow the American summer time."""

    hours: int
    has_summer_time: bool

    def minutes(self, *, summer: bool) -> int:
        return 60 * (self.hours + (summer and self.has_summer_time))


def zones(airports: Path) -> dict[str, Zone]:
    """The zones of the airports by their codes."""
    found = dict.fromkeys(ATLANTIC_AIRPORTS, Zone(ATLANTIC_OFFSET_HOURS, False))
    with airports.open(newline="", encoding="utf-8") as file:
        found.update({row["faa"]: Zone(int(row["tz"]), row["dst"] == "A") for row in csv.DictReader(file)})
    return found


def read(
    archive: Path | BinaryIO, airports: Mapping[str, Zone], progress: Progress = lambda _bytes: None
) -> Iterator[Flight]:
    """The flights in a zipped CSV file; ``progress`` is told how many bytes of it have been read, all in all."""
    with zipfile.ZipFile(archive) as zipped, zipped.open(zipped.namelist()[0]) as raw:
        lines = csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        if tuple(next(lines)) != Flight._fields:
            raise ValueError(f"{archive} has other columns than expected")
        for number, row in enumerate(lines):
            yield _flight(row, airports)
            if number % 2000 == 0:
                progress(raw.tell())


def size(archive: Path | BinaryIO) -> int:
    """How many bytes there are to read."""
    with zipfile.ZipFile(archive) as zipped:
        return zipped.infolist()[0].file_size


def _flight(row: list[str], airports: Mapping[str, Zone]) -> Flight:
    hour, minute = int(row[16]), int(row[17])
    time_hour = _instant(row[18])
    scheduled = time_hour + timedelta(minutes=minute)
    summer = _offset_hours(hour, time_hour) == SUMMER_OFFSET_HOURS
    there = airports[row[13]].minutes(summer=summer)
    dep_delay, arr_delay = _integer(row[5]), _integer(row[8])
    departure = None if dep_delay is None else scheduled + timedelta(minutes=dep_delay)
    due = _next_at(scheduled, int(row[7]), there)
    arrival = None
    if arr_delay is not None:
        arrival = due + timedelta(minutes=arr_delay)
    elif departure is not None and row[6] != MISSING:
        # Diverted: it arrived in the end, but that is no delay.
        arrival = _next_at(departure, int(row[6]), there)
    return Flight(
        year=int(row[0]),
        month=int(row[1]),
        day=int(row[2]),
        dep_time=departure,
        sched_dep_time=scheduled,
        dep_delay=dep_delay,
        arr_time=arrival,
        sched_arr_time=due,
        arr_delay=arr_delay,
        carrier=row[9],
        flight=int(row[10]),
        tailnum=None if row[11] == MISSING else row[11],
        origin=row[12],
        dest=row[13],
        air_time=_integer(row[14]),
        distance=int(row[15]),
        hour=hour,
        minute=minute,
        time_hour=time_hour,
    )


def _offset_hours(hour: int, time_hour: datetime) -> int:
    # The same hour, on New York's clocks and in UTC.
    return (hour - time_hour.hour) % 24 - 24


def _integer(text: str) -> int | None:
    return None if text == MISSING else int(text)


@cache
def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _next_at(after: datetime, clock: int, offset_minutes: int) -> datetime:
    """The first instant after another at which the clocks in a zone show a time, written 1435 for 14:35."""
    local = clock // 100 * 60 + clock % 100
    return after + timedelta(minutes=(local - offset_minutes - after.hour * 60 - after.minute) % DAY_MINUTES)
