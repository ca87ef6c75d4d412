"""Outer joins as inner ones, where what is above throws away the rows that they pad."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Item, Project
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.timed import TimedColumn, TimedFilter
from pg_trickle.scalar import Scalar, column

_NOTHING: frozenset[str] = frozenset()


def strengthened(plan: Plan, demanded: frozenset[str] = _NOTHING) -> Plan:
    """The plan with ``σp(L ⟕ R) = σp(L ⋈ R)`` where p isn't true of a row in which R's columns are NULL.

    ``demanded`` are columns of the plan: rows in which one of them is NULL are nobody's concern, and may be missing.
    """
    match plan:
        case Filter(below, predicates):
            return replace(plan, input=strengthened(below, demanded | _demanded(predicates)))
        case TimedFilter(below, _) | TimedColumn(below, _):
            return replace(plan, input=strengthened(below, demanded))
        case Project(below, items):
            read = (item.value.strict for item in items if item.column.name in demanded)
            return replace(plan, input=strengthened(below, _NOTHING.union(*read)))
        case Join(left, right, on):
            wanted = demanded | _demanded(on)
            return replace(plan, left=strengthened(left, wanted), right=strengthened(right, wanted))
        case LeftJoin():
            return _left(plan, demanded)
        case FullJoin():
            return _full(plan, demanded)
        case Mark(left, right, on):
            # What satisfies no condition marks nothing.
            return replace(plan, left=strengthened(left, demanded), right=strengthened(right, _demanded(on)))
        case _:
            return plan.over(strengthened)


def _demanded(predicates: Iterable[Scalar]) -> frozenset[str]:
    return _NOTHING.union(*(one.demanded for one in predicates))


def _left(join: LeftJoin, demanded: frozenset[str]) -> Plan:
    if demanded & set(names(join.right)):
        return strengthened(Join(join.left, join.right, join.on), demanded)
    # A row of the right side that satisfies no condition meets nothing; one of the left side stays.
    return replace(join, left=strengthened(join.left, demanded), right=strengthened(join.right, _demanded(join.on)))


def _full(join: FullJoin, demanded: frozenset[str]) -> Plan:
    """``L ⟗ R`` as ``L ⟕ R`` where the padded rows of R don't matter, as ``R ⟕ L`` where those of L don't."""
    if demanded & set(names(join.left)):
        return strengthened(LeftJoin(join.left, join.right, join.on), demanded)
    if demanded & set(names(join.right)):
        mirrored = LeftJoin(join.right, join.left, join.on)
        return Project(strengthened(mirrored, demanded), tuple(Item(one, column(one)) for one in join.columns))
    return join.over(strengthened)
