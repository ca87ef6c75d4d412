"""``pgtrickle bench``: what stream tables gain, measured on one's own."""

from __future__ import annotations

import time
from statistics import median
from typing import Annotated, Any

import psycopg
import typer

from pg_trickle import api
from pg_trickle.cli import output
from pg_trickle.cli.options import AsJson, Dsn, connect

COLUMNS = ("name", "rows", "recompute_ms", "differential_ms", "ratio", "idle_ms")
IDLE_REFRESHES = 9

MINE = """
    SELECT i.name FROM pgtrickle.stream_tables_info AS i
     WHERE pg_catalog.pg_has_role(i.owner, 'MEMBER') AND i.status = 'ACTIVE' ORDER BY i.name
"""
HISTORY = """
    SELECT greatest(c.reltuples, 0)::pg_catalog.int8, e.avg_diff_ms
      FROM pgtrickle.stream_tables_info AS i
      JOIN pg_catalog.pg_class AS c ON c.oid = i.pgt_relid
      LEFT JOIN pgtrickle.refresh_efficiency() AS e ON (e.pgt_schema, e.pgt_name) = (i.pgt_schema, i.pgt_name)
     WHERE i.pgt_relid = %s::pg_catalog.regclass
"""


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="The stream tables; by default the active ones that are yours.")
    ] = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Measure what your stream tables gain: recomputing each, against its differential refreshes of late.

    Each is recomputed once, in a transaction that is rolled back; nobody else can refresh it meanwhile. What a
    differential refresh takes is the mean of its history. (make bench, in the sources, measures pg_trickle itself.)

    Example: pgtrickle bench order_totals
    """
    with connect(dsn) as conn:
        chosen = names or [name for (name,) in conn.execute(MINE)]
        rows = [_measure(conn, name) for name in chosen]
    output.table(rows, COLUMNS, as_json=as_json, empty="no stream tables")


def _measure(conn: psycopg.Connection[Any], name: str) -> dict[str, Any]:
    """Times in milliseconds as the client sees them; what a differential refresh takes, as the server saw it."""
    api.refresh_stream_table(conn, name)
    with conn.transaction(force_rollback=True):
        api.reinitialize_stream_table(conn, name)
        recompute = _refresh_ms(conn, name)
    idle = median(_refresh_ms(conn, name) for _ in range(IDLE_REFRESHES))
    (rows, differential) = conn.execute(HISTORY, (name,)).fetchone() or (None, None)
    return {
        "name": name,
        "rows": rows,
        "recompute_ms": round(recompute, 1),
        "differential_ms": differential and round(differential, 1),
        "ratio": differential and round(recompute / differential, 1),
        "idle_ms": round(idle, 1),
    }


def _refresh_ms(conn: psycopg.Connection[Any], name: str) -> float:
    started = time.perf_counter()
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
    return (time.perf_counter() - started) * 1000
