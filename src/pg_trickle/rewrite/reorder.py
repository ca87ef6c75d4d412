"""Inner joins in an order that keeps what is in between small."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.rewrite.pushdown import is_filtered
from pg_trickle.rewrite.restrict import restricted
from pg_trickle.scalar import Scalar, column
from pg_trickle.uniqueness import keys


def reordered(plan: Plan) -> Plan:
    """The plan with the inputs of its inner joins in a better order: ``L ⋈ R = R ⋈ L``, and ⋈ is associative.

    The delta of a join holds the deltas of the joins inside it, so each of them should be a small change of few rows.
    What is looked up by its key and filtered joins what it is looked up for first, so that a change of either that
    the filter throws away goes no further.  Of what that leaves: begin with what is filtered, go on with what the
    chosen ones determine, and take what no condition connects to them last.  The server plans each term by itself, so
    more isn't decided here.
    """
    if not isinstance(plan, Join):
        return plan.over(reordered)
    plans, predicates = _flattened(plan)
    if len(plans) < 3:
        left, right = map(reordered, restricted([plan.left, plan.right], predicates))
        return replace(plan, left=left, right=right)
    inputs = [_Input.of(reordered(one), place) for place, one in enumerate(restricted(plans, predicates))]
    clusters = _with_lookups(inputs, predicates)
    rest = tuple(one for one in predicates if not one.columns or not any(one.columns <= c.columns for c in clusters))
    joined = _joined(_ordered(clusters, rest), rest)
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
    """One input, or several joined: where it stood, its columns, and whether a predicate is on it alone."""

    plan: Plan
    place: int
    columns: frozenset[str]
    is_filtered: bool

    @classmethod
    def of(cls, plan: Plan, place: int) -> _Input:
        return cls(plan, place, frozenset(names(plan)), is_filtered(plan))

    def rank(self, there: frozenset[str], predicates: tuple[Scalar, ...]) -> tuple[bool, bool, bool, int]:
        """How well it goes with what is there; the least is best."""
        mine = self._equated(there, predicates)
        return not mine, not self.is_filtered, not self._is_determined(mine), self.place

    def is_lookup(self, other: _Input, predicates: tuple[Scalar, ...]) -> bool:
        """Whether it is filtered, and a row of the other one finds at most one of it."""
        return self.is_filtered and self is not other and self._is_determined(self._equated(other.columns, predicates))

    def _equated(self, there: frozenset[str], predicates: tuple[Scalar, ...]) -> frozenset[str]:
        """The own columns that conditions equate with something that is there."""
        pairs = [frozenset(one.equates) for one in predicates if one.equates]
        return frozenset(name for pair in pairs if pair & there for name in pair & self.columns)

    def _is_determined(self, equated: frozenset[str]) -> bool:
        return any(key <= equated for key in keys(self.plan))


def _with_lookups(inputs: list[_Input], predicates: tuple[Scalar, ...]) -> list[_Input]:
    """The inputs, each joined with the filtered rows that it looks up, which are joined with what they look up."""
    found = [(one, other) for one in inputs for other in inputs if other.is_lookup(one, predicates)]
    if not found:
        return inputs
    looking = [one for one, _ in found]
    # Where rows look up each other, either may be first.
    one, other = min(found, key=lambda pair: (pair[1] in looking, pair[0].place, pair[1].place))
    columns = one.columns | other.columns
    on = tuple(p for p in predicates if p.columns <= columns and not any(p.columns <= x.columns for x in (one, other)))
    together = _Input(Join(one.plan, other.plan, on), one.place, columns, is_filtered=True)
    rest = [each for each in inputs if each is not one and each is not other]
    return _with_lookups([*rest, together], predicates)


def _ordered(inputs: list[_Input], predicates: tuple[Scalar, ...]) -> list[Plan]:
    rest = list(inputs)
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
