"""What a change is joined with (``Partners``), looked up once for each key; what finds any; what looks for none."""

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


MANY = sql.Literal(10_000)
"""More rows may be too many for a hash table, without which each row of a change would be compared with all of them."""


def found_among(plan: Partners, rows: sql.Composable) -> sql.Composable:
    """Whether a row of a change is found among few, which are read once: a condition over columns of its own.

    What stands around IN keeps it where it is, below what nets the change: as a join it would come after that.  Of an
    expression that equals a number the planner expects one row in two hundred, of a condition every other one.
    Where few rows have come to be many, all of the change passes, and what it is joined with is looked up.
    """
    mine = set(names_of(plan))
    pairs = [one.equates if one.equates[0] in mine else one.equates[::-1] for one in plan.on if one.equates]
    here, there = zip(*pairs, strict=True)
    values = sql.SQL("({names})").format(names=names(here)) if len(here) > 1 else sql.Identifier(here[0])
    return sql.SQL(
        "(CASE WHEN EXISTS (SELECT FROM ({rows}) AS s OFFSET {many}) THEN TRUE"
        " ELSE {values} IN (SELECT {there} FROM ({rows}) AS s) END)::integer = 1"
    ).format(values=values, there=names(there), rows=rows, many=MANY)


def untouched(plan: Untouched, rows: sql.Composable, change: sql.Composable) -> sql.Composable:
    """The rows that meet none of the change."""
    return sql.SQL(
        "SELECT {columns}{w} FROM ({rows}) AS l WHERE NOT EXISTS (SELECT FROM ({change}) AS r WHERE {on})"
    ).format(columns=leading(names_of(plan)), w=WEIGHT, rows=rows, change=change, on=conjunction(plan.on))
