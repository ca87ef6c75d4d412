"""The stream tables of the demonstration, and the same queries as plain and as materialized views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg


@dataclass(frozen=True, slots=True)
class StreamTable:
    """A stream table to be: its name, what it is an example of, and its query."""

    name: str
    shows: str
    query: LiteralString


STREAM_TABLES = (
    StreamTable(
        "late_departures",
        "filtered join",
        """
        SELECT f.time_hour, f.carrier, f.flight, a.name AS airline, f.origin, f.dest, f.sched_dep_time, f.dep_delay
          FROM flights  AS f
          JOIN airlines AS a ON a.carrier = f.carrier
         WHERE f.dep_delay > 15
        """,
    ),
    StreamTable(
        "late_by_airline",
        "on a stream table",
        """
        SELECT airline, origin, count(*) AS flights, avg(dep_delay) AS average_delay, max(dep_delay) AS longest_delay
          FROM late_departures
         GROUP BY airline, origin
        """,
    ),
    StreamTable(
        "delays_by_route",
        "3-way aggregate",
        """
        SELECT a.name AS airline, p.name AS destination, count(*) AS flights,
               avg(f.arr_delay) AS average_delay, min(f.arr_delay) AS best, max(f.arr_delay) AS worst
          FROM flights  AS f
          JOIN airlines AS a ON a.carrier = f.carrier
          JOIN airports AS p ON p.faa = f.dest
         GROUP BY a.name, p.name
        """,
    ),
    StreamTable(
        "delays_by_rain",
        "few, large groups",
        """
        SELECT f.origin, w.precip > 0 AS rain, w.visib < 5 AS poor_sight, count(*) AS flights,
               avg(f.dep_delay) AS average_delay
          FROM flights AS f
          JOIN weather AS w ON w.origin = f.origin AND w.time_hour = f.time_hour
         GROUP BY f.origin, w.precip > 0, w.visib < 5
        """,
    ),
    StreamTable(
        "models_by_route",
        "distinct",
        """
        SELECT DISTINCT f.carrier, f.dest, p.manufacturer, p.model
          FROM flights AS f
          JOIN planes  AS p ON p.tailnum = f.tailnum
        """,
    ),
    StreamTable(
        "miles_by_plane",
        "sum by two keys",
        """
        SELECT carrier, tailnum, SUM(distance) AS miles
          FROM flights
         GROUP BY carrier, tailnum
        """,
    ),
)


def create(conn: psycopg.Connection[Any], table: StreamTable) -> None:
    """Make the stream table: the call that anybody would make from psql, all options at their defaults."""
    conn.execute("SELECT pgtrickle.create_stream_table(%s, %s)", (table.name, table.query))


def create_rivals(conn: psycopg.Connection[Any], table: StreamTable) -> None:
    """Make the views plain.<name> and materialized.<name> of the same query."""
    row = conn.execute(
        """
        SELECT pg_catalog.format('CREATE VIEW plain.%%I AS %%s', %(name)s::text, %(query)s::text),
               pg_catalog.format('CREATE MATERIALIZED VIEW materialized.%%I AS %%s', %(name)s::text, %(query)s::text)
        """,
        {"name": table.name, "query": table.query},
    ).fetchone()
    assert row is not None
    for statement in row:
        conn.execute(statement.encode())
