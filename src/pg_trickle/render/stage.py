"""A stage's statement: from the delta below to the new state, its own delta on the way.

::

    g   the delta, summed up for each touched group
    j   g beside the group's stored row, and whether the group must be read again
    r   the groups to be read again, recomputed from the new state below
    u   old and new row of every group whose row changes
    d   u as a Z-set: the stage's delta
"""

from __future__ import annotations

from collections import Counter

from psycopg import sql

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Consolidate, Filter, Item, Project
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.render.counters import counted, counted_of, extremes, fresh_value, key_values, new_value
from pg_trickle.render.leaves import relation
from pg_trickle.render.parts import WEIGHT, assignments, differ, every, index_order, listed, names, row_hash, touching
from pg_trickle.render.select import CommonTables, rows
from pg_trickle.render.store import Store
from pg_trickle.scalar import Column, column
from pg_trickle.stages import Stage
from pg_trickle.state_columns import Role, StateColumn
from pg_trickle.uniqueness import is_net


def needs_rows_below(stage: Stage) -> bool:
    """Whether the statement may read what is below in its new state."""
    return bool(stage.recomputed)


def grouped_delta(stage: Stage, change: Plan) -> Plan:
    """The delta below with just the columns that the stage reads, netted where the rule demands it."""
    read = {name for one in stage.rest for name in (one.argument, one.condition) if name}
    read.update(name for one in stage.rest if one.value is not None for name in one.value.columns)
    read.update(stage.aggregate.keys)
    items = tuple(Item(one, column(one)) for one in change.columns if one.name in read)
    narrow = change if len(items) == len(change.columns) else Project(change, items)
    return Consolidate(narrow) if stage.recomputed and not is_net(narrow) else narrow


def add_stage(store: Store, change: Plan, common: CommonTables) -> None:
    """Add the stage's WITH queries, up to the old and new row of every updated group, and those that keep the new."""
    stage = store.stage
    prefix = stage.state.name
    made = {part: f"{prefix}_{part}" for part in ("g", "j", "r", "u")}
    common.add(made["g"], groups(stage, change, common))
    common.add(made["j"], beside(store, made["g"]))
    if stage.recomputed:
        common.add(made["r"], read_again(stage, made["j"], common))
    common.add(made["u"], _updates(store, made["j"], made["r"] if stage.recomputed else None))
    if store.target is not None:
        return
    common.add_writing(f"{prefix}_up", _update(stage, made["u"]))
    common.add_writing(f"{prefix}_in", _insert(stage, made["u"]))
    if not stage.is_global:
        common.add_writing(f"{prefix}_de", _delete(stage, made["u"]))


def add_delta(stage: Stage, common: CommonTables) -> None:
    """Add the stage's delta, named after the state's delta."""
    common.add(stage.state.delta_name, _delta(stage, f"{stage.state.name}_u"))


def fresh(stage: Stage, common: CommonTables) -> sql.Composable:
    """The state as it should be, computed from scratch: a row a group, in the state's columns."""
    values = [
        sql.SQL("{value} AS {name}").format(value=fresh_value(stage, one), name=sql.Identifier(one.name))
        for one in stage.columns
    ]
    grouping = sql.SQL("") if stage.is_global else sql.SQL(" GROUP BY {keys}").format(keys=names(stage.aggregate.keys))
    return sql.SQL("SELECT {values} FROM ({rows}) AS g{grouping}").format(
        values=listed(values), rows=rows(stage.aggregate.input, common), grouping=grouping
    )


def group_keys(stage: Stage) -> list[sql.Composable]:
    """The key of a row's group, under the names of the state."""
    keys: list[sql.Composable] = [
        sql.SQL("{value} AS {name}").format(value=value, name=sql.Identifier(key.name))
        for value, (key, _) in zip(key_values(stage), stage.keys, strict=True)
    ]
    if stage.hashed is not None:
        keys.insert(0, sql.SQL("{hash} AS h").format(hash=row_hash(stage.aggregate.keys)))
    return keys


def groups(stage: Stage, change: Plan, common: CommonTables, side: int = 0) -> sql.Composable:
    """The delta below, summed up for each touched group: the group's key, and what is added to each counter.

    With a ``side`` each of its rows is known to weigh that.
    """
    values: list[sql.Composable] = []
    for one in stage.rest:
        if one.follows:
            added = counted_of(one, side) if side else counted(one, WEIGHT)
            values.append(sql.SQL("{v} AS {name}").format(v=added, name=sql.Identifier(f"d_{one.name}")))
        if one.is_extremum:
            values += extremes(one)
    grouping = (
        sql.SQL(" HAVING count(*) > 0")
        if stage.is_global
        else sql.SQL(" GROUP BY {keys}{order}").format(
            keys=names(stage.aggregate.keys), order=index_order(stage.key_columns)
        )
    )
    # Bits that came and left again would be looked for in the whole group; extremes only if they were extreme.
    sums = all(one.follows or one.role in {Role.MIN, Role.MAX} for one in stage.rest)
    read = common.summed if sums else common.select
    return sql.SQL("SELECT {values} FROM ({change}{once}) AS x{grouping}").format(
        values=listed([*group_keys(stage), *values]),
        change=read(change),
        once=_once(stage, change),
        grouping=grouping,
    )


