"""Programs for statements that only bring rows, or only take some away: half of what an update needs.

An INSERT's delta is a bag.  As long as nothing in the plan subtracts (``comes``), the change of the stream table is a
bag too: nothing has to be netted, no group can vanish, no extreme can be lost.  So counters are upserted, and what they
show after them; keyed rows are inserted, or by a DELETE deleted.

::

    g   what came, summed up for each touched group
    u   each added to its row in the state table, as it is now
    y   what those groups show
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, distinct, inputs, size
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Source, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.render.additive import adding_in_order, adds_anything, of_state
from pg_trickle.render.apply import Target, located, upsert_action
from pg_trickle.render.direct import shows_all
from pg_trickle.render.leaves import relation
from pg_trickle.render.parts import assignments, differ, every, listed, names
from pg_trickle.render.select import CommonTables
from pg_trickle.render.stage import grouped_delta, groups
from pg_trickle.render.store import Store, is_direct, passed
from pg_trickle.stages import Stage
from pg_trickle.state_columns import Role, StateColumn


def comes(delta: Plan) -> bool:
    """Whether a delta holds nothing that goes, where its sources' changes hold nothing that goes."""
    ahead, seen = [delta], set[int]()
    while ahead:
        # Plans share their parts: with twenty joins there are a million ways down.
        if id(node := ahead.pop()) in seen:
            continue
        seen.add(id(node))
        if (decisive := _come_with(node)) is None:
            return False
        ahead += decisive
    return True


def _come_with(delta: Plan) -> tuple[Plan, ...] | None:
    """The parts of a delta that hold nothing that goes if it doesn't; None if something may go whatever they hold."""
    match operator(delta):
        case Changes(table):
            return () if isinstance(table, Source) else None
        case Negate() | Untouched() | Gone() | Flipped() | Elapsed() | Empty() | Unwatched():
            return None
        case Scan() | Unit() | Opaque() | Found():
            return ()
        case Touched(below) | Partners(below) | LeftJoin(below) | Mark(below):
            return (below,)
        case Filter() | TimedFilter() | TimedColumn() | Project() | UnionAll() | Join() | Lateral() | Consolidate():
            return inputs(delta)
        case FullJoin() | Aggregate() | Window() | DistinctOn() | TopK() | Recompute() | Recursion():
            return None


def weighs(delta: Plan, side: int) -> bool:
    """Whether every row of a delta weighs as much as the row that came (1) or went (-1) of which it comes, or just one
    (0): where no row of a source is looked for but by pairing it.
    """
    match operator(delta):
        case Changes():
            return side != 0
        case Scan() | Unit():
            return side == 0
        case Filter(below) | Project(below):
            return weighs(below, side)
        case UnionAll(left, right):
            return weighs(left, side) and weighs(right, side)
        case Join(left, right):
            return (weighs(left, side) and weighs(right, 0)) or (weighs(left, 0) and weighs(right, side))
        case _:
            return False


def bring(target: Target, rows: sql.Composable, common: CommonTables) -> sql.Composable:
    """Insert rows under their keys; the SELECT that counts them."""
    assert target.key is not None
    common.add_writing("y", upsert(target, sql.SQL("({rows}) AS f").format(rows=rows), upsert_action(target)))
    return sql.SQL("SELECT count(*) FROM y")


def insert(target: Target, rows: sql.Composable) -> sql.Composable:
    """Insert rows whose keys aren't there, without looking."""
    return sql.SQL("INSERT INTO {table} ({columns}) SELECT {columns} FROM ({rows}) AS f").format(
        table=target.table, columns=names(target.names), rows=rows
    )


def take(target: Target, rows: sql.Composable, common: CommonTables) -> sql.Composable:
    """Delete rows by their keys; the SELECT that counts them, or is NULL if they weren't all there."""
    assert target.key is not None
    common.add("f", sql.SQL("SELECT {key} FROM ({rows}) AS f").format(key=names(target.key), rows=rows))
    common.add_writing(
        "x",
        sql.SQL("DELETE FROM {table} AS t USING f WHERE {match} RETURNING 1").format(
            table=target.table, match=located(target, "t", "f", {name: name for name in target.key})
        ),
    )
    return sql.SQL(
        "SELECT CASE WHEN (SELECT count(*) FROM x) = (SELECT count(*) FROM f) THEN (SELECT count(*) FROM x) END"
    )


# The largest delta of which both sides are printed as trees; a chain of six left joins has no larger one.
LARGEST = 1000


def can_change(target: Target, delta: Plan) -> bool:
    """Whether each row of an update's delta comes of one old or one new row, keys are matched quickly, and the text is
    no longer than that of programs that print once what is read often.
    """
    keyed = [column for name, column in target.columns if name in (target.key or ())]
    is_quick = target.keyed_by_hash or all(one.not_null and one.type.name for one in keyed)
    return is_quick and size(delta) <= LARGEST and not any(isinstance(node, Touched) for node in distinct(delta))


