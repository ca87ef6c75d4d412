"""The figures as Markdown: ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench import immediate, immediate_report, tpch
from bench.measure import Cost, Spread
from bench.refresh import DELTA_ROWS, Idle, Result
from bench.star import VIEWS, Size
from bench.suites import Result as SuiteResult
from bench.tpch import Result as QueryResult


@dataclass(slots=True)
class Figures:
    """All that was measured; what wasn't is empty."""

    size: Size
    repetitions: int
    machine: dict[str, str]
    server: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    refreshes: list[Result] = field(default_factory=list)
    idle: Idle | None = None
    small: dict[str, Cost] = field(default_factory=dict)
    large: dict[str, Cost] = field(default_factory=dict)
    large_orders: int = 0
    bulk: dict[str, Cost] = field(default_factory=dict)
    bulk_rows: int = 0
    single: dict[str, dict[str, Cost]] = field(default_factory=dict)
    latency: Spread | None = None
    chain: Spread | None = None
    crowd: Spread | None = None
    others: int = 0
    immediate: tuple[immediate.Result, immediate.Effort] | None = None
    tpch: list[QueryResult] = field(default_factory=list)
    scale: float = 0
    suites: dict[str, list[SuiteResult]] = field(default_factory=dict)
    rows: int = 0


def markdown(figures: Figures) -> str:
    """The whole page."""
    parts = [_intro(figures)]
    if figures.refreshes:
        parts.append(_refreshes(figures))
    if figures.large:
        parts.append(_growth(figures))
    if figures.idle:
        parts.append(_idle(figures.idle))
    if figures.bulk:
        parts.append(_capture(figures))
    if figures.immediate:
        parts.append(immediate_report.section(*figures.immediate, _table))
    if figures.latency and figures.chain and figures.crowd:
        parts.append(_latency(figures.latency, figures.chain, figures.crowd, figures.others))
    if figures.tpch:
        parts.append(_tpch(figures))
    if "nexmark" in figures.suites:
        parts.append(_nexmark(figures))
    if "everyday" in figures.suites:
        parts.append(_everyday(figures))
    parts.append(_environment(figures))
    return "\n\n".join(parts) + "\n"


def _intro(figures: Figures) -> str:
    return f"""# Benchmarks

Written by `make bench`; measured on {figures.machine["date"]}, all of it in one run.
A star schema of {figures.size.orders:,} orders, {figures.size.customers:,} customers and
{figures.size.products:,} products. Times are medians; CPU is the processor time of the one server process that does
the work, which neighbours on the machine disturb less than the wall clock."""


def _refreshes(figures: Figures) -> str:
    rows = [
        [
            one.view.title,
            f"{one.changed:,}",
            _ms(one.differential),
            _ms(one.plain),
            _ms(one.concurrently),
            _ratio(one.plain / one.differential),
            _ratio(one.concurrently / one.differential),
            f"{one.parallel.wall:,.0f}",
        ]
        for one in figures.refreshes
    ]
    header = [
        "query",
        "rows changed",
        "differential",
        "REFRESH",
        "… CONCURRENTLY",
        "REFRESH ÷ differential",
        "CONCURRENTLY ÷ differential",
        "REFRESH, parallel",
    ]
    return f"""## Refresh

Milliseconds of CPU / wall clock. Goal: 50× at 0.1 % changed rows, 10× at 1 %.

{_table(header, rows)}

Between two measurements one transaction changes so many random orders: 7 of 10 get another quantity and price, 1 moves
to another customer, 1 is deleted, 1 is inserted. Then the stream table is refreshed (one call of
`refresh_stream_table`, everything included, in a session that has refreshed such changes before) and two materialized
views of the same query with the stream table's unique index, one by each command; {figures.repetitions} times, in
turns. "Parallel" is REFRESH, once, with the two
parallel workers per query that PostgreSQL allows by default, wall clock only; in the other columns nobody has parallel
workers, since their processor time couldn't be counted. At the end each stream table is compared with its query."""


def _growth(figures: Figures) -> str:
    rows = [
        [
            view.title,
            _ms(figures.small[view.name]),
            _ms(figures.large[view.name]),
            _ratio(figures.large[view.name] / figures.small[view.name]),
        ]
        for view in VIEWS
    ]
    header = ["query", f"{figures.size.orders:,} orders", f"{figures.large_orders:,} orders", "ratio"]
    return f"""## Cost follows the change, not the table

A differential refresh after {DELTA_ROWS:,} changed rows, milliseconds of CPU / wall clock. Goal: within 1.3×.

{_table(header, rows)}"""


def _idle(idle: Idle) -> str:
    return f"""## Nothing to do

A refresh of the 3-way join when no source has changed takes {idle.inside:.2f} ms in the server (goal: under 1 ms),
and {_ms(idle.outside)} ms of CPU / wall clock for its client: with the way there and back, and the commit of the
history row, which waits for the disk."""