def _once(stage: Stage, change: Plan) -> sql.SQL:
    """What keeps the planner from writing out an argument that is computed wherever it is counted or summed up."""
    used = Counter(one.argument for one in stage.rest if one.follows and one.argument)
    often = (name for name, times in used.items() if times > 1)
    return sql.SQL(" OFFSET 0") if any(_is_computed(change, name) for name in often) else sql.SQL("")


def _is_computed(plan: Plan, name: str) -> bool:
    """Whether the query of a plan shows an expression under this name."""
    match operator(plan):
        case Project(below, items):
            value = next(item.value for item in items if item.column.name == name)
            return not value.is_column or _is_computed(below, next(iter(value.columns)))
        case Filter(below):
            return _is_computed(below, name)
        case Join(left, right):
            return any(_is_computed(side, name) for side in (left, right) if name in names_of(side))
        case _:
            return False


def beside(store: Store, groups: str, doubt: sql.Composable | None = None) -> sql.Composable:
    """What comes to each touched group beside its row; ``doubt`` is a further reason to read it again."""
    stage = store.stage
    old = [
        sql.SQL("{stored} AS {old}").format(stored=store.stored(one), old=sql.Identifier(f"o_{one.name}"))
        for one in stage.rest
    ]
    old += [
        sql.SQL("{stored} AS {old}").format(stored=sql.Identifier("s", name), old=sql.Identifier(f"o_{name}"))
        for name in sorted(_respelled(store))
    ]
    rows = next(one for one in stage.rest if one.role is Role.ROWS)
    hits = [_hit(one, store) for one in stage.rest if one.is_extremum]
    if any(one.role is Role.VALUE for one in stage.rest):
        hits = [sql.SQL("TRUE")]
    hits += [] if doubt is None else [doubt]
    hit = sql.SQL(" OR ").join(hits) if hits else sql.SQL("FALSE")
    return sql.SQL(
        "SELECT g.*, s.ctid AS at, {old}, {rows} IS NOT NULL AS known, {hit} AS hit"
        " FROM {g} AS g LEFT JOIN {store} AS s ON {m}"
    ).format(
        old=listed(old),
        rows=store.stored(rows),
        hit=sql.SQL("({hit})").format(hit=hit),
        g=sql.Identifier(groups),
        store=store.table,
        m=store.match("g"),
    )


_HITS = {
    Role.MIN: sql.SQL("(g.{gone} IS NOT NULL AND coalesce(g.{gone} <= LEAST({stored}, g.{came}), TRUE))"),
    Role.MAX: sql.SQL("(g.{gone} IS NOT NULL AND coalesce(g.{gone} >= GREATEST({stored}, g.{came}), TRUE))"),
}


def _hit(one: StateColumn, store: Store) -> sql.Composable:
    """Whether the extreme may be gone: something left that was at least as extreme as all that is known to stay."""
    return _HITS.get(one.role, sql.SQL("g.{gone} IS NOT NULL")).format(
        gone=sql.Identifier(f"gone_{one.name}"), came=sql.Identifier(f"came_{one.name}"), stored=store.stored(one)
    )


def read_again(stage: Stage, beside: str, common: CommonTables) -> sql.Composable:
    values = [
        sql.SQL("{value} AS {name}").format(value=one.value.sql(), name=sql.Identifier(f"r_{one.name}"))
        for one in stage.recomputed
        if one.value is not None
    ]
    below = rows(stage.aggregate.input, common)
    if stage.is_global:
        return sql.SQL("SELECT 1 AS k1, {values} FROM ({rows}) AS x WHERE (SELECT bool_or(hit) FROM {j})").format(
            values=listed(values), rows=below, j=sql.Identifier(beside)
        )
    keys = [
        sql.SQL("x.{below} AS {name}").format(below=sql.Identifier(one.name), name=sql.Identifier(key.name))
        for key, one in stage.keys
        if one is not None
    ]
    pairs = [
        (Column(key.name, key.type, one.not_null), key.name, one.name) for key, one in stage.keys if one is not None
    ]
    return sql.SQL(
        "SELECT {keys}, {values} FROM {j} AS j JOIN ({rows}) AS x ON {match} WHERE j.hit GROUP BY {grouped}"
    ).format(
        keys=listed(keys),
        values=listed(values),
        j=sql.Identifier(beside),
        rows=below,
        match=touching(pairs, "j", "x"),
        grouped=names(stage.aggregate.keys, "x"),
    )


