"""Recursion: the rows that follow from a beginning, and from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Filter, Project, UnionAll
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan, distinct, inputs
from pg_trickle.algebra.source import Empty
from pg_trickle.algebra.timed import TimedColumn, TimedFilter
from pg_trickle.scalar import Column


@dataclass(frozen=True, slots=True)
class Found(Plan):
    """The recursive reference: rows that a WITH query called ``name`` holds.  To a recursion's step they are given."""

    name: str
    schema: tuple[Column, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.schema

    def delta(self) -> Plan:
        return Empty(self.schema)


@dataclass(frozen=True, slots=True)
class Recursion(Plan):
    """``W``, the least solution of ``W = B + F(W)``; of ``W = δ(B + F(W))`` if it ``is_set``, δ for distinct.

    ``base`` is B.  ``step`` is F, linear in its one ``Found``: ``F(V + W) = F(V) + F(W)``.  So each row stands for the
    ways in which it follows from B, and every row of such a way but the first follows from the one before.

    With C the change of ``B + F(W)`` while W stays as stored, *before* it is summed up (a prime marks the new state)::

        O   the stored rows that C takes anything away from, and those among F′(O)
        K   the others: W − O.  None of the ways they stand for is gone
        S   of the rows of O: B′ + F′(K).  Of all others: the change of B + F(K), summed up
        W′  =  K + I,   I = S + F′(I);   of sets I = δ(S + F′(I)) − K

    C names whatever lost a way, because a term of it in which only what went is taken from the change is negative;
    F′ leads to the rest, since a way of an old row that C doesn't name is still there.
    (Gupta, Mumick and Subrahmanian, Maintaining Views Incrementally, 1993: delete and rederive; here of bags, too.)
    """

    base: Plan
    step: Plan
    name: str
    is_set: bool

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.base.columns

    @property
    def derived(self) -> Plan:
        """``B + F(W)`` for a W that is given.  Its delta is C."""
        return UnionAll(self.base, self.step)

    @property
    def found(self) -> Found:
        """The reference in the step."""
        return next(node for node in distinct(self.step) if isinstance(node, Found) and node.name == self.name)

    def delta(self) -> Plan:
        raise AssertionError("only a stage knows what the recursion gave before")


def is_linear(step: Plan, name: str) -> bool:
    """Whether a plan is a linear function of the rows of one ``Found``: each of its rows follows from one of them."""
    match step:
        case Found():
            return step.name == name
        case Filter(below) | TimedFilter(below) | TimedColumn(below) | Project(below) | Lateral(below):
            return is_linear(below, name)
        case Join(left, right):
            sides = (left, right) if _refers(left, name) else (right, left)
            return is_linear(sides[0], name) and not _refers(sides[1], name)
        case LeftJoin(left, right) | Mark(left, right):
            return is_linear(left, name) and not _refers(right, name)
        case _:
            return False


def sought(step: Plan, name: str) -> Iterator[str]:
    """The columns of a ``Found`` by which what changes in a linear step finds the rows it is joined with."""
    for node in distinct(step):
        if isinstance(node, Join | LeftJoin | Mark) and _refers(node, name):
            yield from (one for predicate in node.on for one in predicate.equates or ())


def _refers(plan: Plan, name: str) -> bool:
    return any(isinstance(node, Found) and node.name == name for node in distinct(plan))


def given(plan: Plan, name: str, rows: Plan) -> Plan:
    """The plan with rows in place of a ``Found``.  Parts that the plan shares stay shared."""
    done: dict[int, Plan] = {}

    def descend(part: Plan) -> Plan:
        if id(part) not in done:
            done[id(part)] = _replaced(part, name, rows, descend)
        return done[id(part)]

    return descend(plan)


def _replaced(part: Plan, name: str, rows: Plan, descend: Callable[[Plan], Plan]) -> Plan:
    if isinstance(part, Found):
        return rows if part.name == name else part
    changed = any(descend(below) is not below for below in inputs(part))
    return part.over(descend) if changed else part
