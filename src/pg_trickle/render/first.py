"""Operators that look at rows in an order: windows, DISTINCT ON, and the first so many rows."""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.order import DistinctOn, Order, TopK
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.algebra.window import Window
from pg_trickle.render.parts import WEIGHT, conjunction, leading, listed, names


def window(plan: Window, rows: sql.Composable) -> sql.Composable:
    """The rows with the columns that the calls make; of those that are kept PostgreSQL may know which is the last."""
    calls = [
        sql.SQL("{value} AS {name}, ").format(value=call.value.sql(), name=sql.Identifier(call.column.name))
        for call in plan.calls
    ]
    whole = sql.SQL("SELECT {passed}{calls}1::bigint AS {w} FROM ({rows}) AS g").format(
        passed=leading(plan.passed), calls=sql.Composed(calls), w=WEIGHT, rows=rows
    )
    if not plan.kept:
        return whole
    return sql.SQL("SELECT {columns}{w} FROM ({whole}) AS v WHERE {condition}").format(
        columns=leading(names_of(plan)), w=WEIGHT, whole=whole, condition=conjunction(plan.kept)
    )


def distinct_on(plan: DistinctOn, rows: sql.Composable) -> sql.Composable:
    """The first row of each key, in parentheses so that it can stand in a union."""
    return sql.SQL("(SELECT DISTINCT ON ({keys}) {passed}1::bigint AS {w} FROM ({rows}) AS g{order})").format(
        keys=names(plan.keys), passed=leading(plan.passed), w=WEIGHT, rows=rows, order=_order_by(plan.order)
    )


def top(plan: TopK, rows: sql.Composable) -> sql.Composable:
    """The first rows, in parentheses likewise."""
    offset = sql.SQL("") if plan.offset is None else sql.SQL(" OFFSET ({n})").format(n=plan.offset.sql())
    limit: sql.Composable = sql.SQL("")
    if plan.limit is not None:
        template = sql.SQL(" FETCH FIRST ({n}) ROWS WITH TIES") if plan.ties else sql.SQL(" LIMIT ({n})")
        limit = template.format(n=plan.limit.sql())
    return sql.SQL("(SELECT {columns}1::bigint AS {w} FROM ({rows}) AS g{order}{offset}{limit})").format(
        columns=leading(names_of(plan)), w=WEIGHT, rows=rows, order=_order_by(plan.order), offset=offset, limit=limit
    )


def _order_by(order: tuple[Order, ...]) -> sql.Composable:
    """The clause, every direction written out."""
    items = [
        sql.SQL("{column} {direction} {nulls}").format(
            column=sql.Identifier(one.column),
            direction=sql.SQL("ASC") if one.is_ascending else sql.SQL("DESC"),
            nulls=sql.SQL("NULLS FIRST") if one.nulls_first else sql.SQL("NULLS LAST"),
        )
        for one in order
    ]
    return sql.SQL(" ORDER BY {items}").format(items=listed(items)) if items else sql.SQL("")
