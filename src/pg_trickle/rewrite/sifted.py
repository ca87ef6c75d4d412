"""Of a change, only what meets the few rows that it is looked up in."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from pg_trickle.algebra.join import Join, Partners, is_equality
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, Project, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Changes, Scan, Source, State
from pg_trickle.rewrite.pushdown import passed_through
from pg_trickle.scalar import Scalar


def sifted(plan: Plan, stored: Set[State]) -> Plan:
    """The delta with ``ΔL ⋈ R′ − ΔL ⋈ ΔR = D ⋈ R′ − D ⋈ ΔR`` where ``D = ΔL ⋉ (R′ + ΔR)``, for stored selections R.

    Whatever else changed in L meets nothing in either term.  What is left out is neither netted nor written down, as
    rows of R are few and a look tells.  Parts that the plan shares stay shared.
    """
    if not stored:
        return plan
    # A part stays with what it became, so that none that is made here gets its id.
    done: dict[int, tuple[Plan, Plan]] = {}

    def descend(part: Plan) -> Plan:
        if id(part) not in done:
            done[id(part)] = part, (_less(part, stored) or part).over(descend)
        return done[id(part)][1]

    return descend(plan)


def _less(plan: Plan, stored: Set[State]) -> Plan | None:
    match plan:
        case UnionAll(UnionAll(Join(change, rows, on) as first, Join(other, others) as second), Negate(Join() as both)):
            if both.left is not change or both.right is not others:
                return None
            if _is_stored(rows, stored) and (met := _met(change, rows, others, on)):
                return UnionAll(UnionAll(replace(first, left=met), second), Negate(replace(both, left=met)))
            if _is_stored(other, stored) and (met := _met(others, other, change, on)):
                return UnionAll(UnionAll(first, replace(second, right=met)), Negate(replace(both, right=met)))
    return None


def _is_stored(plan: Plan, stored: Set[State]) -> bool:
    match plan:
        case Scan(State() as table):
            return table in stored
        case Project(below):
            return _is_stored(below, stored)
        case _:
            return False


def _met(change: Plan, rows: Plan, moved: Plan, on: tuple[Scalar, ...]) -> Plan | None:
    """What of the change of a source has partners, before or after; None where that isn't told by its own columns."""
    equal = tuple(one for one in on if is_equality(one, change, rows))
    read = frozenset(name for one in equal for name in one.columns) & {one.name for one in change.columns}
    return Partners(change, UnionAll(rows, moved), equal) if equal and _is_captured(change, read) else None


def _is_captured(change: Plan, read: frozenset[str]) -> bool:
    """Whether these columns of a change are a source's own."""
    match change:
        case Changes(Source()):
            return True
        case Filter(below) | Consolidate(below):
            return _is_captured(below, read)
        case Project(below):
            return read <= passed_through(change) and _is_captured(below, read)
        case _:
            return False
