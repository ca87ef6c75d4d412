"""The few rows of a large table that a query asks for by constants, stored by themselves for whoever looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.order import DistinctOn
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan, distinct, names
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Scan, Source
from pg_trickle.catalog.model import RelationFact
from pg_trickle.scalar import Scalar
from pg_trickle.uniqueness import is_looked_up, keys, met_by

Relations = Mapping[int, RelationFact]
LARGE = 10_000
"""Of fewer rows a table is in memory anyway."""
FEW = 0.05
"""Of a larger share too much would be stored for what it spares."""
MOST = 5_000
"""More stored rows aren't read as quickly as those are looked up that a small change meets."""


def selections_stored(plan: Plan, relations: Relations) -> Plan:
    """The plan with a selection ``σ(R)`` as a stage where a join looks it up by a key, R is large, and few rows pass.

    A row of the other side's change finds at most one row of R, and σ mostly throws that away: a page of the index and
    one of the table for each.  What is stored instead is so small that the server reads it once, for all of them
    (``rewrite/sifted.py``).  R may itself look up what is filtered, as suppliers their nation.  The first of the rows
    that share a key is the only one, so ``σ(R) = φ(σ(R))``, and the operator that keeps first rows does.
    """
    if any(one.circular for one in relations.values()):
        # There a row that is chosen and not added up has members computed anew.
        return plan

    def descend(part: Plan) -> Plan:
        if isinstance(part, Recursion):
            return part
        below = part.over(descend)
        match below:
            case Join(left, right, on):
                return replace(below, left=stored(left, right, on), right=stored(right, left, on))
            case LeftJoin(left, right, on) | Mark(left, right, on):
                return replace(below, right=stored(right, left, on))
            case _:
                return below

    def stored(side: Plan, other: Plan, on: tuple[Scalar, ...]) -> Plan:
        rows, share = _expected(side, relations)
        if rows < LARGE or share > FEW or rows * share > MOST or _largest(other, relations) < rows:
            return side
        key = met_by(side, on)
        if not key or not all(one.type.is_narrow for one in side.columns if one.name in key):
            return side
        return DistinctOn(side, tuple(sorted(key)), names(side), ())

    return descend(plan)


def is_selection(plan: Plan) -> bool:
    """Whether an operator chooses nothing, as no rows share its keys: it stands for a selection that is stored."""
    return isinstance(plan, DistinctOn) and not plan.order and any(key <= set(plan.keys) for key in keys(plan.input))


def _expected(plan: Plan, relations: Relations) -> tuple[float, float]:
    """How many rows a table has, and which share of them is left by what is asked of them and what they look up, at
    most, as far as statistics tell; of anything else no rows.
    """
    match plan:
        case Scan(Source() as table) if table.oid in relations:
            return relations[table.oid].rows, 1
        case Filter(Scan(Source() as table) as scan, predicates) if table.oid in relations:
            attributes = {field.column.name: field.attribute for field in scan.fields}
            fixed = {attributes[one.fixes] for one in predicates if one.fixes is not None}
            return relations[table.oid].rows, prod(relations[table.oid].shares.get(name, 1) for name in fixed)
        case Project(below):
            return _expected(below, relations)
        case Join(left, right, on) if is_looked_up(right, on):
            (rows, share), (_, others) = _expected(left, relations), _expected(right, relations)
            return rows, share * others
        case Join(left, right, on) if is_looked_up(left, on):
            return _expected(Join(right, left, on), relations)
        case _:
            return 0, 1


def _largest(plan: Plan, relations: Relations) -> float:
    """How many rows the largest table has."""
    tables = (node.table for node in distinct(plan) if isinstance(node, Scan))
    return max((relations[one.oid].rows for one in tables if isinstance(one, Source)), default=0)
