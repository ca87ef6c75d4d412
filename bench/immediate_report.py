"""What IMMEDIATE mode costs, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from bench.immediate import BARE, DEFINER, HAND, OURS, PATIENCE_SECONDS, PG_IVM, Effort, Result
from bench.measure import Cost

Table = Callable[[Sequence[str], list[Sequence[str]]], str]
MICROSECONDS = 1000


def section(result: Result, effort: Effort, table: Table) -> str:
    """Three tables: one row, many rows, many clients."""
    singles = [
        "query",
        "statement",
        "nothing",
        "by hand",
        "by hand, as definer",
        "stream table",
        "pg_ivm",
        "÷ pg_ivm's",
    ]
    header = ["query", "statement", "nothing", "with the stream table", "with pg_ivm", "added, ÷ pg_ivm's"]
    rates = ["query", "clients", "nothing", "with the stream table", "with pg_ivm"]
    return f"""## IMMEDIATE

What maintenance inside the statement costs the one who writes. Each query is over a table of its own of {effort.rows:,}
orders with 10,000 customers and 1,000 products. Processor time of the writer's server process. Goals for one row: at
most 2× the bare statement, at most a fifth of what pg_ivm adds; for many rows: no more than pg_ivm adds.

Statements of one row, µs, prepared, each a transaction of its own; what is added to the bare statement by maintenance
written by hand for just this query, the same as SECURITY DEFINER with pinned settings, the stream table, and pg_ivm:

{table(singles, list(_singles(result)))}

Statements of {effort.batch:,} rows, ms (pg_ivm: ∞ is more than {PATIENCE_SECONDS} s, and then no more was asked of it):

{table(header, list(_costs(result.batch, 1)))}

Statements a second by pgbench, prepared, each a transaction that waits for the disk: every client inserts an order,
changes and deletes it; groups are hit at random, so with few groups everybody meets:

{table(rates, list(_rates(result)))}"""


def _singles(result: Result) -> Iterator[Sequence[str]]:
    for title, kinds in result.single.items():
        for kind, found in kinds.items():
            bare = found[BARE].cpu
            added = {name: cost.cpu - bare for name, cost in found.items()}
            yield (
                title,
                kind,
                f"{bare * MICROSECONDS:,.0f}",
                *(f"+{added[name] * MICROSECONDS:,.0f}" for name in (HAND, DEFINER)),
                f"+{added[OURS] * MICROSECONDS:,.0f} ({found[OURS].cpu / bare:.1f}×)",
                f"+{added[PG_IVM] * MICROSECONDS:,.0f} ({found[PG_IVM].cpu / bare:.1f}×)" if PG_IVM in found else "",
                f"{added[OURS] / added[PG_IVM]:.2f}" if PG_IVM in found else "",
            )


def _costs(costs: dict[str, dict[str, dict[str, Cost]]], unit: float) -> Iterator[Sequence[str]]:
    for title, kinds in costs.items():
        for kind, found in kinds.items():
            bare, ours, peer = found[BARE].cpu, found[OURS].cpu, found[PG_IVM].cpu if PG_IVM in found else math.nan
            yield (
                title,
                kind,
                f"{bare * unit:,.0f}",
                _beside(ours, bare, unit),
                _beside(peer, bare, unit),
                "" if math.isnan(peer) else f"{(ours - bare) / (peer - bare):.2f}",
            )


def _beside(cost: float, bare: float, unit: float) -> str:
    if math.isnan(cost):
        return ""
    return "∞" if math.isinf(cost) else f"{cost * unit:,.0f} ({cost / bare:.1f}×)"


def _rates(result: Result) -> Iterator[Sequence[str]]:
    for title, by_clients in result.rates.items():
        for clients, rates in by_clients.items():
            yield (
                title,
                str(clients),
                *(f"{rates[name]:,.0f}" if name in rates else "" for name in (BARE, OURS, PG_IVM)),
            )
