"""Semi- and anti-joins below joins that make no rows fewer."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeGuard

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Item, Project
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.rewrite.pushdown import is_filtered, passed_through
from pg_trickle.scalar import Scalar, column


def matched_early(plan: Plan) -> Plan:
    """The plan with ``(L ⋈ R) ⋉ S = (L ⋉ S) ⋈ R`` for conditions over L, where R isn't filtered; ▷ likewise.

    A change of L that has no match is looked up nowhere else then.  Beside a filtered R the mark stays above: few rows
    are left of such a join, and a look for matches costs more than one for partners.  So predicates have to be down
    already.
    """
    below = plan.over(matched_early)
    if isinstance(below, Filter) and isinstance(below.input, Mark):
        return _sunk(below.input, below.predicates) or below
    return below


def _sunk(mark: Mark, predicates: tuple[Scalar, ...]) -> Plan | None:
    """The mark with what tests it on one side of the join below it, in the same order of columns; None if it stays."""
    tests = tuple(one for one in predicates if one.columns == {mark.column.name})
    join = mark.left.input if _only_picks(mark.left) else mark.left
    if not tests or not isinstance(join, Join):
        return None
    read = {name for one in mark.on for name in one.columns} - set(names(mark.right))
    sides = (join.left, join.right)
    for side, other in (sides, sides[::-1]):
        if read and read <= set(names(side)) and not is_filtered(other):
            inner = replace(mark, left=side)
            tested = _sunk(inner, tests) or Filter(inner, tests)
            # Columns are put in order above all of the joins, which follow one another and are put in order later.
            tested = tested.input if _only_picks(tested) else tested
            made = replace(join, left=tested) if side is join.left else replace(join, right=tested)
            rest = tuple(one for one in predicates if one not in tests)
            picked = Project(made, tuple(Item(one, column(one)) for one in mark.columns))
            return Filter(picked, rest) if rest else picked
    return None


def _only_picks(plan: Plan) -> TypeGuard[Project]:
    """Whether it is a projection that renames nothing and computes nothing."""
    return isinstance(plan, Project) and passed_through(plan) == set(names(plan))
