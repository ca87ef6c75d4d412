"""Where a query leaves its result open: rows that tie in an order that decides what is shown.

Any choice among them is right, PostgreSQL's own may change from one run to the next, and a stream table's differ
from both.  What is certain here is that an order tells rows apart: if it contains a key of them, or all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from pg_trickle.algebra.aggregate import COLLECTING, Aggregate, Call, Rule
from pg_trickle.algebra.linear import Item
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.window import Window
from pg_trickle.catalog.model import FunctionFact
from pg_trickle.recomputed import Recomputed
from pg_trickle.scalar import Column, Identity, identifier
from pg_trickle.stages import AnyStage
from pg_trickle.uniqueness import keys

_CONSEQUENCE = (
    "rows that tie in it may come out otherwise than in the query itself, which is as right;"
    " verify_stream_table counts them as differences. Order by a key as well to have it certain."
)
_PERHAPS = (
    "if it matters to it in which order rows come, it may give something else than in the query itself, which is as"
    " right; verify_stream_table counts that as a difference. Order by a key as well to have it certain."
)
_FLOATS = (
    "adds floats, and the last digits depend on the order in which they are added, in the query itself, too;"
    " verify_stream_table counts that as a difference. Add numeric values to have it certain."
)
_SPELLING = (
    "equal values of it may read differently, and which of them is shown is as open in the query itself;"
    " verify_stream_table counts it as a difference where it shows."
    " Cast it to a type whose equal values are the same to have it certain: integer, text, numeric(p,s)."
)
_COLLECTS = re.compile(rf"^(pg_catalog\.)?({'|'.join(sorted(COLLECTING))}|json_(array|object)agg)\(", re.I)
_ADDS = re.compile(r"^(pg_catalog\.)?(sum|avg|stddev(_\w+)?|variance|var_\w+|corr|covar_\w+|regr_\w+)\(", re.I)
_ORDERED = re.compile(
    _COLLECTS.pattern + r"|^(pg_catalog\.)?(row_number|ntile|lag|lead|first_value|last_value|nth_value)\("
    r"|\bROWS (BETWEEN|UNBOUNDED|\d)",
    re.I,
)


def ties(
    stages: tuple[AnyStage, ...], shown: Callable[[str], str], functions: Iterable[FunctionFact]
) -> tuple[str, ...]:
    """A sentence for each order that leaves something open; ``shown`` makes plan columns readable."""
    own = [one for one in functions if one.kind in {"aggregate", "window"} and not one.builtin]
    is_own = re.compile("|".join(map(_beginning, own)) or r"(?!)")
    found = [note for stage in stages for note in _of(stage, is_own)]
    return tuple(dict.fromkeys(map(shown, found)))


def borrowed(what: str) -> str:
    """The sentence for what takes rows in the order of a sorted subquery, though something may lose it."""
    return (
        f"{what} has no ORDER BY: it takes rows in the order of the subquery that it reads, which PostgreSQL mostly"
        " keeps, but may lose where it sorts rows into groups, or for another aggregate, or joins them;"
        " verify_stream_table counts that as a difference. Write the order there, too, to have it certain."
    )


def _beginning(function: FunctionFact) -> str:
    """How a call of it begins: the deparser quotes a name only where it must."""
    schema, name = (f"(?:{re.escape(one)}|{re.escape(identifier(one))})" for one in (function.schema, function.name))
    return rf"^{schema}\.{name}\("


def _of(stage: AnyStage, is_own: re.Pattern[str]) -> Iterator[str]:
    if not isinstance(stage, Recomputed):
        for call in stage.aggregate.calls:
            yield from _of_call(stage.aggregate, call, is_own)
        return
    match stage.operator:
        case DistinctOn(below, on, _, order):
            if not tells_apart(below, {*on, *(one.column for one in order)}):
                yield _sentence("DISTINCT ON", [one.column for one in order])
        case TopK(below, order, _, offset, ties):
            if (offset or not ties) and not tells_apart(below, {one.column for one in order}):
                yield _sentence("LIMIT", [one.column for one in order])
        case Window(below, _, _, calls):
            yield from (note for call in calls for note in _of_window(below, call, is_own))
        case _:
            return


def _of_call(aggregate: Aggregate, call: Call, is_own: re.Pattern[str]) -> Iterator[str]:
    text = call.value.text
    consequence = _CONSEQUENCE if _COLLECTS.match(text) else _PERHAPS if is_own.match(text) else None
    if consequence and "ORDER BY" not in text.upper():
        yield f"{text} has no ORDER BY: {consequence}"
    elif consequence and _is_open(aggregate, call):
        yield f"{text} leaves rows undecided: {consequence}"
    elif _adds_floats(call.column, text):
        yield f"{text} {_FLOATS}"
    if call.rule is Rule.RECOMPUTE and call.value.is_column:
        yield f"Rows are grouped by {text}, of which more is read than the value: {_SPELLING}"


def _adds_floats(made: Column, text: str) -> bool:
    return made.type.name in {"float4", "float8"} and _ADDS.match(text) is not None


def _is_open(aggregate: Aggregate, call: Call) -> bool:
    """Whether rows of a group that tie in an aggregate's order may show: its own arguments tell when they don't."""
    gathered, _, order = call.value.text.rpartition("ORDER BY")
    by = {*aggregate.keys, *_named(call.value.columns, order.partition(" FILTER ")[0])}
    return not (_named(call.value.columns, gathered) <= by or tells_apart(aggregate.input, by))


def _sentence(what: str, order: list[str]) -> str:
    by = f"by {', '.join(order)} leaves rows" if order else "in no order leaves them"
    return f"{what} {by} undecided: {_CONSEQUENCE}"


def _of_window(below: Plan, call: Item, is_own: re.Pattern[str]) -> Iterator[str]:
    """What a window leaves open to a call to which it matters which of several peers comes first."""
    text = call.value.text
    tail = text.rpartition("ORDER BY")[2] if "ORDER BY" in text else ""
    order = _named(call.value.columns, tail)
    partition = text.partition("PARTITION BY")[2].partition("ORDER BY")[0]
    if tells_apart(below, order | _named(call.value.columns, partition)):
        return
    if _ORDERED.search(text):
        yield _sentence("A window", sorted(order))
    elif is_own.match(text):
        yield f"{text} leaves rows undecided: {_PERHAPS}"
    elif _adds_floats(call.column, text):
        yield f"{text} {_FLOATS}"


def _named(columns: frozenset[str], text: str) -> set[str]:
    return {name for name in columns if re.search(rf"\b{re.escape(name)}\b", text)}


def tells_apart(plan: Plan, by: set[str]) -> bool:
    """Whether rows of a plan that agree in these columns certainly are one row, or look the same."""
    alike = all(one.name in by and one.type.identity is Identity.EQUAL for one in plan.columns)
    return alike or any(key <= by for key in keys(plan))
