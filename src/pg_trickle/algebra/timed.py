"""Filters that time moves: conditions on the time of the transaction."""

from __future__ import annotations

from dataclasses import dataclass

from pg_trickle.algebra.linear import Filter, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.scalar import Column, Scalar


@dataclass(frozen=True, slots=True)
class Timed:
    """A condition at two moments: ``now`` at this refresh, ``before`` at the last one.

    ``near``, if known, is true of every row for which the two may differ, and can use an index on its columns.
    """

    now: Scalar
    before: Scalar
    near: Scalar | None = None

    @property
    def columns(self) -> frozenset[str]:
        return self.now.columns | self.before.columns | (self.near.columns if self.near else frozenset())


@dataclass(frozen=True, slots=True)
class TimedFilter(Plan):
    """The rows that satisfy a condition on the present time, ``σ``.  Time counts as a source that always changes.

    With ``σ°`` for the condition as it was at the last refresh (a prime marks the new state)::

        Δσ(R)  =  σ°(ΔR)  +  σ(R′) − σ°(R′)

    The last two terms are ``Elapsed``: the rows of R′ over which the boundary has passed.
    """

    input: Plan
    condition: Timed

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns

    def delta(self) -> Plan:
        return UnionAll(self.at_frontier(self.input.delta()), Elapsed(self.input, self.condition))

    def at_frontier(self, plan: Plan) -> Plan:
        """The rows of a plan that satisfy the condition as it was."""
        return Filter(plan, (self.condition.before,))


@dataclass(frozen=True, slots=True)
class Elapsed(Plan):
    """The rows that satisfy a condition now and didn't before, minus those that no longer do: ``σ(R) − σ°(R)``."""

    input: Plan
    condition: Timed

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns

    def delta(self) -> Plan:
        raise AssertionError("what time has moved is part of a delta already")
