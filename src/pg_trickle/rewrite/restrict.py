"""Groups that nobody asks for, left out: a state of few groups, which few changes touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.correlation import equal
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.mark import Mark, mark, semi_join
from pg_trickle.algebra.plan import Plan, distinct, names
from pg_trickle.algebra.source import Scan, Source
from pg_trickle.rewrite.pushdown import is_filtered
from pg_trickle.scalar import Column, Identity, Scalar, column
from pg_trickle.uniqueness import keys

Place = tuple[int, str]
"""A column of a table: by the table's oid and the column's name there."""

ASKED = "_asked"
"""How the name of a mark ends that leaves out what nobody asks for; explain goes by it."""


def restricted(plans: list[Plan], predicates: tuple[Scalar, ...]) -> list[Plan]:
    """The inputs of a join, its groups restricted to those that a filtered input asks for by its key, or by a match::

        γ(R) ⋈ σ(P)        =  γ(R ⋈ σ(P)) ⋈ σ(P)          by the groups' key, of which no two rows of P agree
        γ(R) ⋈ (L ⋉ σ(P))  =  γ(R ⋉ σ(P)) ⋈ (L ⋉ σ(P))    by what L and the groups' key are joined by, and P matches

    A change of P then reads its rows in R.  So it is done only where an index leads to these, or where the join does
    that anyhow: where another input is of the same table as R and joins P by the same column.
    """
    found = list(plans)
    for place, plan in enumerate(plans):
        others = [one for one in plans if one is not plan]
        for other in others:
            for asking in _asking(plan, other, predicates):
                looked_up = {
                    at for one in others if one is not other for at in _joined_at(one, asking.rows, predicates)
                }
                found[place] = _over(plan, asking, looked_up) or found[place]
    return found


@dataclass(frozen=True, slots=True)
class _Asking:
    """Filtered rows, and of columns of the groups those of these rows that they have to equal.

    ``matched`` is the mark that tells who asks: then the rows have no key, and are asked for a match.
    """

    rows: Plan
    pairs: dict[str, Column]
    matched: Column | None = None

    def over(self, below: Plan) -> Plan:
        """The rows below groups, those alone that are asked for; joins follow one another, to be put in order."""
        if isinstance(below, Project) and all(item.value.is_column for item in below.items):
            origin = {item.column.name: next(iter(item.value.columns)) for item in below.items}
            inside = replace(self, pairs={origin[name]: other for name, other in self.pairs.items()})
            return Project(inside.over(below.input), below.items)
        own = {one.name: one for one in below.columns}
        on = tuple(equal(own[name], other) for name, other in self.pairs.items())
        if self.matched is None:
            return Join(below, self.rows, on)
        return semi_join(below, self.rows, on, mark(self.matched.name + ASKED))


def _asking(plan: Plan, other: Plan, predicates: tuple[Scalar, ...]) -> Iterator[_Asking]:
    """What another input asks of the groups of a plan."""
    match other:
        case Filter(Mark(left, right, on, marked), tests) if column(marked) in tests and is_filtered(right):
            pairs = dict(_matched(plan, left, right, predicates, on))
            if pairs:
                yield _Asking(right, pairs, marked)
        case Filter():
            pairs = dict(_equal(plan, other, predicates))
            equated = {one.name for one in pairs.values()}
            if any(key == equated for key in keys(other)):
                yield _Asking(other, pairs)


def _matched(
    plan: Plan, left: Plan, right: Plan, predicates: tuple[Scalar, ...], on: tuple[Scalar, ...]
) -> Iterator[tuple[str, Column]]:
    """Columns of a plan that equal columns of the left side that have to equal columns of the right side.

    Of one type all three: a number equals one of another type that equals a third, which needn't equal the first.
    """
    by_left = {one: other for other, one in _equal(right, left, on)}
    types = {one.name: one.type for one in (*plan.columns, *right.columns)}
    by_name = {one.name: one for one in right.columns}
    for mine, through in _equal(plan, left, predicates):
        met = by_left.get(through)
        if met is not None and types[mine].name == through.type.name == types[met].name is not None:
            yield mine, by_name[met]


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
    return {field.column.name: (source.oid, field.attribute) for source, scan in _scans(plan) for field in scan.fields}


def _scans(plan: Plan) -> Iterator[tuple[Source, Scan]]:
    for node in distinct(plan):
        if isinstance(node, Scan) and isinstance(node.table, Source):
            yield node.table, node


def _over(plan: Plan, asking: _Asking, looked_up: set[Place]) -> Plan | None:
    """The plan with its groups restricted, where they are grouped by what the pairs say; else nothing."""
    match plan:
        case Filter(below, _):
            inside = _over(below, asking, looked_up)
            return inside and replace(plan, input=inside)
        case Project(below, items):
            passed = {item.column.name: next(iter(item.value.columns)) for item in items if item.value.is_column}
            if not asking.pairs.keys() <= passed.keys():
                return None
            renamed = {passed[name]: other for name, other in asking.pairs.items()}
            inside = _over(below, replace(asking, pairs=renamed), looked_up)
            return inside and replace(plan, input=inside)
        case Aggregate(below, grouped, _) if asking.pairs.keys() <= set(grouped):
            return replace(plan, input=asking.over(below)) if _is_found(below, asking, looked_up) else None
        case _:
            return None


def _is_found(below: Plan, asking: _Asking, looked_up: set[Place]) -> bool:
    """Whether a change of the asking rows finds its rows below the groups."""
    places = _places(below)
    indexed = {(source.oid, attribute) for source, _ in _scans(below) for attribute in source.indexed}
    asked = {places.get(name) for name in asking.pairs}
    return asked <= looked_up or (None not in asked and bool(asked & indexed))
