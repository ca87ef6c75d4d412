"""Rows netted: each distinct row once, with the sum of its weights."""

from __future__ import annotations

from psycopg import sql

from pg_trickle.render.parts import WEIGHT, identity_keys, leading, listed, names
from pg_trickle.scalar import Column, Identity

INT = sql.SQL("int")
BIGINT = sql.SQL("bigint")


def consolidated(
    columns: tuple[Column, ...], rows: sql.Composable, weight: sql.SQL = BIGINT, order: tuple[str, ...] = ()
) -> sql.Composable:
    """Each distinct row once, with the sum of its weights, zeros left out."""
    values = [(column, sql.Identifier(column.name)) for column in columns]
    keys = listed(key for column, value in values for key in identity_keys(column, value))
    hole = {
        "columns": leading(column.name for column in columns),
        "w": WEIGHT,
        "type": weight,
        "rows": rows,
        "keys": keys,
    }
    if any(column.type.identity is Identity.NONE or column.type.is_row for column in columns):
        # No GROUP BY without equality, which a row's fields may be without, and no aggregate that returns any one value
        # before PostgreSQL 16.
        return sql.SQL(
            "SELECT {columns}{w} FROM (SELECT {columns}(sum({w}) OVER p)::{type} AS {w},"
            " row_number() OVER p AS __pgt_nth FROM ({rows}) AS c WINDOW p AS (PARTITION BY {keys}"
            " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)) AS c WHERE __pgt_nth = 1 AND {w} <> 0"
        ).format(**hole)
    if not columns:
        return sql.SQL("SELECT sum({w})::{type} AS {w} FROM ({rows}) AS c HAVING sum({w}) <> 0").format(**hole)
    return sql.SQL(
        "SELECT {columns}sum({w})::{type} AS {w} FROM ({rows}) AS c GROUP BY {keys} HAVING sum({w}) <> 0{order}"
    ).format(order=sql.SQL(" ORDER BY {names}").format(names=names(order)) if order else sql.SQL(""), **hole)
