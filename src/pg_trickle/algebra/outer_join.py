"""Outer joins: the inner join, and the rows without a match padded with NULLs (ALGEBRA.md §5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Item, Project, UnionAll
from pg_trickle.algebra.mark import Mark, absent, anti_join, mark
from pg_trickle.algebra.plan import Plan
from pg_trickle.scalar import BOOL, Column, Scalar, column

FALSE = Scalar("FALSE", frozenset(), BOOL, not_null=True)
_ALONE = mark("__pgt_met")


@dataclass(frozen=True, slots=True)
class LeftJoin(Plan):
    """Left outer join, ``L ⟕ R``: the inner join, and of the left side what has no match.

    The new state is PostgreSQL's own; the change is that of the sum it stands for::

        Δ(L ⟕ R)  =  Δ(L ⋈ R)  +  pad(Δ(L ▷ R))
    """

    left: Plan
    right: Plan
    on: tuple[Scalar, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.left.columns + _nullable(self.right)

    def delta(self) -> Plan:
        left, right = self.left.delta(), self.right.delta()
        return UnionAll(_met(self, left, right), _alone(self.left, self.right, self.on, left, right))


@dataclass(frozen=True, slots=True)
class FullJoin(Plan):
    """Full outer join, ``L ⟗ R``: the inner join, and of each side what has no match.

    ::

        Δ(L ⟗ R)  =  Δ(L ⋈ R)  +  pad(Δ(L ▷ R))  +  pad(Δ(R ▷ L))
    """

    left: Plan
    right: Plan
    on: tuple[Scalar, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return _nullable(self.left) + _nullable(self.right)

    def split(self) -> Plan:
        """The sum it stands for: ``L ⟗ R = L ⟕ R + pad(R ▷ L)``, whose parts take any condition and further columns."""
        alone = Project(
            anti_join(self.right, self.left, self.on, _ALONE),
            tuple(Item(one, column(one)) for one in self.right.columns),
        )
        return UnionAll(LeftJoin(self.left, self.right, self.on), padded(alone, self.left, self.columns))

    def delta(self) -> Plan:
        left, right = self.left.delta(), self.right.delta()
        mirrored = _alone(self.right, self.left, self.on, right, left)
        both = UnionAll(_met(self, left, right), _alone(self.left, self.right, self.on, left, right))
        return UnionAll(both, _ordered(mirrored, self.columns))


def padded(alone: Plan, other: Plan, columns: tuple[Column, ...]) -> Plan:
    """Rows beside NULLs for another plan's columns, of which an outer join on nothing knows the types; in an order."""
    return _ordered(LeftJoin(alone, other, (FALSE,)), columns)


def _ordered(plan: Plan, columns: tuple[Column, ...]) -> Plan:
    by_name = {one.name: one for one in plan.columns}
    return Project(plan, tuple(Item(by_name[one.name], column(by_name[one.name])) for one in columns))


def _nullable(side: Plan) -> tuple[Column, ...]:
    return tuple(replace(one, not_null=False) for one in side.columns)


def _met(join: LeftJoin | FullJoin, left: Plan, right: Plan) -> Plan:
    return Join(join.left, join.right, join.on).change(left, right)


def _alone(kept: Plan, other: Plan, on: tuple[Scalar, ...], change: Plan, others: Plan) -> Plan:
    """The change of what has no match on the other side, padded: by an outer join on nothing, which knows the types."""
    alone = Filter(Mark(kept, other, on, _ALONE).change(change, others), (absent(_ALONE),))
    unmarked = Project(alone, tuple(Item(one, column(one)) for one in kept.columns))
    return LeftJoin(unmarked, other, (FALSE,))
