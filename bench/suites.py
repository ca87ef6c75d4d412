"""Lists of queries over tables of one kind: what a refresh of each costs against running the query again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

import pg_trickle
from bench.measure import Cost, alternating, cost_of
from bench.refresh import clean_buffers, refresh
from tests.everyday import data as everyday
from tests.nexmark import events as nexmark

Connection = psycopg.Connection[Any]

SHARE = 0.001
# A program stands from the second refresh of its size on, and is planned at the next.
WARM_UPS = 3


@dataclass(frozen=True, slots=True)
class Suite:
    """Queries by title; what makes their tables, so many rows the large ones; what changes a share of the rows."""

    name: str
    queries: dict[str, str]
    load: Callable[[Connection, int], None]
    change: Callable[[Connection, float], None]


@dataclass(frozen=True, slots=True)
class Result:
    """One query: by its changes, and anew; and the operators of its plan."""

    title: str
    operators: str
    differential: Cost
    recomputed: Cost


def compare(conn: Connection, suite: Suite, rows: int, repetitions: int, report: Callable[[str], None]) -> list[Result]:
    """All queries side by side, on the same changes."""
    report(f"loading {suite.name}: {rows:,} rows")
    suite.load(conn, rows)
    names = {f"{suite.name}_{place:02}": title for place, title in enumerate(suite.queries, 1)}
    for name, title in names.items():
        _create(conn, name, suite.queries[title])
    _warm_up(conn, suite, list(names))
    measured = alternating(repetitions, partial(_change, conn, suite), _contenders(conn, list(names)))
    found = [
        Result(title, _operators(conn, name), measured[name], measured[_plain(name)]) for name, title in names.items()
    ]
    for one in found:
        report(f"{one.title}: {one.differential.cpu:.1f} ms CPU, {(one.recomputed / one.differential).cpu:.1f}x")
    for name, title in names.items():
        with conn.transaction():
            refresh(conn, name)()
            if not pg_trickle.verify_stream_table(conn, name).ok:
                raise AssertionError(f"{title} differs from its query")
    return found


def _create(conn: Connection, name: str, query: str) -> None:
    pg_trickle.create_stream_table(conn, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    view = sql.SQL("CREATE MATERIALIZED VIEW {v} AS {q}")
    conn.execute(view.format(v=sql.Identifier(_plain(name)), q=sql.SQL(query)))


def _plain(name: str) -> str:
    return f"{name}_plain"


def _change(conn: Connection, suite: Suite) -> None:
    clean_buffers(conn)
    suite.change(conn, SHARE)


def _warm_up(conn: Connection, suite: Suite, names: list[str]) -> None:
    for done in range(WARM_UPS):
        if done == WARM_UPS - 1:
            conn.execute("VACUUM ANALYZE")
        _change(conn, suite)
        for name in names:
            refresh(conn, name)()


def _contenders(conn: Connection, names: list[str]) -> dict[str, Callable[[], Cost]]:
    found: dict[str, Callable[[], Cost]] = {}
    for name in names:
        found[name] = refresh(conn, name)
        found[_plain(name)] = partial(_again, conn, name)
    return found


def _again(conn: Connection, name: str) -> Cost:
    statement = sql.SQL("REFRESH MATERIALIZED VIEW {v}").format(v=sql.Identifier(_plain(name)))
    return cost_of(conn, lambda: conn.execute(statement))


def _operators(conn: Connection, name: str) -> str:
    """The operators that have rules of their own, as explain calls them."""
    found = conn.execute(
        """SELECT string_agg(DISTINCT lower(line ->> 'operator'), ', ')
             FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables AS s USING (pgt_id),
                  jsonb_array_elements(plan #> '{explain,tree}') AS line
            WHERE s.pgt_name = %s AND line ->> 'operator' NOT IN ('Scan', 'Project', 'Filter', 'Call', 'Constant')""",
        (name,),
    ).fetchone()
    return (found and found[0]) or "filter and project"


def _load_events(conn: Connection, rows: int) -> None:
    conn.execute(nexmark.schema().encode())
    stream = nexmark.events()
    with conn.transaction(), conn.cursor() as cursor:
        for statement, batch in itertools.groupby(
            sorted(itertools.islice(stream, rows), key=lambda event: event[0]), key=lambda event: event[0]
        ):
            cursor.executemany(statement.encode(), [values for _, values in batch])
    conn.execute("ANALYZE")


# Bids come, go and are corrected; auctions, persons and the side table change.
_EVENTS = (
    "INSERT INTO bid SELECT auction, bidder, price + 1, channel, url, date_time + interval '1 s' FROM bid"
    " WHERE random() < %(share)s / 2",
    "DELETE FROM bid WHERE random() < %(share)s / 4",
    "UPDATE bid SET price = price + 100, bidder = bidder + 1 WHERE random() < %(share)s / 4",
    "UPDATE auction SET category = 10, expires = expires + interval '1 s' WHERE random() < %(share)s",
    "UPDATE person SET state = 'OR', date_time = date_time + interval '5 s' WHERE random() < %(share)s",
    "UPDATE side_input SET value = value || '!' WHERE random() < %(share)s",
)


def _change_events(conn: Connection, share: float) -> None:
    with conn.transaction(), psycopg.ClientCursor(conn) as cursor:
        for statement in _EVENTS:
            cursor.execute(statement.encode(), {"share": share})


EVERYDAY = Suite("everyday", everyday.queries(), everyday.load, everyday.change)
NEXMARK = Suite("nexmark", nexmark.queries(), _load_events, _change_events)
