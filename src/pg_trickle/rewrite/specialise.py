"""A delta for the case that only certain tables changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Item, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Source, State, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.scalar import Scalar, column

Changed = Callable[[Source | State], bool]


def specialised(plan: Plan, changed: Changed) -> Plan:
    """The plan with ``ΔR = ∅`` for every unchanged R, simplified: ``∅ ⋈ R = ∅``, ``∅ + Q = Q``, ``σ(∅) = ∅`` …

    Parts that the plan shares stay shared.
    """
    done: dict[int, Plan] = {}

    def descend(part: Plan) -> Plan:
        if id(part) not in done:
            done[id(part)] = _simplified(part, descend, changed)
        return done[id(part)]

    return descend(plan)


def _simplified(plan: Plan, descend: Callable[[Plan], Plan], changed: Changed) -> Plan:
    match operator(plan):
        case Changes(table, _):
            return plan if changed(table) else Empty(plan.columns)
        case Scan() | Unit() | Unwatched() | Empty() | Opaque() | Recompute() | Recursion() | Found():
            return plan
        case Filter(below, predicates):
            return _filtered(descend(below), predicates)
        case (
            Project(below)
            | Negate(below)
            | Consolidate(below)
            | Gone(below)
            | Lateral(below)
            | TimedFilter(below)
            | TimedColumn(below)
            | Elapsed(below)
        ) as linear:
            inside = descend(below)
            return Empty(plan.columns) if isinstance(inside, Empty) else replace(linear, input=inside)
        case Window(below) | DistinctOn(below) | TopK(below) as unary:
            inside = descend(below)
            return Empty(plan.columns) if isinstance(inside, Empty) else replace(unary, input=inside)
        case UnionAll(left, right):
            return _sum(plan, descend(left), descend(right))
        case Join(left, right, on):
            sides = descend(left), descend(right)
            return Empty(plan.columns) if any(isinstance(side, Empty) for side in sides) else Join(*sides, on)
        case LeftJoin(left, right) | Mark(left, right) as kept:
            rows = descend(left)
            return Empty(plan.columns) if isinstance(rows, Empty) else replace(kept, left=rows, right=descend(right))
        case FullJoin(left, right) as join:
            return replace(join, left=descend(left), right=descend(right))
        case Flipped(below, right, change) as flipped:
            rows, turning = descend(below), descend(change)
            if isinstance(rows, Empty) or isinstance(turning, Empty):
                return Empty(plan.columns)
            return replace(flipped, input=rows, right=descend(right), change=turning)
        case Aggregate(below, keys, calls):
            inside = descend(below)
            if not isinstance(inside, Empty):
                return Aggregate(inside, keys, calls)
            # Of no rows at all an aggregate without keys still makes one.
            return Empty(plan.columns) if keys else plan
        case Partners(below, change, on):
            sides = descend(below), descend(change)
            return Empty(plan.columns) if any(isinstance(side, Empty) for side in sides) else Partners(*sides, on)
        case Untouched(below, change, on):
            rows, touched = descend(below), descend(change)
            return rows if isinstance(rows, Empty) or isinstance(touched, Empty) else Untouched(rows, touched, on)
        case Touched(below, change, keys):
            touching = descend(change)
            # Without keys every row is of the one group, touched or not.
            return (
                Empty(plan.columns) if isinstance(touching, Empty) and keys else Touched(descend(below), touching, keys)
            )


def _filtered(plan: Plan, predicates: tuple[Scalar, ...]) -> Plan:
    """A filter, spread over the terms of the change of a mark: directly over a mark it is a semi- or anti-join."""
    match plan:
        case Empty():
            return plan
        case UnionAll(left, right) if names(left) == names(right) and any(map(_is_marked, (left, right))):
            return UnionAll(_filtered(left, predicates), _filtered(right, predicates))
        case Negate(below) if _is_marked(below):
            return Negate(_filtered(below, predicates))
        case _:
            return Filter(plan, predicates)


def _is_marked(plan: Plan) -> bool:
    match plan:
        case Mark() | Flipped():
            return True
        case UnionAll(left, right):
            return _is_marked(left) or _is_marked(right)
        case Negate(below):
            return _is_marked(below)
        case _:
            return False


def _sum(whole: Plan, left: Plan, right: Plan) -> Plan:
    if isinstance(right, Empty):
        return left
    if not isinstance(left, Empty):
        return UnionAll(left, right)
    # The sum is named after its left side.
    pairs = zip(whole.columns, right.columns, strict=True)
    items = tuple(Item(replace(there, name=here.name), column(there)) for here, there in pairs)
    return (
        right
        if all(i.column.name == c.name for i, c in zip(items, right.columns, strict=True))
        else Project(right, items)
    )
