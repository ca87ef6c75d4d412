"""Changes of both sides of a join, netted where they would multiply."""

from __future__ import annotations

from dataclasses import dataclass, field

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.kinds import is_delta
from pg_trickle.algebra.linear import Consolidate, Negate, UnionAll
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.source import Changes, Source, State
from pg_trickle.uniqueness import is_net

# The change of a join of two tables has 8 rows for an update's two images, 2 + 2 + 2 · 2; of such a join with a third
# table the last term has 16, and of two such joins 64.
_MANY = 50


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
    counts: dict[int, tuple[int, frozenset[Source | State]]] = field(default_factory=dict)
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
                came.left is left and also.right is right and self._images(both)[0] > _MANY
            ):
                one, other = _consolidated(left), _consolidated(right)
                terms = UnionAll(Join(one, came.right, on), Join(also.left, other, on))
                return UnionAll(terms, Negate(Join(one, other, on)))
            case _:
                return part

    def _images(self, plan: Plan) -> tuple[int, frozenset[Source | State]]:
        """How many rows of a delta come of a changed row, if each finds one row elsewhere; and of which tables."""
        if not is_delta(plan, self.deltas):
            return 1, frozenset()
        if id(plan) not in self.counts:
            self.counts[id(plan)] = self._counted(plan)
        return self.counts[id(plan)]

    def _counted(self, plan: Plan) -> tuple[int, frozenset[Source | State]]:
        if isinstance(plan, Changes):
            return 2, frozenset((plan.table,))
        below = [self._images(one) for one in inputs(plan)]
        tables = frozenset[Source | State]().union(*(of for _, of in below))
        counts = [count for count, _ in below] or [1]
        match plan:
            case Consolidate():
                return 2, tables
            case UnionAll():
                return sum(counts), tables
            case Join() if below[0][1] & below[1][1]:
                return counts[0] * counts[1], tables
            case _:
                return max(counts), tables


def _consolidated(change: Plan) -> Plan:
    return change if is_net(change) else Consolidate(change)
