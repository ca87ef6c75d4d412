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
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.scope import Namer
from pg_trickle.scalar import BOOL, Column, Scalar, column, composed, null

_TRUE = composed(sql.SQL("TRUE"), frozenset(), BOOL, not_null=True)


@dataclass(frozen=True, slots=True)
class Distinct:
    """An argument taken once for each value, of rows that satisfy the conditions; and the column that it gets.

    One that ``is_row`` is made of any number of ``arguments`` and never NULL itself: the column says that it is there.
    """

    arguments: tuple[Column, ...]
    conditions: tuple[Column, ...]
    made: Column
    is_row: bool


def with_distinct(plan: Plan, keys: tuple[str, ...], wanted: list[Distinct], namer: Namer) -> Plan:
    """The rows of a plan, and for each of ``wanted`` the values of every group.

    Raises UnsupportedQuery where a row that brings a value would have a NULL of nobody knows which type.
    """
    if any(one.type.name is None and one.type.spelled is None for one in plan.columns if one.name not in keys):
        raise UnsupportedQuery(
            "aggregate of an expression of a type of somebody's own, beside one with DISTINCT",
            "which type it has isn't known.",
            hint="Put the aggregates with DISTINCT into a query of their own, and join the two.",
        )
    nothing = [Item(one.made, null(BOOL) if one.is_row else _no(one.arguments[0])) for one in wanted]
    rows = Project(plan, (*(Item(one, column(one)) for one in plan.columns), *nothing))
    arms: list[Plan] = [rows, *(_values(plan, keys, one, rows, namer) for one in wanted)]
    return reduce(UnionAll, arms)


def _values(plan: Plan, keys: tuple[str, ...], wanted: Distinct, rows: Project, namer: Namer) -> Plan:
    """The values of an argument, in the shape of the rows."""
    by_name = {one.name: one for one in plan.columns}
    tests = [] if wanted.is_row else [_there(wanted.arguments[0])]
    tests += map(column, wanted.conditions)
    sources: dict[tuple[str, int], Column] = {(key, 0): by_name[key] for key in keys}
    sources |= {(wanted.made.name, place): one for place, one in enumerate(wanted.arguments)}
    renamed = {name: Column(namer.fresh("distinct"), one.type, one.not_null) for name, one in sources.items()}
    kept = Filter(plan, tuple(tests))
    narrow = Project(kept, tuple(Item(renamed[name], column(one)) for name, one in sources.items()))
    found = Aggregate(narrow, names(narrow), ())
    held = {name: column(one) for name, one in zip(renamed, found.columns, strict=True)}
    value = _TRUE if wanted.is_row else held[wanted.made.name, 0]
    known = {wanted.made.name: value, **{key: held[key, 0] for key in keys}}
    values = [(one, known.get(one.name, null(one.type))) for one in rows.columns]
    items = [Item(Column(namer.fresh("beside"), one.type, value.not_null), value) for one, value in values]
    return Project(found, tuple(items))


def _no(argument: Column) -> Scalar:
    """A NULL of the argument's type."""
    text = sql.SQL("CASE WHEN FALSE THEN {x} END").format(x=sql.Identifier(argument.name))
    return composed(text, frozenset((argument.name,)), argument.type)


def _there(argument: Column) -> Scalar:
    text = sql.SQL("{x} IS DISTINCT FROM NULL").format(x=sql.Identifier(argument.name))
    return composed(text, frozenset((argument.name,)), BOOL, not_null=True)
