"""What several rows of a change are joined with, looked up once."""

from __future__ import annotations

from dataclasses import replace

from pg_trickle.algebra.join import Join, Partners, Untouched, is_equality
from pg_trickle.algebra.kinds import is_bag, is_delta
from pg_trickle.algebra.linear import Consolidate, Filter, Project
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.source import Changes, Source
from pg_trickle.rewrite.pushdown import is_filtered, passed_through
from pg_trickle.scalar import Scalar
from pg_trickle.uniqueness import is_looked_up


def found_once(plan: Plan) -> Plan:
    """The delta with ``ΔL ⋈ R = ΔL ⋈ (R ⋉ ΔL)`` for changes ΔL of a source whose rows may share what they find.

    Many rows may refer to one: lines of an order come and go together.  Where a row finds many, an update's two images
    share them.  Elsewhere the second image finds its one row where the first has just been.
    Of changes of one source the planner knows about how many they are; what comes of several joins it may take for
    nothing, and then it reads all that was found for each row.  Parts that the plan shares stay shared.
    """
    done: dict[int, Plan] = {}
    deltas: dict[int, bool] = {}

    def descend(part: Plan) -> Plan:
        if not is_delta(part, deltas):
            return part
        if id(part) not in done:
            below = part.over(descend)
            done[id(part)] = _joined(below) if isinstance(below, Join) else below
        return done[id(part)]

    return descend(plan)


def _joined(join: Join) -> Join:
    left, right = join.left, join.right
    if is_from_one_source(left) and not is_delta(right):
        found = _partners(right, left, join.on)
        return replace(join, left=left if found is right else _whole(left), right=found)
    if is_from_one_source(right) and not is_delta(left):
        found = _partners(left, right, join.on)
        return replace(join, left=found, right=right if found is left else _whole(right))
    return join


def _whole(change: Plan) -> Plan:
    """The change with the rows that don't look for partners: they find none among those of others, as keys differ."""
    return change.input if isinstance(change, Untouched) else change


def is_from_one_source(plan: Plan) -> bool:
    """Whether a plan is the change of one source, some of it or all."""
    match plan:
        case Changes(Source()):
            return True
        case Filter(below) | Project(below) | Consolidate(below) | Untouched(below):
            return is_from_one_source(below)
        case _:
            return False


def _partners(rows: Plan, change: Plan, on: tuple[Scalar, ...]) -> Plan:
    """The rows that the change finds, where looking for them once spares something; else all of them."""
    equal = tuple(one for one in on if is_equality(one, change, rows))
    read = frozenset(name for one in equal for name in one.columns if name in names(change))
    if not equal or not is_bag(rows) or read.issuperset(names(change)):
        return rows
    # One row each of several tables joined: those of a filter are often few, and found by reading them all; but what is
    # told apart by the rest of a key comes and goes together with others.
    if is_looked_up(rows, equal) and isinstance(rows, Join) and not _is_part_of_key(change, read):
        return rows
    # Of an update's two images a filter mostly leaves one.
    if _is_told_apart(change, read) and (is_looked_up(rows, equal) or is_filtered(change)):
        return rows
    return Partners(rows, change, equal)


def _is_part_of_key(change: Plan, by: frozenset[str]) -> bool:
    """Whether these columns are some of several by which a table's rows are told apart: lines of an order."""
    match change:
        case Changes(_, _, keys):
            return any(by < frozenset(key) for key in keys)
        case Filter(below) | Consolidate(below) | Untouched(below):
            return _is_part_of_key(below, by)
        case Project(below):
            return _is_part_of_key(below, by & passed_through(change))
        case _:
            return False


def _is_told_apart(change: Plan, by: frozenset[str]) -> bool:
    """Whether no rows of a change agree in these columns but an update's two images."""
    match change:
        case Changes(_, _, keys):
            return any(by.issuperset(key) for key in keys)
        case Filter(below) | Consolidate(below) | Untouched(below):
            return _is_told_apart(below, by)
        case Project(below):
            return _is_told_apart(below, by & passed_through(change))
        case _:
            return False
