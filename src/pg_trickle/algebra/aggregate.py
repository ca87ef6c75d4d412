"""Grouping and aggregation, and the restriction to touched groups that maintains it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from pg_trickle.algebra.linear import Negate, UnionAll
from pg_trickle.algebra.plan import DeltaPart, Plan
from pg_trickle.algebra.states import old
from pg_trickle.scalar import Column, Scalar

COLLECTING = frozenset({
    "array_agg", "string_agg", "json_agg", "jsonb_agg", "json_agg_strict", "jsonb_agg_strict", "json_object_agg",
    "json_object_agg_strict", "json_object_agg_unique", "json_object_agg_unique_strict", "jsonb_object_agg",
    "jsonb_object_agg_strict", "jsonb_object_agg_unique", "jsonb_object_agg_unique_strict", "xmlagg", "any_value",
})  # fmt: skip
"""PostgreSQL's own functions that aggregate by the order of rows (of SQL/JSON's aggregates PostgreSQL makes others)."""


class Rule(Enum):
    """How a stage keeps an aggregate up to date (ALGEBRA.md §6)."""

    COUNT = "counter: add Σ w"
    SUM = "algebraic: add Σ w·x to the stored sum and to a count of non-NULL inputs"
    AVG = "algebraic: stored sum divided by the stored count of non-NULL inputs"
    MIN = "least of stored and inserted; a deleted minimum recomputes that group"
    MAX = "greatest of stored and inserted; a deleted maximum recomputes that group"
    BOOL_AND = "counters of non-NULL and of false inputs"
    BOOL_OR = "counters of non-NULL and of true inputs"
    VAR_POP = "algebraic: Σ w, Σ w·x and Σ w·x²; the variance of them all"
    VAR_SAMP = "algebraic: Σ w, Σ w·x and Σ w·x²; the variance of a sample"
    STDDEV_POP = "algebraic: Σ w, Σ w·x and Σ w·x²; the root of the variance of them all"
    STDDEV_SAMP = "algebraic: Σ w, Σ w·x and Σ w·x²; the root of the variance of a sample"
    BIT_XOR = "algebraic: what came and what went, each turns its bits"
    BIT_AND = "stored and inserted bits; a deletion recomputes that group"
    BIT_OR = "stored or inserted bits; a deletion recomputes that group"
    RECOMPUTE = "recomputed for the touched groups"


@dataclass(frozen=True, slots=True)
class Call:
    """One aggregate: the column it makes and how.

    ``argument`` and ``condition`` (the FILTER clause) name input columns; ``value`` is the whole call
    as an expression over the input's columns, for recomputing.
    """

    column: Column
    rule: Rule
    value: Scalar
    argument: str | None = None
    condition: str | None = None


@dataclass(frozen=True, slots=True)
class Aggregate(Plan):
    """Grouping by ``keys`` (input columns), ``γ``: one row a group, or one row in all without keys.

    Not linear: a group's row changes as a whole.  But only groups that occur in the change can differ::

        Δγ(Q)  =  γ(Q′ ⋉ ΔQ)  −  γ(Q ⋉ ΔQ)

    where ``Q ⋉ ΔQ`` is Q restricted to the groups touched.  Stages replace the second term by the stored
    output, and the first by arithmetic where a rule allows.  Without keys every row is of the one group,
    touched or not, and both terms have their row.
    """

    input: Plan
    keys: tuple[str, ...]
    calls: tuple[Call, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        by_name = {column.name: column for column in self.input.columns}
        keys = (replace(by_name[key], type=by_name[key].type.of_group.by_value) for key in self.keys)
        return (*keys, *(call.column for call in self.calls))

    def delta(self) -> Plan:
        change = self.input.delta()
        now = replace(self, input=Touched(self.input, change, self.keys))
        before = replace(self, input=Touched(old(self.input), change, self.keys))
        return UnionAll(now, Negate(before))


@dataclass(frozen=True, slots=True)
class Touched(DeltaPart):
    """The rows of ``input`` whose ``keys`` occur in ``change``, NULLs alike: ``Q ⋉ ΔQ``.  Without keys: all rows."""

    input: Plan
    change: Plan
    keys: tuple[str, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns
