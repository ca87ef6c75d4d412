"""The mark: whether a row has a match.  EXISTS, IN, semi-, anti- and outer joins all rest on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from pg_trickle.algebra.linear import Filter, Negate, UnionAll
from pg_trickle.algebra.plan import DeltaPart, Plan
from pg_trickle.scalar import BOOL, Column, Scalar, column, composed


@dataclass(frozen=True, slots=True)
class Mark(Plan):
    """Every row of ``left`` with one more column: whether some row of ``right`` satisfies every condition in ``on``.

    Linear in its left side.  What the right side's change does to a row that stays is to flip its mark, so
    (a prime marks the new state, and ``Flipped`` is below)::

        Δ Mark(L, R)  =  Mark′(ΔL)  +  Flipped(L′)  −  Flipped(ΔL)

    Rows that came or went are judged by the new right side in the first term, and the last two together
    turn the marks of the rows of the old left side, ``L′ − ΔL``.
    """

    left: Plan
    right: Plan
    on: tuple[Scalar, ...]
    column: Column

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.left.columns, self.column)

    def delta(self) -> Plan:
        return self.change(self.left.delta(), self.right.delta())

    def change(self, left: Plan, right: Plan) -> Plan:
        """The delta that follows from both sides' deltas."""
        here = Flipped(left, self.right, right, self.on, self.column)
        return UnionAll(UnionAll(replace(self, left=left), replace(here, input=self.left)), Negate(here))


@dataclass(frozen=True, slots=True)
class Flipped(DeltaPart):
    """For each row of ``input`` whose mark ``change`` turned: the row marked as it is now, minus the row as it was.

    ``right`` is the state after ``change``.  Which rows turned follows from it and the change alone: of the n rows that
    satisfy the conditions now, d more than before, there were none iff n = d.  So the mark turned iff d ≠ 0
    and not more than max(d, 0) rows match; it is now what the sign of d says.
    """

    input: Plan
    right: Plan
    change: Plan
    on: tuple[Scalar, ...]
    column: Column

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.input.columns, self.column)


def mark(name: str) -> Column:
    """A column that a mark fills."""
    return Column(name, BOOL, not_null=True)


def absent(marked: Column) -> Scalar:
    """The condition that a mark is not set."""
    text = sql.SQL("NOT {mark}").format(mark=sql.Identifier(marked.name))
    return composed(text, frozenset((marked.name,)), BOOL, not_null=True)


def semi_join(left: Plan, right: Plan, on: tuple[Scalar, ...], marked: Column) -> Plan:
    """The rows of ``left`` that have a match, ``L ⋉ R``."""
    return Filter(Mark(left, right, on, marked), (column(marked),))


def anti_join(left: Plan, right: Plan, on: tuple[Scalar, ...], marked: Column) -> Plan:
    """The rows of ``left`` that have none, ``L ▷ R``."""
    return Filter(Mark(left, right, on, marked), (absent(marked),))
