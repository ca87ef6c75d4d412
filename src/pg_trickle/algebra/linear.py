"""Linear operators: ``Δ(op R) = op(ΔR)``, weights kept (ALGEBRA.md §2)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pg_trickle.algebra.plan import Plan
from pg_trickle.scalar import Column, Scalar


@dataclass(frozen=True, slots=True)
class Filter(Plan):
    """The rows that satisfy every one of ``predicates``: ``Δσ(R) = σ(ΔR)``."""

    input: Plan
    predicates: tuple[Scalar, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns

    def delta(self) -> Plan:
        return replace(self, input=self.input.delta())


@dataclass(frozen=True, slots=True)
class Item:
    """An output column of a projection and the expression it holds."""

    column: Column
    value: Scalar


@dataclass(frozen=True, slots=True)
class Project(Plan):
    """Each row mapped to the values of ``items``: ``Δπ(R) = π(ΔR)``.  Rows that become equal add up."""

    input: Plan
    items: tuple[Item, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(item.column for item in self.items)

    def delta(self) -> Plan:
        return replace(self, input=self.input.delta())


@dataclass(frozen=True, slots=True)
class Negate(Plan):
    """Every weight with its sign turned: ``Δ(−R) = −ΔR``."""

    input: Plan

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns

    def delta(self) -> Plan:
        return replace(self, input=self.input.delta())


@dataclass(frozen=True, slots=True)
class UnionAll(Plan):
    """The sum of two Z-sets, matched by position and named as the left one: ``Δ(L + R) = ΔL + ΔR``."""

    left: Plan
    right: Plan
    schema: tuple[Column, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, not on every look: both sides share their parts, and looking through both takes exponential time.
        pairs = zip(self.left.columns, self.right.columns, strict=True)
        schema = tuple(replace(left, not_null=left.not_null and right.not_null) for left, right in pairs)
        object.__setattr__(self, "schema", schema)

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.schema

    def delta(self) -> Plan:
        return UnionAll(self.left.delta(), self.right.delta())


@dataclass(frozen=True, slots=True)
class Consolidate(Plan):
    """The same Z-set with each distinct row once: weights summed, zeros gone."""

    input: Plan

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns

    def delta(self) -> Plan:
        return replace(self, input=self.input.delta())