def _capture(figures: Figures) -> str:
    def row(what: str, pair: dict[str, Cost], unit: float, digits: int) -> list[str]:
        bare, captured = pair["bare"], pair["captured"]
        more = Cost(captured.wall - bare.wall, captured.cpu - bare.cpu)
        return [
            what,
            *(f"{one.cpu * unit:,.{digits}f} / {one.wall * unit:,.{digits}f}" for one in (bare, captured, more)),
            _ratio(captured / bare),
        ]

    rows = [row(f"INSERT of {figures.bulk_rows:,} rows, ms", figures.bulk, 1, 0)]
    rows += [row(f"{kind} of one row, µs", pair, 1000, 0) for kind, pair in figures.single.items()]
    return f"""## Capture

What it costs the one who writes; CPU / wall clock. Goal for the bulk INSERT: at most 2×.

{_table(["statement", "without", "with", "difference", "ratio"], rows)}

Single rows by prepared statements, a thousand in a transaction, so that commits don't hide the difference."""


def _latency(latency: Spread, chain: Spread, crowd: Spread, others: int) -> str:
    rows = [
        ["a stream table over the 3-way join", *_spread(latency), "20"],
        ["the last of a chain of ten stream tables", *_spread(chain), "100"],
        [f"the first, among {others} others that read customers or what is joined with them", *_spread(crowd), "20"],
    ]
    return f"""## From commit to visible

Milliseconds from the return of the writer's commit until another connection finds the row; schedule `calculated`, the
worker a process of its own, writers at random moments.

{_table(["until it is in", "median", "95 %", "longest", "samples", "goal for the median"], rows)}"""


def _tpch(figures: Figures) -> str:
    rows = [
        [
            one.name,
            one.churn,
            f"{one.share:.1%}",
            _ms(one.differential),
            _ms(one.recomputed),
            _ratio(one.recomputed / one.differential),
        ]
        for one in figures.tpch
    ]
    header = ["query", "between two measurements", "share", "differential", "REFRESH", "REFRESH ÷ differential"]
    return f"""## TPC-H

Scale {figures.scale:g}, milliseconds of CPU / wall clock. Goal at 0.1 %: 10× for every query, 50× for the median.

{_table(header, rows)}

One transaction changes that share of the rows. "{tpch.ORDERS.title}": of orders with their lines half of the share
comes and half goes; "{tpch.REFRESH_FUNCTIONS.title}", as the specification has them: the share comes, and as much
goes. "{tpch.ALL_TABLES.title}" is harsher: a third comes, a third goes, a third changes dates, quantities and
customers, and so much of each of four other tables changes, to each of whose rows many lines refer: customers, parts,
offers and suppliers. All 22 stream tables are refreshed by these changes alone, then compared with their queries."""


def _nexmark(figures: Figures) -> str:
    return f"""## Nexmark

The queries that PostgreSQL can express, after {figures.rows:,} events; milliseconds of CPU / wall clock.

{_suite(figures.suites["nexmark"])}

Between two measurements one transaction has 0.1 % of the bids come, go or change, and changes as many auctions and
persons. All stream tables are refreshed by these changes alone, then compared with their queries."""


def _everyday(figures: Figures) -> str:
    return f"""## Queries of applications

As developers write them (`tests/everyday/queries.sql`): the large tables have {figures.rows:,} rows; milliseconds of
CPU / wall clock. A refresh of whatever kind costs some 5 ms of its own: where running the query takes no longer than
a few times that, there is little to gain.

{_suite(figures.suites["everyday"])}

Between two measurements one transaction changes 0.1 % of the rows of each table."""


def _suite(results: list[SuiteResult]) -> str:
    rows = [
        [
            one.title,
            one.operators,
            _ms(one.differential),
            _ms(one.recomputed),
            _ratio(one.recomputed / one.differential),
        ]
        for one in results
    ]
    return _table(["query", "rules for", "differential", "REFRESH", "REFRESH ÷ differential"], rows)


def _environment(figures: Figures) -> str:
    machine = [[name, value] for name, value in {**figures.machine, "PostgreSQL": figures.server}.items()]
    settings = ", ".join(f"`{name} = {value}`" for name, value in figures.settings.items())
    return f"""## Where

{_table(["", ""], machine)}

Server settings, for both sides: {settings}. Without autovacuum nothing cleans up in the middle of a measurement: every
table is vacuumed once after it was filled, and the refreshes that follow find no free space but what tables keep back
by themselves. Ratios vary by some 15 % from run to run, on a shared machine by more."""


def _ms(cost: Cost) -> str:
    return f"{_short(cost.cpu)} / {_short(cost.wall)}"


def _ratio(cost: Cost) -> str:
    return f"{_short(cost.cpu)}× / {_short(cost.wall)}×"


def _short(number: float) -> str:
    """Two or three digits that mean something."""
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"


def _spread(spread: Spread) -> list[str]:
    return [f"{spread.median:.1f}", f"{spread.p95:.1f}", f"{spread.longest:.1f}", str(spread.samples)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
