"""The inner join."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.linear import Negate, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.scalar import Column, Scalar


@dataclass(frozen=True, slots=True)
class Join(Plan):
    """Inner join, ``L ⋈ R``: the pairs of rows that satisfy every condition in ``on``.

    A pair weighs the product of its halves' weights.  So the join is bilinear, and with
    ``L = L′ − ΔL`` its change needs no old state (ALGEBRA.md §3; a prime marks the new state)::

        Δ(L ⋈ R)  =  ΔL ⋈ R′  +  L′ ⋈ ΔR  −  ΔL ⋈ ΔR

    Rows that came on both sides meet in all three terms: once in the sum.
    """

    left: Plan
    right: Plan
    on: tuple[Scalar, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.left.columns + self.right.columns

    def delta(self) -> Plan:
        return self.change(self.left.delta(), self.right.delta())

    def change(self, left: Plan, right: Plan) -> Plan:
        """The delta that follows from both sides' deltas."""
        return UnionAll(
            UnionAll(replace(self, left=left), replace(self, right=right)),
            Negate(replace(self, left=left, right=right)),
        )
