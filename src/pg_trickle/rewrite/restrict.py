"""Groups that nobody asks for, left out: a state of few groups, which few changes touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.correlation import equal
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.plan import Plan, distinct, names
from pg_trickle.algebra.source import Scan, Source
from pg_trickle.scalar import Column, Identity, Scalar
from pg_trickle.uniqueness import keys

Place = tuple[int, str]
"""A column of a table: by the table's oid and the column's name there."""


def restricted(plans: list[Plan], predicates: tuple[Scalar, ...]) -> list[Plan]:
    """The inputs of a join, its groups restricted to those that a filtered input asks for by its key::

        γ(R) ⋈ σ(P)  =  γ(R ⋈ σ(P)) ⋈ σ(P)        by the groups' key, of which no two rows of P agree

    A change of P then reads its rows in R.  So it is done only where the join does that anyhow: where another input
    is of the same table as R and joins P by the same column.
    """
    found = list(plans)
    for place, plan in enumerate(plans):
        others = [one for one in plans if one is not plan]
        for asking in others:
            if _is_filtered(asking) and (pairs := _pairs(plan, asking, predicates)):
                looked_up = {at for one in others if one is not asking for at in _joined_at(one, asking, predicates)}
                found[place] = _over(plan, pairs, asking, looked_up) or found[place]
    return found


def _is_filtered(plan: Plan) -> bool:
    return isinstance(plan, Filter) and bool(keys(plan))


def _pairs(plan: Plan, asking: Plan, predicates: tuple[Scalar, ...]) -> dict[str, Column]:
    """Columns of a plan and, of the asking one, those equal to them: its key.  Nothing unless it is the whole key."""
    found = dict(_equal(plan, asking, predicates))
    equated = {one.name for one in found.values()}
    return found if any(key == equated for key in keys(asking)) else {}


def _equal(plan: Plan, asking: Plan, predicates: tuple[Scalar, ...]) -> Iterator[tuple[str, Column]]:
    mine, theirs = frozenset(names(plan)), {one.name: one for one in asking.columns}
    for one, other in (pair for each in predicates if each.equates for pair in (each.equates, each.equates[::-1])):
        if one in mine and other in theirs and theirs[other].type.identity is Identity.EQUAL:
            yield one, theirs[other]


def _joined_at(plan: Plan, asking: Plan, predicates: tuple[Scalar, ...]) -> Iterator[Place]:
    places = _places(plan)
    return (places[name] for name, _ in _equal(plan, asking, predicates) if name in places)


def _places(plan: Plan) -> dict[str, Place]:
    """The columns of tables in a plan."""
    scans = [node for node in distinct(plan) if isinstance(node, Scan)]
    return {
        field.column.name: (scan.table.oid, field.attribute)
        for scan in scans
        if isinstance(scan.table, Source)
        for field in scan.fields
    }


def _over(plan: Plan, pairs: dict[str, Column], asking: Plan, looked_up: set[Place]) -> Plan | None:
    """The plan with its groups restricted, where they are grouped by what the pairs say; else nothing."""
    match plan:
        case Filter(below, _):
            inside = _over(below, pairs, asking, looked_up)
            return inside and replace(plan, input=inside)
        case Project(below, items):
            passed = {item.column.name: next(iter(item.value.columns)) for item in items if item.value.is_column}
            if not pairs.keys() <= passed.keys():
                return None
            inside = _over(below, {passed[name]: other for name, other in pairs.items()}, asking, looked_up)
            return inside and replace(plan, input=inside)
        case Aggregate(below, grouped, _) if pairs.keys() <= set(grouped):
            places = _places(below)
            if not all(places.get(name) in looked_up for name in pairs):
                return None
            own = {one.name: one for one in below.columns}
            on = tuple(equal(own[name], other) for name, other in pairs.items())
            return replace(plan, input=Join(below, asking, on))
        case _:
            return None