def change_rows(target: Target, before: sql.Composable, after: sql.Composable, common: CommonTables) -> sql.Composable:
    """Bring rows from what was shown of what an update took away to what is shown of what it brought; the SELECT that
    counts, or is NULL if what is to go wasn't all there.
    """
    assert target.key is not None
    same = {name: name for name in target.key}
    common.add("f", after)
    common.add(
        "o",
        sql.SQL("SELECT {key} FROM ({before}) AS o WHERE NOT EXISTS (SELECT FROM f WHERE {still})").format(
            key=names(target.key), before=before, still=located(target, "f", "o", same)
        ),
    )
    common.add_writing(
        "x",
        sql.SQL("DELETE FROM {table} AS t USING o WHERE {match} RETURNING 1").format(
            table=target.table, match=located(target, "t", "o", same)
        ),
    )
    common.add_writing("y", upsert(target, sql.SQL("f"), if_moved(target)))
    return sql.SQL(
        "SELECT CASE WHEN (SELECT count(*) FROM x) = (SELECT count(*) FROM o)"
        " THEN (SELECT count(*) FROM x) + (SELECT count(*) FROM y) END"
    )


def can_grow(final: Plan, stage: Stage, target: Target) -> bool:
    """Whether a stage with a state table only ever shows more, or more of the same, of rows that come."""
    return (
        is_direct(final, stage, target)
        and shows_all(final)
        and bool(target.written)
        and all(one.is_added or one.role in _EXTREMES for one in stage.rest)
    )


def grow(
    final: Plan, stage: Stage, target: Target, change: Plan, common: CommonTables, *, adds: bool
) -> sql.Composable:
    """Add what came to its groups, and show them; the SELECT that counts the rows shown anew.  ``adds``: as below."""
    narrow = grouped_delta(stage, change)
    narrow = narrow.input if isinstance(narrow, Consolidate) else narrow
    common.add("g", groups(stage, narrow, common, 1 if weighs(narrow, 1) else 0))
    common.add_writing("u", come(stage, adds=adds))
    common.add_writing("y", shown_again(final, stage, target, common))
    return sql.SQL("SELECT count(*) FROM y")


def can_renew(final: Plan, stage: Stage, target: Target) -> bool:
    """Whether a stage with a state table shows each group that has rows, and nothing but what is counted."""
    return is_direct(final, stage, target) and shows_all(final) and all(one.is_added for one in stage.rest)


def renew(
    final: Plan, stage: Stage, target: Target, change: Plan, common: CommonTables, *, takes: bool, adds: bool
) -> sql.Composable:
    """Add an update's or (``takes``) a DELETE's delta to its groups, and show them; the SELECT that counts those
    without rows.

    ``adds``: to the counters as they are when the group's row is locked, as others may add to them meanwhile; it is
    NULL if there were fewer rows than go.
    """
    narrow = grouped_delta(stage, change)
    common.add("g", groups(stage, narrow, common, -1 if takes and weighs(narrow, -1) else 0))
    common.add_writing("u", come(stage, adds=True) if adds else _summed(Store(stage)))
    common.add_writing("y", shown_again(final, stage, target, common))
    if adds:
        return _left_empty()
    return sql.SQL("SELECT count(*) FILTER (WHERE n = 0) FROM u")


def remove(final: Plan, stage: Stage, target: Target, change: Plan, common: CommonTables) -> sql.Composable:
    """Remove the touched groups that ``renew`` left without rows (d), and what they showed (x); the SELECT that counts,
    or is NULL if they weren't all shown.
    """
    store = Store(stage)
    common.add("g", groups(stage, grouped_delta(stage, change), common))
    common.add_writing(
        "d",
        sql.SQL("DELETE FROM {state} AS s USING g WHERE {match} AND s.n = 0 RETURNING {keys}").format(
            state=store.table, match=store.match("g"), keys=names(stage.key_names, "s")
        ),
    )
    origin = dict(passed(final, stage))
    keys = {name: origin[column.name] for name, column in target.columns if name in (target.key or ())}
    common.add_writing(
        "x",
        sql.SQL("DELETE FROM {table} AS t USING d WHERE {match} RETURNING 1").format(
            table=target.table, match=located(target, "t", "d", keys)
        ),
    )
    return sql.SQL("SELECT CASE WHEN (SELECT count(*) FROM x) = (SELECT count(*) FROM d) THEN count(*) END FROM x")


def count(final: Plan, store: Store, change: Plan, common: CommonTables, *, side: int) -> sql.Composable:
    """Add a delta to groups that show all that is counted; the SELECT that counts those left without rows, or is NULL
    if one had fewer than go.  Others may add to them meanwhile.  ``side``: 1 or -1 where rows only come, or go; else 0.
    """
    narrow = grouped_delta(store.stage, change)
    common.add("g", groups(store.stage, narrow, common, side if weighs(narrow, side) else 0))
    common.add_writing("u", adding_in_order(final, store))
    return _left_empty()