def _updates(store: Store, beside: str, recomputed: str | None) -> sql.Composable:
    stage = store.stage
    new = [
        sql.SQL("{value} AS {name}").format(value=new_value(one), name=sql.Identifier(one.name)) for one in stage.rest
    ]
    old = names((f"o_{one.name}" for one in stage.rest), "j")
    again = (
        sql.SQL(" LEFT JOIN {r} AS r ON j.hit AND {match}").format(
            r=sql.Identifier(recomputed),
            match=touching(((one, one.name, one.name) for one in plain_keys(stage)), "j", "r"),
        )
        if recomputed
        else sql.SQL("")
    )
    return sql.SQL(
        "SELECT * FROM (SELECT {keys}, j.at, {old}, j.known, {new} FROM {j} AS j{again}) AS u"
        " WHERE NOT known OR {changed}"
    ).format(
        keys=listed(_shown_key(name, respelled=name in _respelled(store)) for name in stage.key_names),
        old=old,
        new=listed(new),
        j=sql.Identifier(beside),
        again=again,
        changed=differ((one.column, one.name, f"o_{one.name}") for one in stage.rest),
    )


def _respelled(store: Store) -> frozenset[str]:
    """The keys in a state table of which a change may bring an equal value that reads otherwise: ``1.0``, ``1.00``."""
    if store.target is not None:
        return frozenset()
    return frozenset(one.name for one in plain_keys(store.stage) if not one.type.has_one_image)


def _shown_key(name: str, *, respelled: bool) -> sql.Composable:
    """A group's key as it is stored, which is how it is shown: what is taken away has to be found there."""
    if not respelled:
        return sql.Identifier("j", name)
    return sql.SQL("CASE WHEN j.known THEN j.{old} ELSE j.{name} END AS {name}").format(
        old=sql.Identifier(f"o_{name}"), name=sql.Identifier(name)
    )


def plain_keys(stage: Stage) -> tuple[Column, ...]:
    return tuple(one for one in stage.key_columns if stage.hashed is None or one.name != stage.hashed.name)


def _delta(stage: Stage, updates: str) -> sql.Composable:
    keys = names(stage.key_names)
    before = listed(
        sql.SQL("{old} AS {name}").format(old=sql.Identifier(f"o_{one.name}"), name=sql.Identifier(one.name))
        for one in stage.rest
    )
    alive = sql.SQL("TRUE") if stage.is_global else sql.SQL("n <> 0")
    return sql.SQL(
        "SELECT {keys}, {before}, (-1)::bigint AS {w} FROM {u} WHERE known"
        " UNION ALL SELECT {keys}, {after}, 1::bigint FROM {u} WHERE {alive}"
    ).format(
        keys=keys,
        before=before,
        after=names(one.name for one in stage.rest),
        w=WEIGHT,
        u=sql.Identifier(updates),
        alive=alive,
    )


def _update(stage: Stage, updates: str) -> sql.Composable:
    """The new rows of groups that are there, by where they were found; an upsert would look for them, and lock them."""
    alive = sql.SQL("") if stage.is_global else sql.SQL(" AND u.n <> 0")
    return sql.SQL("UPDATE {state} AS s SET {assignments} FROM {u} AS u WHERE u.known{alive} AND {match}").format(
        state=relation(stage.state),
        assignments=assignments((one.name for one in stage.rest), "u"),
        u=sql.Identifier(updates),
        alive=alive,
        match=_found(stage),
    )


def _found(stage: Stage) -> sql.Composable:
    """Whether ``s`` is the row that the group was found in; its key is compared since the owner may have given the
    table children, whose rows have the same places.
    """
    return every([sql.SQL("s.ctid = u.at"), Store(stage).match("u")])


def _insert(stage: Stage, updates: str) -> sql.Composable:
    alive = sql.SQL("") if stage.is_global else sql.SQL(" AND n <> 0")
    return sql.SQL(
        "INSERT INTO {state} ({columns}) SELECT {columns} FROM {u} WHERE NOT known{alive}"
        " ON CONFLICT ({keys}) DO UPDATE SET {assignments}"
    ).format(
        state=relation(stage.state),
        columns=names([*stage.key_names, *(one.name for one in stage.rest)]),
        u=sql.Identifier(updates),
        alive=alive,
        keys=names(stage.key_names),
        assignments=assignments((one.name for one in stage.rest), "excluded"),
    )


def _delete(stage: Stage, updates: str) -> sql.Composable:
    return sql.SQL("DELETE FROM {state} AS s USING {u} AS u WHERE u.known AND u.n = 0 AND {match}").format(
        state=relation(stage.state), u=sql.Identifier(updates), match=_found(stage)
    )


def insert_fresh(stage: Stage, common: CommonTables) -> sql.Composable:
    """Fill an empty state table."""
    return sql.SQL("INSERT INTO {state} ({columns}) {rows}").format(
        state=relation(stage.state), columns=names(one.name for one in stage.columns), rows=fresh(stage, common)
    )
