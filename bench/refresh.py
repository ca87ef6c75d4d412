"""What a refresh costs, against recomputing the same query as a materialized view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

import pg_trickle
from bench.measure import Cost, alternating, cost_of
from bench.star import VIEWS, Size, View, change

Connection = psycopg.Connection[Any]

SHARES = (0.001, 0.01)
DELTA_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """One query at one number of changed rows."""

    view: View
    changed: int
    differential: Cost
    plain: Cost
    concurrently: Cost
    parallel: Cost


@contextmanager
def stream_table(conn: Connection, view: View, *, check: bool = True) -> Iterator[str]:
    """The view as a stream table that is refreshed by hand only; compared with its query at the end."""
    pg_trickle.create_stream_table(conn, view.name, view.query, schedule=None, refresh_mode="DIFFERENTIAL")
    conn.execute(sql.SQL("VACUUM ANALYZE {name}").format(name=sql.Identifier(view.name)))
    yield view.name
    if check:
        verdict = pg_trickle.verify_stream_table(conn, view.name)
        if not verdict.ok:
            raise AssertionError(f"{view.name} lacks {verdict.missing} rows and has {verdict.extra} too many")
    pg_trickle.drop_stream_table(conn, view.name)


def refresh(conn: Connection, name: str) -> Callable[[], Cost]:
    return lambda: cost_of(conn, lambda: conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,)))


def compare(
    conn: Connection, size: Size, repetitions: int, report: Callable[[str], None], shares: tuple[float, ...] = SHARES
) -> list[Result]:
    """Every query at every share of changed rows."""
    results = []
    for view in VIEWS:
        with stream_table(conn, view) as name, _materialized(conn, view) as (plain, concurrent):
            for share in shares:
                rows = max(1, round(share * size.orders))
                _warm_up(conn, size, rows, name)
                costs = alternating(
                    repetitions,
                    partial(_prepare, conn, size, rows),
                    {
                        "differential": refresh(conn, name),
                        "plain": _execute(conn, sql.SQL("REFRESH MATERIALIZED VIEW {v}").format(v=plain)),
                        "concurrently": _execute(
                            conn, sql.SQL("REFRESH MATERIALIZED VIEW CONCURRENTLY {v}").format(v=concurrent)
                        ),
                    },
                )
                results.append(Result(view, rows, parallel=_in_parallel(conn, plain), **costs))
                report(_line(results[-1]))
    return results


def _line(result: Result) -> str:
    plain, concurrently = result.plain / result.differential, result.concurrently / result.differential
    return (
        f"{result.view.name:15} {result.changed:7} rows: {result.differential.cpu:7.1f} ms CPU,"
        f" {result.differential.wall:7.1f} ms; REFRESH {plain.cpu:.0f}x CPU, {plain.wall:.0f}x;"
        f" CONCURRENTLY {concurrently.cpu:.0f}x CPU, {concurrently.wall:.0f}x"
    )


def _execute(conn: Connection, statement: sql.Composed) -> Callable[[], Cost]:
    return lambda: cost_of(conn, lambda: conn.execute(statement))


def _warm_up(conn: Connection, size: Size, rows: int, name: str) -> None:
    """As in a session that has refreshed such changes before: their program stands (docs/decisions/0018)."""
    for _ in range(2):
        _prepare(conn, size, rows)
        refresh(conn, name)()


def _prepare(conn: Connection, size: Size, rows: int) -> None:
    clean_buffers(conn)
    change(conn, size, rows)


def clean_buffers(conn: Connection) -> None:
    """What the worker's housekeeping does: consumed change rows go away."""
    conn.execute("SELECT pgtrickle_changes.cleanup_buffer(k.buffer) FROM pgtrickle.pgt_captures AS k")


@contextmanager
def _materialized(conn: Connection, view: View) -> Iterator[tuple[sql.Identifier, sql.Identifier]]:
    """The view as two materialized views, one for each way of refreshing, with the stream table's unique index."""
    views = sql.Identifier(f"{view.name}_plain"), sql.Identifier(f"{view.name}_concurrent")
    for name in views:
        conn.execute(sql.SQL("CREATE MATERIALIZED VIEW {v} AS {q}").format(v=name, q=sql.SQL(view.query)))
        conn.execute(sql.SQL("CREATE UNIQUE INDEX ON {v} ({k})").format(v=name, k=sql.SQL(view.key)))
        conn.execute(sql.SQL("VACUUM ANALYZE {v}").format(v=name))
    yield views
    for name in views:
        conn.execute(sql.SQL("DROP MATERIALIZED VIEW {v}").format(v=name))


def _in_parallel(conn: Connection, view: sql.Identifier) -> Cost:
    """REFRESH with the two parallel workers that PostgreSQL allows by default; only the wall clock sees them."""
    conn.execute("SET max_parallel_workers_per_gather = 2")
    cost = _execute(conn, sql.SQL("REFRESH MATERIALIZED VIEW {v}").format(v=view))()
    conn.execute("RESET max_parallel_workers_per_gather")
    return cost


def small_deltas(conn: Connection, size: Size, repetitions: int, report: Callable[[str], None]) -> dict[str, Cost]:
    """The cost of the same small delta for each query, to be compared between sizes."""
    found = {}
    for view in VIEWS:
        with stream_table(conn, view, check=False) as name:
            _warm_up(conn, size, DELTA_ROWS, name)
            costs = alternating(
                repetitions, lambda: _prepare(conn, size, DELTA_ROWS), {"differential": refresh(conn, name)}
            )
        found[view.name] = costs["differential"]
        report(
            f"{view.name:15} {size.orders:9} orders: {found[view.name].cpu:.1f} ms CPU, {found[view.name].wall:.1f} ms"
        )
    return found


@dataclass(frozen=True, slots=True)
class Idle:
    """A refresh with nothing to do: in the server, and as its client sees it, commit included."""

    inside: float
    outside: Cost


INSIDE = """
SELECT extract(epoch FROM h.finished_at - h.started_at) * 1000
  FROM pgtrickle.pgt_refresh_history AS h
 WHERE h.skipped_reason IS NOT NULL
 ORDER BY h.refresh_id DESC
 LIMIT %s
"""


def idle(conn: Connection, repetitions: int) -> Idle:
    """The median of refreshes with nothing to do, of the query with the most sources."""
    view = next(view for view in VIEWS if view.name == "star")
    with stream_table(conn, view) as name:
        refresh(conn, name)()
        costs = alternating(repetitions, lambda: None, {"idle": refresh(conn, name)})
        inside = sorted(float(ms) for (ms,) in conn.execute(INSIDE, (repetitions,)))
    return Idle(inside[len(inside) // 2], costs["idle"])
