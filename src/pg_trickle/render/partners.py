"""What a change is joined with (``Partners``), looked up once for each key; and what looks for nothing."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from pg_trickle.algebra.join import Partners, Untouched
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.render.parts import WEIGHT, conjunction, index_order, leading, names

Add = Callable[[sql.Composable], sql.Identifier]


def partners(plan: Partners, change: sql.Composable, rows: sql.Composable, add: Add) -> sql.Composable:
    """A WITH query, which runs once: the planner may take a change for one row, and run it for each; ``add`` makes it.

    Keys come in their order, for neighbours in an index are often neighbours on disk, and in the cache.
    """
    read = {name for predicate in plan.on for name in predicate.columns}
    keys = [one for one in plan.change.columns if one.name in read]
    columns = leading(names_of(plan))
    found = sql.SQL(
        "SELECT {columns}r.{w} FROM (SELECT DISTINCT {keys} FROM ({change}) AS d{order}) AS k"
        " JOIN ({rows}) AS r ON {on}"
    ).format(
        columns=columns,
        w=WEIGHT,
        keys=names(one.name for one in keys),
        change=change,
        order=index_order(keys),
        rows=rows,
        on=conjunction(plan.on),
    )
    return sql.SQL("SELECT {columns}{w} FROM {found}").format(columns=columns, w=WEIGHT, found=add(found))


def untouched(plan: Untouched, rows: sql.Composable, change: sql.Composable) -> sql.Composable:
    """The rows that meet none of the change."""
    return sql.SQL(
        "SELECT {columns}{w} FROM ({rows}) AS l WHERE NOT EXISTS (SELECT FROM ({change}) AS r WHERE {on})"
    ).format(columns=leading(names_of(plan)), w=WEIGHT, rows=rows, change=change, on=conjunction(plan.on))
