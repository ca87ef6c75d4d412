"""What time moves: conditions, and columns, that depend on the time of the transaction."""

from __future__ import annotations

from dataclasses import dataclass

from pg_trickle.algebra.linear import Filter, Item, Project, UnionAll
from pg_trickle.algebra.plan import DeltaPart, Plan
from pg_trickle.scalar import Column, Scalar, column


@dataclass(frozen=True, slots=True)
class Timed:
    """An expression at two moments: ``now`` at this refresh, ``before`` at the last one.

    ``near``, if known, is true of every row for which the two may differ: it can use an index on its columns, or it
    has none and is false until the hour, or the day, is another.
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
class TimedColumn(Plan):
    """Every row with one more column: an expression that reads the time, ``τ``; no row comes or goes by it.

    With ``τ°`` for the expression as it was at the last refresh (a prime marks the new state)::

        Δτ(R)  =  τ°(ΔR)  +  τ(R′) − τ°(R′)

    The last two terms are ``Elapsed``: the rows of R′ whose value is another now, with the new one and the old.
    """

    input: Plan
    value: Timed
    column: Column

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.input.columns, self.column)

    def delta(self) -> Plan:
        return UnionAll(self.at_frontier(self.input.delta()), Elapsed(self.input, self.value, self.column))

    def at_frontier(self, plan: Plan) -> Plan:
        """The rows of a plan with the value that the expression had."""
        return Project(plan, (*(Item(one, column(one)) for one in plan.columns), Item(self.column, self.value.before)))


@dataclass(frozen=True, slots=True)
class Elapsed(DeltaPart):
    """What time alone has changed: ``σ(R) − σ°(R)``, or ``τ(R) − τ°(R)`` where a ``column`` holds the value.

    So the rows that satisfy a condition now and didn't before, minus those that no longer do; or the rows whose value
    is another now, minus the same with the value that it was.
    """

    input: Plan
    condition: Timed
    column: Column | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns if self.column is None else (*self.input.columns, self.column)
