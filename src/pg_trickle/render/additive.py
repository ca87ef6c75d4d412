"""A stage of counters and sums by additions alone, so that writers wait for nobody but the writers of their groups.

The new value of a group is what is stored *when its row is locked*, plus the delta: PostgreSQL's upsert reads the
newest version whatever the statement's snapshot.  Rows are locked in the order of their keys.  The order in which
statements add doesn't matter, so a counter may be below zero while another statement is under way.

Three statements, as many as it takes; the others have a snapshot that is younger than the locks of the first::

    g   the delta, summed up for each touched group; in each
    y   each added to its row                                                    (add_up)
    a   what the touched groups show, if anything; y  put into the stream table  (show_up, where the state is elsewhere)
    x   rows of groups that show nothing any more, z  groups of which nothing is left (clear_up)
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.linear import Project
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Opaque, Scan
from pg_trickle.render.apply import Target
from pg_trickle.render.leaves import relation
from pg_trickle.render.parts import WEIGHT, listed, names
from pg_trickle.render.reread import hidden, shown, touched_keys
from pg_trickle.render.select import CommonTables
from pg_trickle.render.stage import grouped_delta, groups
from pg_trickle.render.store import Store, is_direct, passed, shown_by
from pg_trickle.stages import Stage
from pg_trickle.state_columns import Role, StateColumn


def is_additive(final: Plan, store: Store, target: Target) -> bool:
    """Whether a stage, the only one, can be maintained so."""
    stage = store.stage
    if not is_direct(final, stage, target) or not all(one.is_added for one in stage.rest):
        return False
    # Where the stream table is the state it may show nothing else, for nothing else would be up to date.
    return store.target is None or len(places_of(final, store)) == len(target.names)


def places_of(final: Plan, store: Store) -> dict[str, str]:
    """The columns of the store, and of which column of the state each is."""
    if store.target is None or not isinstance(final, Project):
        return {one: one for one in (*store.stage.key_names, *(rest.name for rest in store.stage.rest))}
    return shown_by(store.target, final, store.stage)


def _keys(final: Plan, store: Store) -> list[str]:
    """The key columns of the store."""
    rest = {one.name for one in store.stage.rest}
    return [name for name, state in places_of(final, store).items() if state not in rest]


def _counters(final: Plan, store: Store) -> dict[str, StateColumn]:
    """The other columns, and what they count."""
    rest = {one.name: one for one in store.stage.rest if one.is_added}
    return {
        name: rest[state] for name, state in places_of(final, store).items() if state in rest and rest[state].is_added
    }


def row_counter(final: Plan, store: Store) -> sql.Identifier:
    """How many rows the group of a stored row ``t`` has."""
    counters = _counters(final, store).items()
    return sql.Identifier("t", next(name for name, one in counters if one.role is Role.ROWS))


def adds_anything(stage: Stage) -> sql.Composable:
    """Whether what is summed up for a group changes it."""
    return sql.SQL(" OR ").join(sql.SQL("{d} <> 0").format(d=_delta(one)) for one in stage.rest)


def adding(final: Plan, store: Store, rows: sql.Composable, returned: sql.Composable) -> sql.Composable:
    """The statement that adds to the stored counters what ``rows`` says for each group, one row a group."""
    places, keys, counters = places_of(final, store), _keys(final, store), _counters(final, store)
    return sql.SQL(
        "INSERT INTO {table} AS t ({keys}, {columns}) SELECT {key_values}, {added} FROM {rows}"
        " ON CONFLICT ({unique}) DO UPDATE SET {sums} RETURNING {returned}"
    ).format(
        table=store.table,
        keys=names(keys),
        unique=names(keys if store.target is None else store.target.key or ()),
        columns=names(counters),
        key_values=names(places[name] for name in keys),
        added=listed(_inserted(store, one) for one in counters.values()),
        rows=rows,
        sums=listed(
            sql.SQL("{c} = {sum}").format(c=sql.Identifier(name), sum=_sum(store, one))
            for name, one in counters.items()
        ),
        returned=returned,
    )


def adding_in_order(final: Plan, store: Store) -> sql.Composable:
    """The statement that adds the touched groups ``g``, in the order of their keys; how many rows each has then."""
    places = places_of(final, store)
    keys = [places[name] for name in _keys(final, store)]
    rows = sql.SQL("g{any} ORDER BY {keys}").format(any=_any(store.stage), keys=names(keys))
    return adding(final, store, rows, sql.SQL("{rows} AS n").format(rows=row_counter(final, store)))


def add_up(final: Plan, store: Store, change: Plan, common: CommonTables) -> sql.Composable:
    """Add the delta to the stored counters; the SELECT is 0 when there is nothing more to do."""
    _touched(store.stage, change, common)
    common.add_writing("y", adding_in_order(final, store))
    what = sql.SQL("count(*)") if store.target is None else sql.SQL("count(*) FILTER (WHERE n = 0)")
    return sql.SQL("SELECT {what} FROM y").format(what=what)


def show_up(final: Plan, store: Store, target: Target, change: Plan, common: CommonTables) -> sql.Composable:
    """Show what the touched groups hold now; the SELECT counts those that show nothing, or is NULL."""
    _beside_state(final, store, target, change, common)
    common.add_writing("y", shown(target))
    return sql.SQL(
        "SELECT CASE WHEN (SELECT count(*) FROM a WHERE __pgt_there) = (SELECT count(*) FROM y)"
        " THEN (SELECT count(*) FROM a WHERE NOT __pgt_there) END"
    )


def clear_up(final: Plan, store: Store, target: Target, change: Plan, common: CommonTables) -> sql.Composable:
    """Remove the touched groups that hold nothing, and what isn't shown any more."""
    stage = store.stage
    empty = sql.SQL(" AND ").join(sql.SQL("coalesce({c}, 0) = 0").format(c=store.stored(one)) for one in stage.rest)
    gone = sql.SQL("DELETE FROM {table} AS s USING g WHERE {match} AND {empty} RETURNING 1").format(
        table=store.table, match=store.match("g"), empty=empty
    )
    if store.target is not None:
        _touched(stage, change, common)
        common.add_writing("z", gone)
        return sql.SQL("SELECT count(*) FROM z")
    _beside_state(final, store, target, change, common)
    common.add_writing("z", gone)
    common.add_writing("x", hidden(target))
    return sql.SQL("SELECT count(*) FROM x")


