"""What time moves: columns, and the rows for which time alone has changed something (``algebra/timed.py``)."""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.timed import Timed
from pg_trickle.render.parts import WEIGHT, leading
from pg_trickle.scalar import Column

Names = tuple[str, ...]


def told(names: Names, value: Timed, made: Column, rows: sql.Composable) -> sql.Composable:
    """The rows with one more column: the value as it is now."""
    return sql.SQL("SELECT {columns}{value} AS {name}, {w} FROM ({input}) AS t").format(
        columns=leading(names), value=value.now.sql(), name=sql.Identifier(made.name), w=WEIGHT, input=rows
    )


def moved(names: Names, value: Timed, made: Column, rows: sql.Composable) -> sql.Composable:
    """The rows for which the value is another now: each with the value as it is, and negative as it was."""
    return sql.SQL(
        "SELECT {columns}m.{made}, f.{w} * m.__pgt_s AS {w} FROM ({input}) AS f"
        " CROSS JOIN LATERAL (VALUES ({now}, 1), ({before}, -1)) AS m({made}, __pgt_s)"
        " WHERE {near}({now}) IS DISTINCT FROM ({before})"
    ).format(
        columns=leading(names, "f"),
        made=sql.Identifier(made.name),
        w=WEIGHT,
        input=rows,
        now=value.now.sql(),
        before=value.before.sql(),
        near=_near(value),
    )


def elapsed(names: Names, condition: Timed, rows: sql.Composable) -> sql.Composable:
    """The rows for which the condition is another now, found by a range where there is one."""
    return sql.SQL(
        "SELECT {columns}CASE WHEN {now} THEN {w} ELSE -{w} END AS {w} FROM ({input}) AS f"
        " WHERE {near}(({now}) IS TRUE) <> (({before}) IS TRUE)"
    ).format(
        columns=leading(names),
        w=WEIGHT,
        input=rows,
        near=_near(condition),
        now=condition.now.sql(),
        before=condition.before.sql(),
    )


def _near(of: Timed) -> sql.Composable:
    return sql.SQL("({near}) AND ").format(near=of.near.sql()) if of.near else sql.SQL("")
