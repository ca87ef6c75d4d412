"""Values of a state that groups are chosen by: ``HAVING sum(x) > …``.

What is compared with something that moves, ``(SELECT …)`` or the time, is found by a range: when it moves, the groups
between where it was and where it is are looked for (``render/turned.py``, ``algebra/timed.py``), and an index over the
value, as it is computed from the state, leads to them.

What is compared with a number is the same for every change.  Of a computed value the planner would know nothing, and
take one group in three to pass: statistics over the value tell it.  And an index over the groups that pass, where they
are few, leads to these, so that a change needs not look for the group of each of its rows to see that it doesn't pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, distinct, inputs, names
from pg_trickle.algebra.source import Scan
from pg_trickle.algebra.timed import TimedColumn, TimedFilter
from pg_trickle.render.turned import found_by_range
from pg_trickle.scalar import Scalar, Type
from pg_trickle.stages import Stage
from pg_trickle.state_columns import SHOWN_DECIMAL_MEAN, SHOWN_DECIMAL_SUM, SHOWN_MEAN, SHOWN_SUM, Role, StateColumn


@dataclass(frozen=True, slots=True)
class Ranged:
    """A value over the columns of a state: a column, or a sum or mean by its counters.  The engine writes the index."""

    value: str
    count: str | None = None
    nan: str | None = None
    is_mean: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "count": self.count, "nan": self.nan, "is_mean": self.is_mean}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Groups whose value compares so with a number, which may be cast to a type."""

    value: Ranged
    operator: str
    number: str
    type: str | None

    def to_json(self) -> dict[str, Any]:
        return {**self.value.to_json(), "operator": self.operator, "number": self.number, "type": self.type}


_COMPARISON = r"{name} (<|<=|>|>=) (\d+(?:\.\d+)?)(?:::(numeric|bigint|integer))?"


def ranged(stage: Stage, plans: Iterable[Plan]) -> tuple[Ranged, ...]:
    """The values of a stage's state by a range of which its rows are looked for somewhere in the plans."""
    sought = (one for plan in plans for node in distinct(plan) for one in _sought(node))
    return tuple(dict.fromkeys(one for below, name in sought for one in _made(below, name, stage)))


def weighed(stage: Stage, plans: tuple[Plan, ...]) -> tuple[Ranged, ...]:
    """The computed values of a stage's state that conditions in the plans are about, and that no index is over."""
    found = dict.fromkeys(value for value, _, _ in _conditions(stage, plans) if value.count is not None)
    indexed = ranged(stage, plans)
    return tuple(one for one in found if one not in indexed)


def chosen(stage: Stage, plans: tuple[Plan, ...]) -> tuple[Chosen, ...]:
    """The groups of a stage's state that conditions choose in the plans by comparing a value with a number."""
    found = (
        (value, re.fullmatch(_COMPARISON.format(name=re.escape(name)), one.text))
        for value, name, one in _conditions(stage, plans)
    )
    return tuple(dict.fromkeys(Chosen(value, *match.groups()) for value, match in found if match))


def _conditions(stage: Stage, plans: tuple[Plan, ...]) -> Iterator[tuple[Ranged, str, Scalar]]:
    """What is said of a value of a stage's state alone, where the state is looked into for a match or a partner: the
    value, what it is called, and the condition.
    """
    pairs = (node for plan in plans for node in distinct(plan) if isinstance(node, Join | LeftJoin | FullJoin | Mark))
    for node in (one for pair in pairs for side in inputs(pair) for one in _filters(side)):
        for one in node.predicates:
            if len(one.columns) == 1:
                (name,) = one.columns
                yield from ((value, name, one) for value in _made(node.input, name, stage))


def _filters(plan: Plan) -> Iterator[Filter]:
    """The filters that every row of a plan has passed."""
    if isinstance(plan, Filter):
        yield plan
    if isinstance(plan, Filter | Project):
        yield from _filters(plan.input)


def _sought(node: Plan) -> Iterator[tuple[Plan, str]]:
    """What an operator looks for rows of by a range, and the column that it does so by."""
    match node:
        case Mark(left):
            column = found_by_range(node)
            yield from [(left, column.name)] if column else []
        case TimedFilter(below, timed) | TimedColumn(below, timed):
            yield from ((below, name) for name in sorted(timed.near.columns if timed.near else ()))


def _made(plan: Plan, name: str, stage: Stage) -> Iterator[Ranged]:
    """What of the state a column shows, where it does that and no more."""
    match plan:
        case Filter(below):
            yield from _made(below, name, stage)
        case Join(left, right):
            yield from _made(left if name in names(left) else right, name, stage)
        case Project(below, items):
            value = next(item.value for item in items if item.column.name == name)
            if value.is_column:
                yield from _made(below, next(iter(value.columns)), stage)
            elif isinstance(below, Scan) and below.table == stage.state:
                yield from _summed(value, below, stage)
        case Scan(table, fields) if table == stage.state:
            attribute = next(field.attribute for field in fields if field.column.name == name)
            yield from (Ranged(one.name) for one in stage.rest if one.name == attribute and _is_bounded(one.type))


def _is_bounded(of: Type) -> bool:
    """Whether an index has room for every value: numbers whose decimals are known were declared with their digits."""
    return of.is_narrow or (of.name == "numeric" and of.scale is not None)


def _summed(value: Scalar, scan: Scan, stage: Stage) -> Iterator[Ranged]:
    """The sum or mean that an expression over the state is."""
    columns = {one.name: one for one in stage.rest}
    read = {field.column.name: columns[field.attribute] for field in scan.fields if field.column.name in value.columns}
    parts = {hole: name for name, one in read.items() if (hole := _hole(one)) is not None}
    if len(parts) < len(read) or not {"sum", "count"} <= parts.keys():
        return
    shown = {hole: sql.Identifier(name) for hole, name in parts.items()}
    sums = (SHOWN_DECIMAL_SUM, SHOWN_DECIMAL_MEAN) if "nan" in parts else (SHOWN_SUM, SHOWN_MEAN)
    for is_mean, template in enumerate(sums):
        if template.format(**shown).as_string(None) == value.text:
            of = {hole: read[name].name for hole, name in parts.items()}
            yield Ranged(of["sum"], of["count"], of.get("nan"), bool(is_mean))


def _hole(one: StateColumn) -> str | None:
    match one.role:
        case Role.ROWS | Role.COUNT:
            return "count"
        case Role.SUM | Role.FINITE_SUM:
            return "sum"
        case Role.COUNT_NAN:
            return "nan"
        case _:
            return None
