"""A single row of a source of a join: what is done for it under the stream table's turn.

It is paired with the other sources' rows as they are, which the turn keeps so.  Where each is found by a key, it is one
row of the query at most, and what any number of rows is summed up, sorted and counted for isn't done::

    g   what the row adds to its group
    u   added to the group's row;  y  what that shows, put into the stream table

Each yields 0 if it has done all, 1 if the program's second statement is left to do, -1 if it took away what wasn't
there, and none if it has done nothing: then the program does it.
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.source import Changes
from pg_trickle.render.additive import adding, adds_anything, row_counter
from pg_trickle.render.apply import Target, located, renamed, upsert_action
from pg_trickle.render.onesided import come, if_moved, shown_again, upsert
from pg_trickle.render.parts import listed
from pg_trickle.render.select import CommonTables
from pg_trickle.render.single import BROUGHT, CHANGED, TAKEN, added, image, moved
from pg_trickle.render.store import Store
from pg_trickle.stages import Stage

_LEFT = sql.SQL("(CASE WHEN {n} > 0 THEN 0 WHEN {n} = 0 THEN 1 ELSE -1 END)::bigint")


def bring_one(target: Target, change: Plan) -> sql.Composable:
    """Show what a row that came is paired with; it needn't be in view."""
    rows = sql.SQL("({rows}) AS f").format(rows=renamed(target, image(change, BROUGHT)))
    return sql.SQL(", y AS ({shown}) SELECT 0::bigint").format(shown=upsert(target, rows, upsert_action(target)))


def take_one(target: Target, change: Plan, keys: dict[str, str]) -> sql.Composable:
    """Remove what a row that went has shown, by its own columns (``keys``): what it was paired with isn't asked for."""
    return sql.SQL("DELETE FROM {table} AS t USING ({row}) AS o WHERE {found} RETURNING 0::bigint").format(
        table=target.table, row=image(_row(change), TAKEN), found=located(target, "t", "o", keys)
    )


def change_one(target: Target, change: Plan, keys: dict[str, str]) -> sql.Composable:
    """Show what a row is paired with by now, and remove what it has shown if that had another key, or it is in view no
    more.  None if there was nothing to remove: the program finds out why, and may show it once more.
    """
    same = {name: name for name in target.key or ()}
    return sql.SQL(
        ", f AS MATERIALIZED ({after}), o AS NOT MATERIALIZED (SELECT {keys} FROM ({row}) AS r),"
        " x AS (DELETE FROM {table} AS t USING o WHERE {found} AND NOT EXISTS (SELECT FROM f WHERE {still})"
        " RETURNING 1), y AS ({shown})"
        " SELECT 0::bigint WHERE EXISTS (SELECT FROM x) OR EXISTS (SELECT FROM f, o WHERE {still})"
    ).format(
        after=renamed(target, image(change, BROUGHT)),
        keys=listed(
            sql.SQL("r.{place} AS {name}").format(place=sql.Identifier(place), name=sql.Identifier(name))
            for name, place in keys.items()
        ),
        row=image(_row(change), TAKEN),
        table=target.table,
        found=located(target, "t", "o", same),
        still=located(target, "f", "o", same),
        shown=upsert(target, sql.SQL("f"), if_moved(target)),
    )


def _row(change: Plan) -> Plan:
    """The change of the source itself, below all that is made of it."""
    return next(node for node in distinct(change) if isinstance(node, Changes))


def add_shown(final: Plan, store: Store, change: Plan, event: str) -> sql.Composable:
    """Add a row to its group, or take it away, where the stream table shows all that is counted."""
    rows = sql.SQL("({row}) AS g WHERE {any}").format(
        row=_to_its_group(store.stage, change, event), any=adds_anything(store.stage)
    )
    return adding(final, store, rows, _LEFT.format(n=row_counter(final, store)))


def add_and_show(final: Plan, stage: Stage, target: Target, change: Plan, event: str) -> sql.Composable:
    """Add a row to its group, or take it away, and show the group."""
    common = CommonTables(())
    return sql.SQL(
        ", g AS NOT MATERIALIZED (SELECT * FROM ({row}) AS g WHERE {any}), u AS ({added}), y AS ({shown})"
        " SELECT {left} FROM u"
    ).format(
        row=_to_its_group(stage, change, event),
        any=adds_anything(stage),
        added=come(stage, adds=False),
        shown=shown_again(final, stage, target, common),
        left=_LEFT.format(n=sql.Identifier("n")),
    )


def _to_its_group(stage: Stage, change: Plan, event: str) -> sql.Composable:
    """What the row adds to its group; an update that takes it to another adds nothing here."""
    return moved(stage, change) if event == CHANGED else added(stage, change, event)
