"""Predicates as near to the tables as they can be."""

from __future__ import annotations

from dataclasses import replace

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.order import DistinctOn
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.source import Unit
from pg_trickle.algebra.timed import Timed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.scalar import Identity, Scalar


def pushed_down(plan: Plan) -> Plan:
    """The plan with every conjunct where its columns come together: ``σp(L ⋈ R) = σp(L) ⋈ R`` for p over L."""
    if isinstance(plan, Filter):
        return _sunk(pushed_down(plan.input), plan.predicates)
    if isinstance(plan, TimedFilter):
        return _sunk_timed(pushed_down(plan.input), plan.condition)
    if isinstance(plan, Join):
        return _joined(plan)
    if isinstance(plan, LeftJoin | Mark):
        return _matched(plan)
    return plan.over(pushed_down)


def _joined(join: Join) -> Plan:
    left, right = set(names(join.left)), set(names(join.right))
    here, to_left, to_right = [], [], []
    for predicate in join.on:
        if predicate.columns and predicate.columns <= left:
            to_left.append(predicate)
        elif predicate.columns and predicate.columns <= right:
            to_right.append(predicate)
        else:
            here.append(predicate)
    below = (_sunk(pushed_down(join.left), tuple(to_left)), _sunk(pushed_down(join.right), tuple(to_right)))
    if isinstance(below[0], Unit):
        return below[1] if not here else Filter(below[1], tuple(here))
    return Join(*below, tuple(here))


def _matched(plan: LeftJoin | Mark) -> Plan:
    """What only concerns the right side goes down there; what only concerns the left one decides whether it is met."""
    down, here = _split(plan.on, plan.right)
    return replace(plan, left=pushed_down(plan.left), right=_sunk(pushed_down(plan.right), down), on=here)


def _split(predicates: tuple[Scalar, ...], below: Plan) -> tuple[tuple[Scalar, ...], tuple[Scalar, ...]]:
    """The predicates over columns of a plan, and the others."""
    known = set(names(below))
    down = tuple(one for one in predicates if one.columns and one.columns <= known)
    return down, tuple(one for one in predicates if one not in down)


def _sunk(plan: Plan, predicates: tuple[Scalar, ...]) -> Plan:
    if not predicates:
        return plan
    if isinstance(plan, Join):
        return _joined(replace(plan, on=plan.on + predicates))
    if isinstance(plan, LeftJoin | Mark):
        # Which rows of the left side are kept is no matter of what they match: σp(L ⟕ R) = σp(L) ⟕ R for p over L.
        down, here = _split(predicates, plan.left)
        kept = replace(plan, left=_sunk(plan.left, down))
        return Filter(kept, here) if here else kept
    if isinstance(plan, Filter):
        return _sunk(plan.input, plan.predicates + predicates)
    if isinstance(plan, TimedFilter):
        return replace(plan, input=_sunk(plan.input, predicates))
    if isinstance(plan, Lateral | TimedColumn):
        return _below(plan, predicates, frozenset(names(plan.input)))
    if isinstance(plan, Project):
        return _below(plan, predicates, passed_through(plan))
    if isinstance(plan, Window | DistinctOn):
        # A predicate over the keys leaves out whole partitions, unless it can tell equal keys apart.
        whole = {one.name for one in plan.columns if one.name in plan.keys and one.type.identity is Identity.EQUAL}
        return _below(plan, predicates, frozenset(whole))
    return Filter(plan, predicates)


def is_filtered(plan: Plan) -> bool:
    """Whether some rows of a table, or of one that it is joined with, are left out by a condition on it alone."""
    match plan:
        case Filter() | TimedFilter():
            return True
        case Project(below):
            return is_filtered(below)
        case Join(left, right):
            return is_filtered(left) or is_filtered(right)
        case _:
            return False


def _below(
    plan: Project | Lateral | TimedColumn | Window | DistinctOn, predicates: tuple[Scalar, ...], passed: frozenset[str]
) -> Plan:
    """Predicates over columns that are passed through, below the operator; the others above it."""
    through = tuple(p for p in predicates if p.columns <= passed and p.columns)
    rest = tuple(p for p in predicates if p not in through)
    inside = replace(plan, input=_sunk(plan.input, through))
    return Filter(inside, rest) if rest else inside


def passed_through(plan: Project) -> frozenset[str]:
    """The columns that a projection passes through under their own names."""
    return frozenset(
        item.column.name for item in plan.items if item.value.is_column and item.column.name in item.value.columns
    )


def _sunk_timed(plan: Plan, condition: Timed) -> Plan:
    """A condition on time where its columns come from: what it changes there is found by an index, and is small."""
    if isinstance(plan, Project) and condition.columns <= passed_through(plan):
        return replace(plan, input=_sunk_timed(plan.input, condition))
    if isinstance(plan, Lateral | TimedColumn) and condition.columns <= set(names(plan.input)):
        return replace(plan, input=_sunk_timed(plan.input, condition))
    if isinstance(plan, Join | LeftJoin | Mark) and condition.columns <= set(names(plan.left)):
        return replace(plan, left=_sunk_timed(plan.left, condition))
    if isinstance(plan, Join) and condition.columns <= set(names(plan.right)):
        return replace(plan, right=_sunk_timed(plan.right, condition))
    return TimedFilter(plan, condition)