def uncount(store: Store, change: Plan, common: CommonTables) -> sql.Composable:
    """Remove the touched groups that ``count`` left without rows; the SELECT that counts, or is NULL if one had
    anything else: it wasn't there before.
    """
    stage = store.stage
    common.add("g", groups(stage, grouped_delta(stage, change), common))
    rows = next(one for one in stage.rest if one.role is Role.ROWS)
    nothing = every(sql.SQL("coalesce({c}, 0) = 0").format(c=store.stored(one)) for one in stage.rest)
    common.add_writing(
        "d",
        sql.SQL("DELETE FROM {table} AS s USING g WHERE {match} AND {rows} = 0 RETURNING {nothing} AS nothing").format(
            table=store.table, match=store.match("g"), rows=store.stored(rows), nothing=nothing
        ),
    )
    return sql.SQL("SELECT CASE WHEN count(*) FILTER (WHERE NOT nothing) = 0 THEN count(*) END FROM d")


def _left_empty() -> sql.Composable:
    return sql.SQL("SELECT CASE WHEN count(*) FILTER (WHERE n < 0) = 0 THEN count(*) FILTER (WHERE n = 0) END FROM u")


def shown_again(final: Plan, stage: Stage, target: Target, common: CommonTables) -> sql.Composable:
    """What the groups ``u`` show by now, put into the stream table where it isn't what they showed."""
    shown = sql.SQL("u AS s CROSS JOIN LATERAL (SELECT {shown} FROM ({row}) AS a) AS f").format(
        shown=listed(
            sql.SQL("a.{plan} AS {name}").format(plan=sql.Identifier(column.name), name=sql.Identifier(name))
            for name, column in target.columns
        ),
        row=common.select(of_state(final, stage)),
    )
    return upsert(target, shown, if_moved(target))


def if_moved(target: Target) -> sql.Composable:
    """Compared with the row as it is when it is locked: others may have changed it since this statement began."""
    if not target.written:
        return upsert_action(target)
    moved = differ(((of, name, name) for name, of in target.columns if name in target.written), "t", "excluded")
    return sql.SQL("{action} WHERE {moved}").format(action=upsert_action(target), moved=moved)


def upsert(target: Target, rows: sql.Composable, action: sql.Composable) -> sql.Composable:
    """Insert the rows ``f``."""
    return sql.SQL(
        "INSERT INTO {table} AS t ({columns}) SELECT {values} FROM {rows} ON CONFLICT ({key}) {action} RETURNING 1"
    ).format(
        table=target.table,
        columns=names(target.names),
        values=names(target.names, "f"),
        rows=rows,
        key=names(target.key or ()),
        action=action,
    )


def come(stage: Stage, *, adds: bool) -> sql.Composable:
    """The statement that adds what came (``g``) to the groups' rows; it returns them as they are then.

    With others about (``adds``) in the order of the keys, in which everybody locks groups.
    """
    only = sql.SQL(" WHERE {any} ORDER BY {keys}").format(any=adds_anything(stage), keys=names(stage.key_names))
    return sql.SQL(
        "INSERT INTO {state} AS t ({keys}, {rest}) SELECT {keys}, {came} FROM g{only}"
        " ON CONFLICT ({keys}) DO UPDATE SET {sums} RETURNING {returned}"
    ).format(
        state=relation(stage.state),
        keys=names(stage.key_names),
        only=only if adds else sql.SQL(""),
        rest=names(one.name for one in stage.rest),
        came=listed(sql.Identifier(came_as(one)) for one in stage.rest),
        sums=listed(_sum(one) for one in stage.rest),
        returned=names(stage.column_names, "t"),
    )


def _summed(store: Store) -> sql.Composable:
    """One transaction at a time is here, so what is stored can be read: no group is to have fewer than no rows."""
    stage = store.stage
    sums = listed(
        sql.SQL("coalesce(s.{c}, 0) + g.{d}").format(c=sql.Identifier(one.name), d=sql.Identifier(f"d_{one.name}"))
        for one in stage.rest
    )
    return sql.SQL(
        "INSERT INTO {state} AS t ({keys}, {rest}) SELECT {group}, {sums} FROM g LEFT JOIN {state} AS s ON {match}"
        " WHERE {any}"
        " ON CONFLICT ({keys}) DO UPDATE SET {assigned} RETURNING {returned}"
    ).format(
        state=store.table,
        keys=names(stage.key_names),
        group=names(stage.key_names, "g"),
        rest=names(one.name for one in stage.rest),
        sums=sums,
        match=store.match("g"),
        any=adds_anything(stage),
        assigned=assignments((one.name for one in stage.rest), "excluded"),
        returned=names(stage.column_names, "t"),
    )


def came_as(one: StateColumn) -> str:
    """What came for a column, as it is called in ``g``."""
    return f"came_{one.name}" if one.role in _EXTREMES else f"d_{one.name}"


def _sum(one: StateColumn) -> sql.Composable:
    return _EXTREMES.get(one.role, sql.SQL("{c} = t.{c} + excluded.{c}")).format(c=sql.Identifier(one.name))


_EXTREMES = {
    Role.MIN: sql.SQL("{c} = LEAST(t.{c}, excluded.{c})"),
    Role.MAX: sql.SQL("{c} = GREATEST(t.{c}, excluded.{c})"),
}
