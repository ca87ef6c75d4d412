"""The change of a single row, where that is all that a statement changed: most statements change one.

Nothing is summed up, sorted or counted then, and one plain statement does what a program of several parts does
for any number of rows.  Each of these yields a number if it has done its work: 0 if that was all, or nothing is in
view of what changed; 1 if what the program's later statements do is left to do, -1 if only what its third one does.
It yields none, and has done nothing, if the row takes another way (an update of a group's key, where more is counted
than rows; a row that comes into view): then the program does it all.  That there is one row the engine has found
before, and that it changed; it gives what it was and is as ``__pgt_before`` and ``__pgt_after``, most often as values
and not as tables.

Nothing of this holds where a row of the source is several rows of the query (UNION ALL, VALUES, GROUPING SETS).

What makes the programs right makes these right as well: additions to the newest version of a row, and keys looked up as
they are now.  The look-ups are for READ COMMITTED alone; with an older snapshot two rows of a key may be seen.
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Consolidate, Filter, Project
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.source import Changes
from pg_trickle.render.additive import adding, adds_anything, of_state, row_counter
from pg_trickle.render.apply import Target, located, renamed
from pg_trickle.render.counters import added_by
from pg_trickle.render.direct import shows_all
from pg_trickle.render.feed import AFTER, BEFORE, Statement
from pg_trickle.render.leaves import relation
from pg_trickle.render.parts import WEIGHT, differ, every, listed, matches, names
from pg_trickle.render.reread import overwritten
from pg_trickle.render.select import CommonTables
from pg_trickle.render.stage import group_keys, grouped_delta, plain_keys
from pg_trickle.render.store import Store, passed
from pg_trickle.stages import Stage
from pg_trickle.state_columns import Role
from pg_trickle.uniqueness import is_looked_up

BROUGHT, TAKEN, CHANGED = "ins", "del", "upd"
IS_READ_COMMITTED = sql.SQL("current_setting('transaction_isolation') = 'read committed'")


def is_one_row(change: Plan) -> bool:
    """Whether a row of the source is at most one row of this delta of it."""
    match operator(change):
        case Changes():
            return True
        case Filter(below) | Project(below) | Consolidate(below):
            return is_one_row(below)
        case Join(left, right, on):
            looked_up = (is_looked_up(side, on) and is_one_row(other) for side, other in ((right, left), (left, right)))
            return any(looked_up)
        case _:
            return False


def add_one(final: Plan, store: Store, target: Target, change: Plan, event: str) -> sql.Composable:
    """Add a row's worth to the counters of its group, or take it away."""
    if event == CHANGED and is_shown_alone(final, store, target):
        return _move_one(final, store, change)
    row = moved(store.stage, change) if event == CHANGED else added(store.stage, change, event)
    rows = sql.SQL("({row}) AS g WHERE {any}").format(row=row, any=adds_anything(store.stage))
    return _or_nothing(adding(final, store, rows, _left_to_do(final, store, target, event)), change, event)


def is_shown_alone(final: Plan, store: Store, target: Target) -> bool:
    """Whether nothing is shown but that there are rows, and nothing counted but how many."""
    is_key = store.target is None and not target.written and shows_all(final)
    return is_key and all(one.role is Role.ROWS for one in store.stage.rest)


def _move_one(final: Plan, store: Store, change: Plan) -> sql.Composable:
    """Take a row from one group and bring it to another, in the order of their keys; 1 if one has a single row by now,
    -1 if one has none, 2 if both is so.
    """
    same = matches(((one, one.name, one.name) for one in plain_keys(store.stage)), "o", "n")
    rows = sql.SQL(
        "({both}) AS g WHERE NOT EXISTS (SELECT FROM ({before}) AS o, ({after}) AS n WHERE {same}) ORDER BY {keys}"
    ).format(
        both=_left_and_joined(store.stage, change),
        before=added(store.stage, change, TAKEN),
        after=added(store.stage, change, BROUGHT),
        same=same,
        keys=names(store.stage.key_names),
    )
    return sql.SQL(
        ", y AS ({added}) SELECT (CASE WHEN empty AND one THEN 2 WHEN empty THEN -1 WHEN one THEN 1 ELSE 0 END)::bigint"
        " FROM (SELECT bool_or(n = 0) AS empty, bool_or(n = 1) AS one FROM y) AS l"
    ).format(added=adding(final, store, rows, sql.SQL("{n} AS n").format(n=row_counter(final, store))))


