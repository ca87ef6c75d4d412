"""The inner join."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.linear import Negate, UnionAll
from pg_trickle.algebra.plan import DeltaPart, Plan
from pg_trickle.scalar import Column, Identity, Scalar


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


def is_equality(condition: Scalar, left: Plan, right: Plan) -> bool:
    """Whether it equates a column of either side by the equality that groups and hashes go by: of a built-in type."""
    columns = {one.name: (side, one.type) for side in (left, right) for one in side.columns}
    if not condition.equates or not columns.keys() >= set(condition.equates):
        return False
    (here, one), (there, other) = (columns[name] for name in condition.equates)
    plain = one.name is not None and one.identity is Identity.EQUAL and one.hashable
    return here is not there and plain and one == other


@dataclass(frozen=True, slots=True)
class Partners(DeltaPart):
    """The rows of ``input`` that equal some row of ``change`` in all that ``on`` equates, each once: ``R ⋉ ΔL``.

    A semijoin reduction: rows of a change that agree in what is looked up, an update's two images above all, share
    what they find; or, the other way round, a change is cut to what finds anything (``rewrite/sifted.py``)::

        ΔL ⋈ R  =  ΔL ⋈ (R ⋉ ΔL)  =  (ΔL ⋉ R) ⋈ R
    """

    input: Plan
    change: Plan
    on: tuple[Scalar, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns


@dataclass(frozen=True, slots=True)
class Untouched(DeltaPart):
    """The rows of ``input``, a change, that meet no row of ``change`` by what ``on`` equates: ``ΔL ▷ ΔR``."""

    input: Plan
    change: Plan
    on: tuple[Scalar, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns


@dataclass(frozen=True, slots=True)
class Gone(DeltaPart):
    """The rows of a net change that weigh less than nothing: as what it took away was, ``ΔR⁻``."""

    input: Plan

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns
