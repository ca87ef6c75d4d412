"""Where a query leaves its result open: rows that tie in an order that decides what is shown.

Any choice among them is right, PostgreSQL's own may change from one run to the next, and a stream table's differ
from both.  What is certain here is that an order tells rows apart: if it contains a key of them, or all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.linear import Item
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.window import Window
from pg_trickle.recomputed import Recomputed
from pg_trickle.scalar import Identity
from pg_trickle.stages import AnyStage
from pg_trickle.uniqueness import keys

_CONSEQUENCE = (
    "rows that tie in it may come out otherwise than in the query itself, which is as right;"
    " verify_stream_table counts them as differences. Order by a key as well to have it certain."
)
_SPELLING = (
    "equal values of it may read differently, and which of them is shown is as open in the query itself;"
    " verify_stream_table counts it as a difference where it shows."
    " Cast it to a type whose equal values are the same to have it certain: integer, text, numeric(p,s)."
)
_ORDERED = re.compile(
    r"^(pg_catalog\.)?(row_number|ntile|lag|lead|first_value|last_value|nth_value|array_agg|string_agg|jsonb?_agg"
    r"|jsonb?_object_agg|xmlagg)\(|\bROWS (BETWEEN|UNBOUNDED|\d)",
    re.I,
)
_COLLECTS = re.compile(r"^(pg_catalog\.)?(array_agg|string_agg|jsonb?_agg|jsonb?_object_agg|xmlagg)\(", re.I)


def ties(stages: tuple[AnyStage, ...], shown: Callable[[str], str]) -> tuple[str, ...]:
    """A sentence for each order that leaves something open; ``shown`` makes plan columns readable."""
    found = [note for stage in stages for note in _of(stage)]
    return tuple(dict.fromkeys(map(shown, found)))


def borrowed(what: str) -> str:
    """The sentence for what takes rows in the order of a sorted subquery, though something may lose it."""
    return (
        f"{what} has no ORDER BY: it takes rows in the order of the subquery that it reads, which PostgreSQL mostly"
        " keeps, but may lose where it sorts rows into groups, or for another aggregate, or joins them;"
        " verify_stream_table counts that as a difference. Write the order there, too, to have it certain."
    )


def _of(stage: AnyStage) -> Iterator[str]:
    if not isinstance(stage, Recomputed):
        for call in stage.aggregate.calls:
            if _COLLECTS.match(call.value.text) and "ORDER BY" not in call.value.text.upper():
                yield f"{call.value.text} has no ORDER BY: {_CONSEQUENCE}"
            elif _COLLECTS.match(call.value.text) and _is_open(stage.aggregate, call):
                yield f"{call.value.text} leaves rows undecided: {_CONSEQUENCE}"
            if call.rule is Rule.RECOMPUTE and call.value.is_column:
                yield f"Rows are grouped by {call.value.text}, of which more is read than the value: {_SPELLING}"
        return
    match stage.operator:
        case DistinctOn(below, on, _, order):
            if not tells_apart(below, {*on, *(one.column for one in order)}):
                yield _sentence("DISTINCT ON", [one.column for one in order])
        case TopK(below, order, _, offset, ties):
            if (offset or not ties) and not tells_apart(below, {one.column for one in order}):
                yield _sentence("LIMIT", [one.column for one in order])
        case Window(below, _, _, calls):
            yield from (_sentence("A window", sorted(by)) for call in calls for by in _open_window(below, call))
        case _:
            return


def _is_open(aggregate: Aggregate, call: Call) -> bool:
    """Whether rows of a group that tie in an aggregate's order may show: its own arguments tell when they don't."""
    gathered, _, order = call.value.text.rpartition("ORDER BY")
    by = {*aggregate.keys, *_named(call.value.columns, order.partition(" FILTER ")[0])}
    return not (_named(call.value.columns, gathered) <= by or tells_apart(aggregate.input, by))


def _sentence(what: str, order: list[str]) -> str:
    by = f"by {', '.join(order)} leaves rows" if order else "in no order leaves them"
    return f"{what} {by} undecided: {_CONSEQUENCE}"


def _open_window(below: Plan, call: Item) -> Iterator[set[str]]:
    """The columns by which a call's window is ordered, if it matters to the call which of several peers comes first."""
    text = call.value.text
    tail = text.rpartition("ORDER BY")[2] if "ORDER BY" in text else ""
    order = _named(call.value.columns, tail)
    partition = text.partition("PARTITION BY")[2].partition("ORDER BY")[0]
    if _ORDERED.search(text) and not tells_apart(below, order | _named(call.value.columns, partition)):
        yield order


def _named(columns: frozenset[str], text: str) -> set[str]:
    return {name for name in columns if re.search(rf"\b{re.escape(name)}\b", text)}


def tells_apart(plan: Plan, by: set[str]) -> bool:
    """Whether rows of a plan that agree in these columns certainly are one row, or look the same."""
    alike = all(one.name in by and one.type.identity is Identity.EQUAL for one in plan.columns)
    return alike or any(key <= by for key in keys(plan))