def _left_and_joined(stage: Stage, change: Plan) -> sql.Composable:
    """What a row adds to the group that it leaves, and to that which it comes to."""
    return sql.SQL(" UNION ALL ").join(added(stage, change, event) for event in (TAKEN, BROUGHT))


def _left_to_do(final: Plan, store: Store, target: Target, event: str) -> sql.Composable:
    """Whether the group is to be removed; where its row is stored apart from what is shown, whether that changes."""
    n = row_counter(final, store)
    if store.target is not None:
        return sql.SQL("CASE {n} WHEN 0 THEN 1::bigint ELSE 0::bigint END AS __pgt_left").format(n=n)
    if target.written or not shows_all(final):
        return sql.SQL("CASE {n} WHEN 0 THEN -1::bigint ELSE 1::bigint END AS __pgt_left").format(n=n)
    # A row of nothing but its key is shown as long as the group has rows: it had none if it has now what came.
    return sql.SQL("CASE {n} WHEN 0 THEN -1::bigint WHEN {w} THEN 1::bigint ELSE 0::bigint END AS __pgt_left").format(
        n=n, w=sql.Literal(_WEIGHT[event])
    )


_WEIGHT = {BROUGHT: 1, TAKEN: -1, CHANGED: 0}


def show_one(
    final: Plan, stage: Stage, target: Target, change: Plan, event: str, action: sql.Composable
) -> sql.Composable:
    """Show the group of a row that came or went, or that it came to, by what is stored of it now; 0, or none if it
    shows nothing.  ``action`` is what to do with what is shown already.

    Its own statement, after that which has locked the group's row (``render/additive.py``).
    """
    return sql.SQL(
        "INSERT INTO {table} AS t ({columns}) SELECT {values} FROM ({row}) AS g JOIN {state} AS s ON {match}"
        " CROSS JOIN LATERAL ({shown}) AS a WHERE {fresh} ON CONFLICT ({key}) {action} RETURNING 0::bigint"
    ).format(
        table=target.table,
        columns=names(target.names),
        values=names((column.name for _, column in target.columns), "a"),
        row=added(stage, change, TAKEN if event == TAKEN else BROUGHT),
        state=relation(stage.state),
        match=Store(stage).match("g"),
        shown=CommonTables(()).select(of_state(final, stage)),
        fresh=IS_READ_COMMITTED,
        key=names(target.key or ()),
        action=action,
    )


def hide_one(final: Plan, stage: Stage, target: Target, change: Plan, event: str) -> sql.Composable:
    """Remove the groups that a row went from or came to, if nothing is left of them, and what they showed; 0, or none
    if they showed nothing.

    Its own statement as well: what a group shows was written by whoever had its row locked before.
    """
    store = Store(stage)
    origin = dict(passed(final, stage))
    keys = {name: origin[column.name] for name, column in target.columns if name in (target.key or ())}
    return sql.SQL(
        ", z AS (DELETE FROM {state} AS s USING ({row}) AS g WHERE {fresh} AND {match} AND {empty} RETURNING {keys})"
        ", x AS (DELETE FROM {table} AS t USING z WHERE {located} RETURNING 1) SELECT 0::bigint FROM x LIMIT 1"
    ).format(
        state=store.table,
        row=_left_and_joined(stage, change) if event == CHANGED else added(stage, change, TAKEN),
        fresh=IS_READ_COMMITTED,
        match=store.match("g"),
        empty=every(sql.SQL("coalesce({c}, 0) = 0").format(c=store.stored(one)) for one in stage.rest),
        keys=names(stage.key_names, "s"),
        table=target.table,
        located=located(target, "t", "z", keys),
    )


def added(stage: Stage, change: Plan, event: str) -> sql.Composable:
    """What the row adds to its group."""
    values = [
        sql.SQL("{v} AS {name}").format(v=added_by(one, WEIGHT), name=sql.Identifier(f"d_{one.name}"))
        for one in stage.rest
    ]
    return sql.SQL("SELECT {values} FROM ({row}) AS x").format(
        values=listed([*group_keys(stage), *values]), row=image(grouped_delta(stage, change), event)
    )


def image(change: Plan, event: str) -> sql.Composable:
    """The row that came, or that went."""
    return _image(change, {BROUGHT: AFTER, TAKEN: BEFORE}[event])


