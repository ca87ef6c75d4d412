"""Inner joins in an order that keeps what is in between small."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Item, Project
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.scalar import Scalar, column
from pg_trickle.uniqueness import keys


def reordered(plan: Plan) -> Plan:
    """The plan with the inputs of its inner joins in a better order: ``L ⋈ R = R ⋈ L``, and ⋈ is associative.

    The delta of ``R1 ⋈ … ⋈ Rn`` holds the delta of each of its beginnings, so each of them should be a small
    change of few rows: begin with what is filtered, go on with what the chosen ones determine, and take what no
    condition connects to them last.  The server plans each term by itself, so more isn't decided here.
    """
    if not isinstance(plan, Join):
        return plan.over(reordered)
    inputs, predicates = _flattened(plan)
    if len(inputs) < 3:
        return plan.over(reordered)
    joined = _joined(_ordered([reordered(one) for one in inputs], predicates), predicates)
    if names(joined) == names(plan):
        return joined
    return Project(joined, tuple(Item(one, column(one)) for one in plan.columns))


def _flattened(plan: Plan) -> tuple[list[Plan], tuple[Scalar, ...]]:
    """The inputs of joins on joins, and all their conditions."""
    if not isinstance(plan, Join):
        return [plan], ()
    left, right = _flattened(plan.left), _flattened(plan.right)
    return left[0] + right[0], left[1] + right[1] + plan.on


@dataclass(frozen=True, slots=True)
class _Input:
    """One input: where it stood, its columns, and whether a predicate is on it alone."""

    plan: Plan
    place: int
    columns: frozenset[str]
    is_filtered: bool

    def rank(self, there: frozenset[str], predicates: tuple[Scalar, ...]) -> tuple[bool, bool, bool, int]:
        """How well it goes with what is there; the least is best."""
        mine = {name for one in predicates for name in _mine(one, there, self.columns)}
        determined = any(key <= mine for key in keys(self.plan))
        return not mine, not self.is_filtered, not determined, self.place


def _mine(predicate: Scalar, there: frozenset[str], columns: frozenset[str]) -> frozenset[str]:
    """The input's columns that a condition equates with something that is there."""
    pair = frozenset(predicate.equates or ())
    return pair & columns if pair & there and pair & columns else frozenset()


def _ordered(plans: list[Plan], predicates: tuple[Scalar, ...]) -> list[Plan]:
    rest = [_Input(plan, place, frozenset(names(plan)), isinstance(plan, Filter)) for place, plan in enumerate(plans)]
    chosen: list[Plan] = []
    there: frozenset[str] = frozenset()
    while rest:
        best = min(rest, key=lambda one: one.rank(there, predicates))
        rest.remove(best)
        chosen.append(best.plan)
        there |= best.columns
    return chosen


def _joined(plans: list[Plan], predicates: tuple[Scalar, ...]) -> Plan:
    """Joined one after the other, each condition as soon as its columns are there."""
    joined, pending = plans[0], predicates
    for plan in plans[1:]:
        there = frozenset(names(joined)) | frozenset(names(plan))
        here = tuple(one for one in pending if one.columns <= there)
        pending = tuple(one for one in pending if one not in here)
        joined = Join(joined, plan, here)
    return replace(joined, on=joined.on + pending) if pending and isinstance(joined, Join) else joined
