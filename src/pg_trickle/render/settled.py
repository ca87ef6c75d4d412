"""A stage with extremes, or with values that are read again, under the locks of the groups alone.

Counters are added (``add_first``), which locks the rows of the touched groups in the order of their keys; often that
is all, for no extreme came or went.  The second statement's snapshot is younger than those locks: it shows all that
anybody else has done to these groups, and nobody does more to them meanwhile.  So what a group's rows say then is what
holds::

    g   the delta, summed up for each touched group
    j   g beside the group's row, and whether the group must be read again
    r   the groups to be read again, from the source
    u   each touched group as it is to be
    w   rows of the state that change
    a   what the touched groups show, if anything; y  put into the stream table

Seldom is nothing left of a group, or nothing shown: what has to go (z, x) goes by a third statement (``leave``), for
each table that a statement may write costs it time.

A transaction with an older snapshot sees two rows of a group that it has made anew after another had deleted it: then
``j`` is longer than ``g``, and it has to try again.
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.plan import Plan
from pg_trickle.render.additive import adding, places_of
from pg_trickle.render.apply import Target, located
from pg_trickle.render.counters import new_value
from pg_trickle.render.direct import over_image, shows_all
from pg_trickle.render.parts import WEIGHT, assignments, differ, listed, matches, names, touching
from pg_trickle.render.reread import touched_keys
from pg_trickle.render.select import CommonTables
from pg_trickle.render.stage import beside, grouped_delta, groups, plain_keys, read_again
from pg_trickle.render.store import Store, is_direct, passed
from pg_trickle.state_columns import Role, StateColumn


def is_settled(final: Plan, store: Store, target: Target) -> bool:
    """Whether a stage, the only one, can be maintained so."""
    stage = store.stage
    if not is_direct(final, stage, target) or not all(one.is_added or _is_set(one) for one in stage.rest):
        return False
    # Where the stream table is the state it may show nothing else, for nothing else would be up to date.
    return store.target is None or len(places_of(final, store)) == len(target.names)


def add_first(final: Plan, store: Store, change: Plan, common: CommonTables) -> sql.Composable:
    """Add to the counters (y); the SELECT counts the groups of which something else may have to be changed.

    Extremes are compared as they are when the group's row is locked: nobody who has changed them is still under way.
    """
    stage = store.stage
    common.add("g", groups(stage, grouped_delta(stage, change), common))
    # Of two columns that show the same one will do.
    places = {state: name for name, state in places_of(final, store).items()}
    stored = listed(
        sql.SQL("{c} AS {name}").format(c=sql.Identifier("t", name), name=sql.Identifier(state))
        for state, name in places.items()
    )
    rows = sql.SQL("g ORDER BY {keys}").format(keys=names(name for name in stage.key_names if name in places))
    common.add_writing("y", adding(final, store, rows, stored))
    if not is_told_by_extremes(final, store):
        return sql.SQL("SELECT count(*) FROM y")
    return sql.SQL("SELECT count(*) FROM y JOIN g ON {match} WHERE y.n IN (0, g.d_n) OR {beyond}").format(
        match=touching(((one, one.name, one.name) for one in plain_keys(stage)), "y", "g"),
        beyond=sql.SQL(" OR ").join(
            _BEYOND[one.role].format(
                c=sql.Identifier("y", one.name),
                gone=sql.Identifier("g", f"gone_{one.name}"),
                came=sql.Identifier("g", f"came_{one.name}"),
            )
            for one in stage.rest
            if one.is_extremum
        ),
    )


def is_told_by_extremes(final: Plan, store: Store) -> bool:
    """Whether all is counters and extremes, those shown elsewhere are extremes, and groups match quickly."""
    stage = store.stage
    if not all(one.is_added or one.role in _BEYOND for one in stage.rest):
        return False
    if not all(one.type.hashable for one in plain_keys(stage)):
        return False
    if store.target is not None:
        return True
    counters = {one.name for one in stage.rest if one.is_added}
    origin = dict(passed(final, stage))
    return shows_all(final) and all(origin.get(one.name, "n") not in counters for one in final.columns)


# What went may have been the extreme, or what came may be.
_BEYOND = {
    Role.MIN: sql.SQL("coalesce({gone} <= {c}, {gone} IS NOT NULL) OR coalesce({came} < {c}, {came} IS NOT NULL)"),
    Role.MAX: sql.SQL("coalesce({gone} >= {c}, {gone} IS NOT NULL) OR coalesce({came} > {c}, {came} IS NOT NULL)"),
}


def settle(final: Plan, store: Store, target: Target, change: Plan, common: CommonTables) -> sql.Composable:
    """Bring the touched groups up to date that have rows; the SELECT that counts those that have none, or show none, or
    is NULL.
    """
    stage = store.stage
    common.add("g", groups(stage, grouped_delta(stage, change), common))
    common.add("j", beside(store, "g", _doubt(store)))
    common.add("r", read_again(stage, "j", common))
    common.add("u", _updates(store))
    common.add_writing("w", _changed(final, store))
    gone = sql.SQL("(SELECT count(*) FROM u WHERE u.n = 0)")
    if store.target is None:
        common.add("a", _shown(final, store, target, common))
        _show(target, common)
        gone = sql.SQL("(SELECT count(*) FROM a WHERE NOT __pgt_there)")
    return sql.SQL("SELECT CASE WHEN (SELECT count(*) FROM u) = (SELECT count(*) FROM g) THEN {gone} END").format(
        gone=gone
    )


def leave(final: Plan, store: Store, target: Target, change: Plan, common: CommonTables) -> sql.Composable:
    """Remove the touched groups that have no rows, and what those showed that show none; the SELECT that counts them.

    It goes by what is stored by now: what ``settle`` wrote may have fired triggers, and these have written the source.
    """
    stage = store.stage
    common.add("g", groups(stage, grouped_delta(stage, change), common))
    stored = listed(
        sql.SQL("{stored} AS {name}").format(stored=store.stored(one), name=sql.Identifier(one.name))
        for one in stage.rest
    )
    common.add(
        "u",
        sql.SQL("SELECT {keys}, s.ctid AS at, {stored} FROM g JOIN {table} AS s ON {match}").format(
            keys=names(stage.key_names, "g"), stored=stored, table=store.table, match=store.match("g")
        ),
    )
    removed = sql.SQL("DELETE FROM {table} AS s USING u WHERE s.ctid = u.at AND u.n = 0 RETURNING 1")
    common.add_writing("z", removed.format(table=store.table))
    if store.target is None:
        common.add("a", _shown(final, store, target, common))
        _hide(target, common)
    return sql.SQL("SELECT count(*) FROM z")


def _doubt(store: Store) -> sql.Composable | None:
    """Whether the first statement may have fired triggers, which may have written the source, and been worked off.

    Then what came may be gone again.  It may only where the stream table is the state.
    """
    if store.target is None:
        return None
    return sql.SQL("(SELECT c.relhastriggers FROM pg_class AS c WHERE c.oid = {table}::regclass)").format(
        table=sql.Literal(store.target.table.as_string(None))
    )


def _is_set(one: StateColumn) -> bool:
    return one.is_extremum or one.role is Role.VALUE


def _updates(store: Store) -> sql.Composable:
    """Counters as they are stored by now; the rest as it comes out."""
    stage = store.stage
    values = [
        sql.SQL("{value} AS {name}").format(
            value=new_value(one) if _is_set(one) else sql.Identifier("j", f"o_{one.name}"),
            name=sql.Identifier(one.name),
        )
        for one in stage.rest
    ]
    return sql.SQL("SELECT {keys}, j.at, {values}, {old} FROM j LEFT JOIN r ON j.hit AND {match}").format(
        keys=names(stage.key_names, "j"),
        values=listed(values),
        old=names((f"o_{one.name}" for one in stage.rest if _is_set(one)), "j"),
        match=matches(((one, one.name, one.name) for one in plain_keys(stage)), "j", "r"),
    )


def _changed(final: Plan, store: Store) -> sql.Composable:
    """Those of the state's rows that don't hold it yet, by where they were found: they are locked."""
    found = {one.name: one for one in store.stage.rest if _is_set(one)}
    return sql.SQL(
        "UPDATE {table} AS s SET {values} FROM u WHERE s.ctid = u.at AND u.n <> 0 AND {differ} RETURNING 1"
    ).format(
        table=store.table,
        values=listed(
            sql.SQL("{name} = u.{value}").format(name=sql.Identifier(name), value=sql.Identifier(state))
            for name, state in places_of(final, store).items()
            if state in found
        ),
        differ=differ(((one.column, one.name, f"o_{one.name}") for one in found.values()), "u", "u"),
    )


def _shown(final: Plan, store: Store, target: Target, common: CommonTables) -> sql.Composable:
    origin = dict(passed(final, store.stage))
    keys = {name: origin[column.name] for name, column in target.columns if name in (target.key or ())}
    return sql.SQL(
        "SELECT {keys}, {shown}, a.{w} IS NOT NULL AS __pgt_there FROM u LEFT JOIN LATERAL ({row}) AS a ON TRUE"
    ).format(
        keys=touched_keys(keys, "u"),
        shown=listed(
            sql.SQL("a.{plan} AS {name}").format(plan=sql.Identifier(column.name), name=sql.Identifier(name))
            for name, column in target.columns
        ),
        w=WEIGHT,
        row=common.select(over_image(final, store.stage, "")),
    )


def _hide(target: Target, common: CommonTables) -> None:
    """Remove from the target the rows ``a`` that aren't there."""
    assert target.key is not None
    keyed = [name for name in target.names if name in target.key]
    common.add_writing(
        "x",
        sql.SQL("DELETE FROM {table} AS t USING a WHERE NOT a.__pgt_there AND {match} RETURNING 1").format(
            table=target.table,
            match=located(target, "t", "a", {name: f"__pgt_key_{place}" for place, name in enumerate(keyed, 1)}),
        ),
    )


def _show(target: Target, common: CommonTables) -> None:
    """Put the rows ``a`` that are there into the target where they differ."""
    assert target.key is not None
    key = names(target.key)
    action: sql.Composable = sql.SQL("DO NOTHING")
    if target.written:
        written = ((column, name, name) for name, column in target.columns if name in target.written)
        action = sql.SQL("DO UPDATE SET {assignments} WHERE {differ}").format(
            assignments=assignments(target.written, "excluded"), differ=differ(written, "t", "excluded")
        )
    common.add_writing(
        "y",
        sql.SQL(
            "INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM a WHERE __pgt_there ORDER BY {key}"
            " ON CONFLICT ({key}) {action} RETURNING 1"
        ).format(table=target.table, columns=names(target.names), key=key, action=action),
    )
