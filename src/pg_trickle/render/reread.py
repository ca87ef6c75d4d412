"""A stream table that shows rows of one table under that table's key: what was touched is looked up again.

Whatever order the statements of a transaction are worked off in, the last one to touch a key finds its row
as it is.  Nobody else can write rows of that key meanwhile: whoever changed the source's row has it locked.

::

    g   the keys that the statement touched
    a   what they show now, or that they are not there
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.source import Scan
from pg_trickle.render.apply import Target, located, renamed
from pg_trickle.render.parts import WEIGHT, assignments, listed, names
from pg_trickle.render.select import CommonTables


def is_lookup(final: Plan, target: Target) -> bool:
    """Whether the plan filters and computes columns of one table, and keeps its key."""
    nodes = list(distinct(final))
    return (
        target.key is not None
        and not target.keyed_by_hash
        and all(isinstance(node, Scan | Filter | Project) for node in nodes)
    )


def reread(final: Plan, target: Target, change: Plan, common: CommonTables) -> sql.Composable:
    """Bring the touched keys up to date; the SELECT that counts the rows written."""
    assert target.key is not None
    same = {name: name for name in target.names if name in target.key}
    key = names(target.key)
    common.add(
        "g",
        sql.SQL("SELECT {key} FROM ({change}) AS c GROUP BY {key}").format(
            key=key, change=renamed(target, common.select(change))
        ),
    )
    common.add(
        "a",
        sql.SQL(
            "SELECT {keys}, {columns}, w.{w} IS NOT NULL AS __pgt_there FROM g LEFT JOIN ({rows}) AS w ON {match}"
        ).format(
            keys=touched_keys(same),
            columns=names(target.names, "w"),
            w=WEIGHT,
            rows=renamed(target, common.select(final)),
            match=located(target, "w", "g", same),
        ),
    )
    return show(target, common)


def touched_keys(columns: dict[str, str], touched: str = "g") -> sql.Composed:
    """The key of each touched row of the target, from what is ``touched``, where ``columns`` names it."""
    return listed(
        sql.SQL("{column} AS {name}").format(
            column=sql.Identifier(touched, column), name=sql.Identifier(f"__pgt_key_{place}")
        )
        for place, column in enumerate(columns.values(), 1)
    )


def show(target: Target, common: CommonTables) -> sql.Composable:
    """Put the rows ``a`` that are there into the target, and remove what is not; the SELECT that counts, or is NULL.

    A transaction with an older snapshot sees two rows of a key that it has written anew after another
    transaction had deleted it.  Which of them there is can't be told: it has to be done again.
    """
    common.add_writing("x", hidden(target))
    common.add_writing("y", shown(target))
    return sql.SQL(
        "SELECT CASE WHEN (SELECT count(*) FROM a WHERE __pgt_there) = (SELECT count(*) FROM y)"
        " THEN (SELECT count(*) FROM x) + (SELECT count(*) FROM y) END"
    )


def hidden(target: Target) -> sql.Composable:
    """What takes the rows ``a`` that aren't there out of the target."""
    assert target.key is not None
    keyed = [name for name in target.names if name in target.key]
    return sql.SQL("DELETE FROM {table} AS t USING a WHERE NOT a.__pgt_there AND {match} RETURNING 1").format(
        table=target.table,
        match=located(target, "t", "a", {name: f"__pgt_key_{place}" for place, name in enumerate(keyed, 1)}),
    )


def shown(target: Target) -> sql.Composable:
    """What puts the rows ``a`` that are there into the target."""
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT DISTINCT ON ({key}) {columns} FROM a WHERE __pgt_there"
        " ORDER BY {key} ON CONFLICT ({key}) {action} RETURNING 1"
    ).format(
        table=target.table,
        columns=names(target.names),
        key=names(target.key or ()),
        action=overwritten(target),
    )


def overwritten(target: Target) -> sql.Composable:
    """What is there is updated even if nothing but its key is shown: each row has to be counted."""
    return sql.SQL("DO UPDATE SET {assignments}").format(
        assignments=assignments(target.written or target.key or (), "excluded")
    )
