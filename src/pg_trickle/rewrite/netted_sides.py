"""Changes of both sides of a join, netted where they would multiply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.kinds import is_delta
from pg_trickle.algebra.linear import Consolidate, Negate, UnionAll
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.source import Changes, Source
from pg_trickle.uniqueness import is_net

# The change of a join of two tables has 8 rows for an update's two images, 2 + 2 + 2 · 2; of such a join with a third
# table the last term has 16, and of two such joins 64.
_MANY = 50
# By the table that has changed; states (None) may change together, for they may be of one table.
_Images = dict[Source | None, int]


def netted_sides(plan: Plan) -> Plan:
    """The delta with ``ΔL`` and ``ΔR`` consolidated in the change of a join, where one changed row makes many of them.

    ``Δ(L ⋈ R)`` is a sum of three terms, in which most of what came and what went cancels out.  Where both sides read
    the same table, as in WITH queries each of which names the one before twice, rows of all terms of one side meet
    those of the other: 8, 80, 6560 for one changed row, at each level as many as the square of those below, when its
    two images are all that differs.  Changes of different tables seldom meet.  Parts that the plan shares stay shared.
    """
    return _Netting().netted(plan)


@dataclass(slots=True)
class _Netting:
    """What is known of parts of a delta, by their identity; ``kept`` keeps those alive that were made."""

    done: dict[int, Plan] = field(default_factory=dict)
    deltas: dict[int, bool] = field(default_factory=dict)
    counts: dict[int, _Images] = field(default_factory=dict)
    kept: list[Plan] = field(default_factory=list)

    def netted(self, part: Plan) -> Plan:
        if not is_delta(part, self.deltas):
            return part
        if id(part) not in self.done:
            below = part.over(self.netted)
            self.done[id(part)] = made = self._joined(below)
            self.kept += (below, made)
        return self.done[id(part)]

    def _joined(self, part: Plan) -> Plan:
        match part:
            case UnionAll(UnionAll(Join() as came, Join() as also), Negate(Join(left, right, on) as both)) if (
                came.left is left and also.right is right and self._is_much(both)
            ):
                one, other = _consolidated(left), _consolidated(right)
                terms = UnionAll(Join(one, came.right, on), Join(also.left, other, on))
                return UnionAll(terms, Negate(Join(one, other, on)))
            case _:
                return part

    def _is_much(self, plan: Plan) -> bool:
        return max((self._images(plan) or {}).values(), default=0) > _MANY

    def _images(self, plan: Plan) -> _Images | None:
        """How many rows of a delta come of a changed row of each table, if it finds one elsewhere; None of no delta."""
        if not is_delta(plan, self.deltas):
            return None
        if id(plan) not in self.counts:
            self.counts[id(plan)] = self._counted(plan)
        return self.counts[id(plan)]

    def _counted(self, plan: Plan) -> _Images:
        if isinstance(plan, Changes):
            return {plan.table if isinstance(plan.table, Source) else None: 2}
        below = [found for one in inputs(plan) if (found := self._images(one)) is not None]
        match plan:
            case Consolidate():
                return dict.fromkeys(below[0], 2)
            case Join() if len(below) == 2:
                # Where the other side hasn't changed, there is nothing to meet.
                return {table: below[0][table] * below[1][table] for table in below[0].keys() & below[1].keys()}
            case UnionAll():
                return _each(sum, below)
            case _:
                return _each(max, below)


def _each(by: Callable[[Iterable[int]], int], below: list[_Images]) -> _Images:
    tables = {table for one in below for table in one}
    return {table: by([one[table] for one in below if table in one]) for table in tables}


def _consolidated(change: Plan) -> Plan:
    return change if is_net(change) else Consolidate(change)
