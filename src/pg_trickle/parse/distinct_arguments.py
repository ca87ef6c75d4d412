"""Aggregates of distinct arguments, as aggregates of arguments that are distinct.

::

    γ_{k; count(DISTINCT x), sum(y)}(R)  =
        γ_{k; count(x), sum(y)}( π_{k, NULL as x, y}(R)  +  π_{k, x, NULL as y}(δ(π_{k, x}(R))) )

The distinct values δ are a stage of their own, which counts how often each occurs; above it nothing has to be
recomputed.  A row of one summand has NULL for what the other brings, and no aggregate counts NULLs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.linear import Filter, Item, Project, UnionAll
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.parse.scope import Namer
from pg_trickle.scalar import BOOL, Column, Scalar, column, composed, null


@dataclass(frozen=True, slots=True)
class Distinct:
    """An argument taken once for each value, of rows that satisfy the FILTER; and the column that it gets."""

    argument: Column
    condition: Column | None
    made: Column


def with_distinct(plan: Plan, keys: tuple[str, ...], wanted: list[Distinct], namer: Namer) -> Plan:
    """The rows of a plan, and for each of ``wanted`` the values of every group."""
    nothing = [Item(one.made, _no(one.argument)) for one in wanted]
    rows = Project(plan, (*(Item(one, column(one)) for one in plan.columns), *nothing))
    arms: list[Plan] = [rows, *(_values(plan, keys, one, rows, namer) for one in wanted)]
    return reduce(UnionAll, arms)


def _values(plan: Plan, keys: tuple[str, ...], wanted: Distinct, rows: Project, namer: Namer) -> Plan:
    """The values of an argument, in the shape of the rows."""
    by_name = {one.name: one for one in plan.columns}
    tests = [_there(wanted.argument)] + ([column(wanted.condition)] if wanted.condition else [])
    sources = {**{key: by_name[key] for key in keys}, wanted.made.name: wanted.argument}
    renamed = {name: Column(namer.fresh("distinct"), one.type, one.not_null) for name, one in sources.items()}
    kept = Filter(plan, tuple(tests))
    narrow = Project(kept, tuple(Item(renamed[name], column(one)) for name, one in sources.items()))
    found = Aggregate(narrow, names(narrow), ())
    by_source = dict(zip(renamed, found.columns, strict=True))
    items = []
    for one in rows.columns:
        held = by_source.get(one.name)
        made = Column(namer.fresh("beside"), one.type, held is not None and held.not_null)
        items.append(Item(made, null(one.type) if held is None else column(held)))
    return Project(found, tuple(items))


def _no(argument: Column) -> Scalar:
    """A NULL of the argument's type."""
    text = sql.SQL("CASE WHEN FALSE THEN {x} END").format(x=sql.Identifier(argument.name))
    return composed(text, frozenset((argument.name,)), argument.type)


def _there(argument: Column) -> Scalar:
    text = sql.SQL("{x} IS DISTINCT FROM NULL").format(x=sql.Identifier(argument.name))
    return composed(text, frozenset((argument.name,)), BOOL, not_null=True)
