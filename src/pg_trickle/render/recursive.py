"""A recursion from scratch, as the WITH RECURSIVE that it came from."""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.plan import names as names_of
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.render.parts import WEIGHT, leading, names


def recursive(plan: Recursion, base: sql.Composable, step: sql.Composable) -> sql.Composable:
    """The SELECT of a recursion's rows, given those of its base and of its step, which reads them by their name."""
    return sql.SQL(
        "SELECT {columns}1::bigint AS {w} FROM (WITH RECURSIVE {found} ({given}) AS"
        " (SELECT {first} FROM ({base}) AS b {union} SELECT {following} FROM ({step}) AS s)"
        " SELECT * FROM {found}) AS q ({made})"
    ).format(
        columns=leading(names_of(plan)),
        w=WEIGHT,
        found=sql.Identifier(plan.name),
        given=names(names_of(plan.found)),
        first=names(names_of(plan.base)),
        base=base,
        union=union(plan),
        following=names(names_of(plan.step)),
        step=step,
        made=names(names_of(plan)),
    )


def union(plan: Recursion) -> sql.SQL:
    """How a recursion puts rows together."""
    return sql.SQL("UNION") if plan.is_set else sql.SQL("UNION ALL")
