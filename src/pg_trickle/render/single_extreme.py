"""A single row of a group with extremes, where it came, went, or changed and stays in its group.

The group's row tells whether the row was an extreme or has become one: most often it is neither, and the stream table
isn't touched.  Like the program (``render/settled.py``), and for the same reason: whoever adds to the group's row has
it until he ends, and reads the group with a younger snapshot::

    g   the row's group, what the row adds to its counters, and what went and came that may be an extreme
    u   the group's row with that added, and with the more extreme of what is stored and what came   (grow_one)
    w   the group's row with the extremes of the rows that it has now;  y  put into the stream table (search_one)
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.plan import Plan
from pg_trickle.render.additive import of_state
from pg_trickle.render.apply import Target
from pg_trickle.render.counters import added_by, extreme_of
from pg_trickle.render.onesided import came_as, come
from pg_trickle.render.parts import WEIGHT, differ, every, listed, matches, names, touching
from pg_trickle.render.select import CommonTables, rows
from pg_trickle.render.settled import is_told_by_extremes
from pg_trickle.render.single import BROUGHT, CHANGED, IS_READ_COMMITTED, TAKEN, image
from pg_trickle.render.stage import group_keys, grouped_delta, plain_keys
from pg_trickle.render.store import Store
from pg_trickle.scalar import Column
from pg_trickle.stages import Stage
from pg_trickle.state_columns import Role


def grow_one(final: Plan, stage: Stage, change: Plan, event: str) -> sql.Composable:
    """Add a row to its group, or take it away; 0 if the group shows what it did, 1 if it may show something else, -1 if
    its rows must be looked at for what it shows, or it has none.

    An extreme that isn't the row's value is what it was.
    """
    extremes = [one for one in stage.rest if not one.is_added]
    came: list[sql.Composable] = [
        sql.SQL("u.n = g.d_n") if is_told_by_extremes(final, Store(stage)) else sql.SQL("TRUE")
    ]
    came += [
        sql.SQL("coalesce({u} = {g}, FALSE)").format(
            u=sql.Identifier("u", one.name), g=sql.Identifier("g", came_as(one))
        )
        for one in extremes
    ]
    gone: list[sql.Composable] = [sql.SQL("u.n <= 0")]
    gone += [
        _GONE[one.role].format(u=sql.Identifier("u", one.name), gone=sql.Identifier("g", f"gone_{one.name}"))
        for one in extremes
    ]
    return sql.SQL(
        ", g AS NOT MATERIALIZED ({touched}), u AS ({added})"
        " SELECT (CASE WHEN {gone} THEN -1 WHEN {came} THEN 1 ELSE 0 END)::bigint FROM u CROSS JOIN g"
    ).format(
        touched=_touched(stage, change, event),
        added=come(stage, adds=False),
        gone=sql.SQL(" OR ").join(gone),
        came=sql.SQL(" OR ").join(came),
    )


_GONE = {
    Role.MIN: sql.SQL("coalesce({gone} <= {u}, {gone} IS NOT NULL)"),
    Role.MAX: sql.SQL("coalesce({gone} >= {u}, {gone} IS NOT NULL)"),
}


def search_one(
    final: Plan, stage: Stage, target: Target, change: Plan, event: str, action: sql.Composable
) -> sql.Composable:
    """Look for the extremes of a row's group, and show it; 0, or none if it has no rows.  ``action`` is what to do with
    what is shown already.

    Its own statement, after that which has locked the group's row: its snapshot is younger.
    """
    store = Store(stage)
    found = [one for one in stage.recomputed if one.value is not None]
    pairs = [
        (Column(key.name, key.type, one.not_null), key.name, one.name) for key, one in stage.keys if one is not None
    ]
    common = CommonTables((stage.below,))
    return sql.SQL(
        ", g AS NOT MATERIALIZED ({touched}), w AS (UPDATE {state} AS s SET {assigned} FROM g CROSS JOIN LATERAL"
        " (SELECT {values} FROM ({rows}) AS x WHERE {of_group}) AS r WHERE {match} AND s.n > 0 RETURNING {returned}),"
        " y AS (INSERT INTO {table} AS t ({columns}) SELECT {shown} FROM w AS s CROSS JOIN LATERAL ({row}) AS a"
        " ON CONFLICT ({key}) {action}) SELECT 0::bigint FROM w"
    ).format(
        touched=_touched(stage, change, event),
        state=store.table,
        assigned=listed(
            sql.SQL("{c} = r.{found}").format(c=sql.Identifier(one.name), found=sql.Identifier(f"r_{one.name}"))
            for one in found
        ),
        values=listed(
            sql.SQL("{value} AS {found}").format(value=one.value.sql(), found=sql.Identifier(f"r_{one.name}"))
            for one in found
            if one.value is not None
        ),
        rows=rows(stage.below, common),
        of_group=touching(pairs, "g", "x"),
        match=store.match("g"),
        returned=names(stage.column_names, "s"),
        table=target.table,
        columns=names(target.names),
        shown=names((column.name for _, column in target.columns), "a"),
        row=common.select(of_state(final, stage)),
        key=names(target.key or ()),
        action=action,
    )


def _touched(stage: Stage, change: Plan, event: str) -> sql.Composable:
    """The group of the row; none in an older snapshot, for an update that takes the row from a group to another, or
    that changed it in nothing that is summed up.
    """
    if event != CHANGED:
        return sql.SQL("SELECT x.* FROM ({row}) AS x WHERE {single}").format(
            row=_at_its_group(stage, change, event), single=IS_READ_COMMITTED
        )
    added = [sql.SQL("o.{d} + n.{d}").format(d=sql.Identifier(came_as(one))) for one in stage.rest if one.is_added]
    extremes = [one for one in stage.rest if not one.is_added]
    values = [
        sql.SQL("{sum} AS {d}").format(sum=total, d=sql.Identifier(came_as(one)))
        for total, one in zip(added, (one for one in stage.rest if one.is_added), strict=True)
    ]
    values += [
        sql.SQL("o.{gone}, n.{came}").format(gone=sql.Identifier(f"gone_{one.name}"), came=sql.Identifier(came_as(one)))
        for one in extremes
    ]
    changes: list[sql.Composable] = [sql.SQL("{sum} <> 0").format(sum=total) for total in added]
    changes.append(differ(((one.column, f"gone_{one.name}", came_as(one)) for one in extremes), "o", "n"))
    return sql.SQL("SELECT {values} FROM ({before}) AS o JOIN ({after}) AS n ON {same} WHERE {single}").format(
        values=listed([*(sql.Identifier("n", name) for name in stage.key_names), *values]),
        before=_at_its_group(stage, change, TAKEN),
        after=_at_its_group(stage, change, BROUGHT),
        same=matches(((one, one.name, one.name) for one in plain_keys(stage)), "o", "n"),
        single=every(
            [
                IS_READ_COMMITTED,
                sql.SQL("({changes})").format(changes=sql.SQL(" OR ").join(changes)),
            ]
        ),
    )


def _at_its_group(stage: Stage, change: Plan, event: str) -> sql.Composable:
    """A row that came or went: its group, what it adds to each counter, and what may be or have been an extreme."""
    values: list[sql.Composable] = []
    for one in stage.rest:
        if one.is_added:
            values.append(sql.SQL("{v} AS {name}").format(v=added_by(one, WEIGHT), name=sql.Identifier(came_as(one))))
            continue
        for name, side in ((f"gone_{one.name}", sql.SQL("<")), (came_as(one), sql.SQL(">"))):
            values.append(
                sql.SQL("CASE WHEN {w} {side} 0 THEN {x} END AS {name}").format(
                    w=WEIGHT, side=side, x=extreme_of(one), name=sql.Identifier(name)
                )
            )
    return sql.SQL("SELECT {values} FROM ({row}) AS x").format(
        values=listed([*group_keys(stage), *values]), row=image(grouped_delta(stage, change), event)
    )