def moved(stage: Stage, change: Plan) -> sql.Composable:
    """What the row adds to its group by changing, if it stays in it."""
    values = [sql.SQL("o.{d} + n.{d} AS {d}").format(d=sql.Identifier(f"d_{one.name}")) for one in stage.rest]
    keys = [sql.Identifier("n", name) for name in stage.key_names]
    return sql.SQL("SELECT {values} FROM ({before}) AS o JOIN ({after}) AS n ON {match}").format(
        values=listed([*keys, *values]),
        before=added(stage, change, TAKEN),
        after=added(stage, change, BROUGHT),
        match=matches(((one, one.name, one.name) for one in plain_keys(stage)), "o", "n"),
    )


def bring_new(target: Target, change: Plan) -> sql.Composable:
    """Show the rows that an INSERT brought, of which nothing has become anything else since.

    What is there under such a key somebody else has put into the stream table.
    """
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM ({rows}) AS n ON CONFLICT ({key}) {action}"
    ).format(
        table=target.table,
        columns=names(target.names),
        rows=renamed(target, _image(change, AFTER)),
        key=names(target.key or ()),
        action=overwritten(target),
    )


def reread_one(final: Plan, target: Target, change: Plan, event: str) -> sql.Composable:
    """Show a row as it is now, or no more."""
    template = {BROUGHT: _BRING, TAKEN: _TAKE, CHANGED: _CHANGE}[event]
    assert target.key is not None
    same = {name: name for name in target.key}
    compared = [(column, name, name) for name, column in target.columns]
    statement = template.format(
        table=target.table,
        columns=names(target.names),
        values=names(target.names, "w"),
        key=names(target.key),
        action=overwritten(target),
        now=renamed(target, CommonTables(()).select(final)),
        before=renamed(target, _image(change, BEFORE)),
        after=renamed(target, _image(change, AFTER)),
        assigned=listed(sql.SQL("{c} = w.{c}").format(c=sql.Identifier(name)) for name in target.written or target.key),
        found_before=located(target, "t", "o", same),
        found_now=located(target, "w", "n", same),
        found=located(target, "t", "n", same),
        still=located(target, "w", "o", same),
        stays=matches([pair for pair in compared if pair[1] in target.key], "o", "n"),
        differs=differ(compared, "o", "n"),
        fresh=IS_READ_COMMITTED,
    )
    return _or_nothing(statement, change, event)


def _or_nothing(statement: sql.Composable, change: Plan, event: str) -> sql.Composable:
    """The statement; 0 too where the row is neither in view nor was, if there may be such rows."""
    if not any(isinstance(node, Filter) for node in distinct(change)):
        return statement
    shown = [side for side, events in _SIDES.items() if event in events]
    return sql.SQL(
        ", y AS ({statement}) SELECT coalesce((SELECT __pgt_left FROM y), CASE WHEN {unseen} THEN 0::bigint END)"
    ).format(
        statement=statement,
        unseen=every(sql.SQL("NOT EXISTS ({row})").format(row=_image(change, side)) for side in shown),
    )


_SIDES = {BEFORE: (TAKEN, CHANGED), AFTER: (BROUGHT, CHANGED)}
_BRING = sql.SQL(
    "INSERT INTO {table} ({columns}) SELECT {values} FROM ({after}) AS n JOIN ({now}) AS w ON {found_now}"
    " WHERE {fresh} ON CONFLICT ({key}) {action} RETURNING 0::bigint AS __pgt_left"
)
_TAKE = sql.SQL(
    "DELETE FROM {table} AS t USING ({before}) AS o WHERE {fresh} AND {found_before}"
    " AND NOT EXISTS (SELECT FROM ({now}) AS w WHERE {still}) RETURNING 0::bigint AS __pgt_left"
)
_CHANGE = sql.SQL(
    "UPDATE {table} AS t SET {assigned} FROM ({before}) AS o, ({after}) AS n, ({now}) AS w"
    " WHERE {fresh} AND {stays} AND {differs} AND {found_now} AND {found} RETURNING 0::bigint AS __pgt_left"
)


def _image(change: Plan, side: str) -> sql.Composable:
    """The row before or after the statement, with its weight."""
    return CommonTables((), feed=Statement(side, is_net=True)).select(change)