def _beside_state(final: Plan, store: Store, target: Target, change: Plan, common: CommonTables) -> None:
    """The touched groups (g), and what is shown of them (a)."""
    stage = store.stage
    _touched(stage, change, common)
    origin = dict(passed(final, stage))
    keys = {name: origin[column.name] for name, column in target.columns if name in (target.key or ())}
    common.add(
        "a",
        sql.SQL(
            "SELECT {keys}, {shown}, a.{w} IS NOT NULL AS __pgt_there FROM g LEFT JOIN {state} AS s ON {match}"
            " LEFT JOIN LATERAL ({row}) AS a ON TRUE"
        ).format(
            keys=touched_keys(keys),
            shown=listed(
                sql.SQL("a.{plan} AS {name}").format(plan=sql.Identifier(column.name), name=sql.Identifier(name))
                for name, column in target.columns
            ),
            w=WEIGHT,
            state=relation(stage.state),
            match=store.match("g"),
            row=common.select(of_state(final, stage)),
        ),
    )


def _touched(stage: Stage, change: Plan, common: CommonTables) -> None:
    common.add("g", groups(stage, grouped_delta(stage, change), common))


def _delta(one: StateColumn) -> sql.Identifier:
    return sql.Identifier(f"d_{one.name}")


def _any(stage: Stage) -> sql.Composable:
    """Which groups are touched; those with columns that aren't counted all are."""
    if not all(one.is_added for one in stage.rest):
        return sql.SQL("")
    return sql.SQL(" WHERE {counted}").format(counted=adds_anything(stage))


def _is_shown_null(store: Store, one: StateColumn) -> bool:
    """Where the stream table is the state, a sum of nothing is NULL there."""
    return store.target is not None and one.role is Role.SUM


def _inserted(store: Store, one: StateColumn) -> sql.Composable:
    if not _is_shown_null(store, one):
        return _delta(one)
    return sql.SQL("CASE WHEN {count} <> 0 OR {d} <> 0 THEN {d} END").format(
        count=_delta(_counter_of(store, one)), d=_delta(one)
    )


def _counter_of(store: Store, one: StateColumn) -> StateColumn:
    rows = next(other for other in store.stage.rest if other.role is Role.ROWS)
    found = [
        other
        for other in store.stage.rest
        if other.role is Role.COUNT and (other.argument, other.condition) == (one.argument, one.condition)
    ]
    return found[0] if found else rows


def _sum(store: Store, one: StateColumn) -> sql.Composable:
    total = _total(store, one)
    if not _is_shown_null(store, one):
        return total
    return sql.SQL("CASE WHEN {count} <> 0 OR {total} <> 0 THEN {total} END").format(
        count=_total(store, _counter_of(store, one)), total=total
    )


def _total(store: Store, one: StateColumn) -> sql.Composable:
    name = dict(store.shown).get(one.name, one.name) if store.target is not None else one.name
    mine, theirs = sql.Identifier("t", name), sql.Identifier("excluded", name)
    template = (
        sql.SQL("coalesce({mine}, 0) + coalesce({theirs}, 0)")
        if _is_shown_null(store, one)
        else sql.SQL("{mine} + {theirs}")
    )
    return sql.SQL("({sum})").format(sum=template.format(mine=mine, theirs=theirs))


def of_state(plan: Plan, stage: Stage) -> Plan:
    """The final plan over the stored row ``s`` of one group."""
    if not isinstance(plan, Scan):
        return plan.over(lambda below: of_state(below, stage))
    values = listed(sql.SQL("s.{name}").format(name=sql.Identifier(field.attribute)) for field in plan.fields)
    return Opaque(sql.SQL("SELECT {values} WHERE s.n <> 0").format(values=values).as_string(None), plan.columns)
