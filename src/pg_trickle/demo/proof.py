"""The proof: every stream table holds exactly what its query returns."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pg_trickle.demo.tables import StreamTable

LOOK_AGAIN_SECONDS = 0.05

# Rows count as often as they occur, and by their text: 1.0 and 1.00 are equal, but not the same.
_COMPARE: LiteralString = """
    WITH
    have AS MATERIALIZED (SELECT have::text AS line FROM {table} AS have),
    want AS MATERIALIZED (SELECT want::text AS line FROM {view} AS want)
    SELECT (SELECT count(*) FROM have),
           (SELECT count(*) FROM (SELECT line FROM want EXCEPT ALL SELECT line FROM have) AS missing),
           (SELECT count(*) FROM (SELECT line FROM have EXCEPT ALL SELECT line FROM want) AS extra)
"""

# What could not be counted has not been read.
_BEHIND: LiteralString = """
    SELECT t.name, coalesce(i.status, 'missing'), coalesce(sum(b.pending_rows), 0)::bigint
      FROM unnest(%s::text[]) AS t(name)
      LEFT JOIN pgtrickle.stream_tables_info    AS i ON i.pgt_schema = 'public' AND i.pgt_name = t.name
      LEFT JOIN pgtrickle.change_buffer_sizes() AS b ON b.stream_table = i.name
     GROUP BY t.name, i.status
    HAVING i.status IS DISTINCT FROM 'ACTIVE' OR bool_or(b.pending_rows IS DISTINCT FROM 0)
     ORDER BY t.name
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A stream table against its query: its rows, those it lacks, those it has too many."""

    name: str
    rows: int
    missing: int
    extra: int

    @property
    def ok(self) -> bool:
        return self.missing == self.extra == 0


def catch_up(conn: psycopg.Connection[Any], tables: Iterable[StreamTable], seconds: float) -> list[str]:
    """Wait until no stream table has changes left to read; which have, if that takes too long."""
    names = [table.name for table in tables]
    deadline = time.monotonic() + seconds
    while behind := conn.execute(_BEHIND, (names,)).fetchall():
        if time.monotonic() > deadline:
            return [f"{name} is {status} and has {rows} changes to read" for name, status, rows in behind]
        time.sleep(LOOK_AGAIN_SECONDS)
    return []


def prove(conn: psycopg.Connection[Any], tables: Iterable[StreamTable]) -> list[Verdict]:
    """Compare each stream table with the plain view of its query, in one statement and so in one snapshot."""
    return [Verdict(table.name, *_compare(conn, table.name)) for table in tables]


def _compare(conn: psycopg.Connection[Any], name: str) -> tuple[int, int, int]:
    statement = sql.SQL(_COMPARE).format(table=sql.Identifier("public", name), view=sql.Identifier("plain", name))
    row = conn.execute(statement).fetchone()
    assert row is not None
    rows, missing, extra = row
    return rows, missing, extra
