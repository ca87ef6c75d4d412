"""A stage straight onto the stream table.

Every updated group is at most one old and one new row of the stream table (``store.is_direct``).  Where both are
needed they are computed side by side, so nothing has to be netted or matched up again::

    e   for each updated group: where its row is, its key (b), the row to show (a), and what to do
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.linear import Project
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Opaque, Scan
from pg_trickle.render.apply import Target, located, upsert_action
from pg_trickle.render.parts import WEIGHT, differ, every, listed, names
from pg_trickle.render.select import CommonTables
from pg_trickle.render.store import Store, passed
from pg_trickle.stages import Stage
from pg_trickle.state_columns import Role


def apply_directly(final: Plan, store: Store, target: Target, common: CommonTables) -> sql.Composable:
    """Add the WITH queries that bring the stream table up to the stage's updates; the SELECT that counts."""
    common.add("e", _images(final, store, target, common))
    places = {name: place for place, name in enumerate(target.names, 1)}
    located_there = located(target, "t", "e", {name: f"b_{places[name]}" for name in target.key or ()})
    hole = {
        "table": target.table,
        "columns": names(target.names),
        "after": names(f"a_{place}" for place in places.values()),
        "key": names(target.key or ()),
        "action": upsert_action(target),
        # Where the stream table is the state, the row has been found already.
        "match": located_there if store.target is None else every([sql.SQL("t.ctid = e.at"), located_there]),
        "assigned": listed(
            sql.SQL("{name} = e.{new}").format(name=sql.Identifier(name), new=sql.Identifier(f"a_{places[name]}"))
            for name in target.written
        ),
    }
    writing = {
        "x": sql.SQL("DELETE FROM {table} AS t USING e WHERE e.act = 'x' AND {match} RETURNING 1"),
        "y": sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {after} FROM e WHERE act = 'y'"
            " ON CONFLICT ({key}) {action} RETURNING 1"
        ),
        "z": sql.SQL("UPDATE {table} AS t SET {assigned} FROM e WHERE e.act = 'z' AND {match} RETURNING 1"),
    }
    if not target.written:
        # With nothing but its key, a row comes and goes but never changes.
        del writing["z"]
    for name, statement in writing.items():
        common.add_writing(name, statement.format(**hole))
    return _counted(store, tuple(writing))


def _images(final: Plan, store: Store, target: Target, common: CommonTables) -> sql.Composable:
    """Each updated group's row, and what is to be done: delete (x), insert (y), update (z), nothing.

    The row that was shown is computed too where it may have been hidden, or shown as it is now.
    """
    stage = store.stage
    shown = [column.name for _, column in target.columns]
    compared = store.target is None and bool(target.written)
    compares = compared or not shows_all(final)
    before = sql.SQL("b.{w} IS NOT NULL").format(w=WEIGHT) if compares else sql.SQL("u.known")
    old = (
        sql.SQL(" LEFT JOIN LATERAL ({old}) AS b ON TRUE").format(old=common.select(over_image(final, stage, "o_")))
        if compares
        else sql.SQL("")
    )
    written = ((column, column.name, column.name) for name, column in target.columns if name in target.written)
    # A row of nothing but keys comes and goes, and never changes.
    moving = sql.SQL(" WHERE ({b}) <> (a.{w} IS NOT NULL)").format(b=before, w=WEIGHT)
    return sql.SQL(
        "SELECT u.at, {keys}, {after}, CASE WHEN a.{w} IS NULL THEN CASE WHEN {before} THEN 'x' END"
        " WHEN NOT ({before}) THEN 'y' {changed} END AS act FROM {u} AS u"
        " LEFT JOIN LATERAL ({new}) AS a ON TRUE{old}{moving}"
    ).format(
        keys=_keys(final, stage, target),
        after=_numbered("a", shown),
        w=WEIGHT,
        before=before,
        changed=sql.SQL("WHEN {d} THEN 'z'").format(d=differ(written, "a", "b")) if compared else sql.SQL("ELSE 'z'"),
        u=sql.Identifier(f"{stage.state.name}_u"),
        new=common.select(over_image(final, stage, "")),
        old=old,
        moving=sql.SQL("") if target.written else moving,
    )


def shows_all(final: Plan) -> bool:
    """Whether every group that has rows is shown."""
    return isinstance(final, Scan) or (isinstance(final, Project) and shows_all(final.input))


def _keys(final: Plan, stage: Stage, target: Target) -> sql.Composed:
    """The key of the stream table, whichever image there is."""
    origin = dict(passed(final, stage))
    return listed(
        sql.SQL("u.{key} AS {name}").format(key=sql.Identifier(origin[column.name]), name=sql.Identifier(f"b_{place}"))
        for place, (name, column) in enumerate(target.columns, 1)
        if name in (target.key or ())
    )


def _counted(store: Store, written: tuple[str, ...]) -> sql.Composable:
    """The number of rows written, NULL when not all were there that should be, or there are fewer than none."""
    sane: sql.Composable = sql.SQL("")
    if store.target is not None:
        # A state table has a constraint for this.
        updates = sql.Identifier(f"{store.stage.state.name}_u")
        sane = sql.SQL(" AND NOT EXISTS (SELECT FROM {u} WHERE n < 0)").format(u=updates)
    counts = {name: sql.SQL("(SELECT count(*) FROM {w})").format(w=sql.Identifier(name)) for name in written}
    plus = sql.SQL(" + ")
    return sql.SQL("SELECT CASE WHEN {found} = (SELECT count(*) FROM e WHERE act <> 'y'){sane} THEN {all} END").format(
        found=plus.join(counts[name] for name in written if name != "y"),
        sane=sane,
        all=plus.join(counts[name] for name in written),
    )


def _numbered(image: str, shown: list[str]) -> sql.Composed:
    return listed(
        sql.SQL("{value} AS {name}").format(value=sql.Identifier(image, name), name=sql.Identifier(f"{image}_{place}"))
        for place, name in enumerate(shown, 1)
    )


def over_image(plan: Plan, stage: Stage, prefix: str) -> Plan:
    """The final plan over one image of an updated group ``u`` instead of the state table: the old one has a prefix."""
    if not isinstance(plan, Scan):
        return plan.over(lambda below: over_image(below, stage, prefix))
    values = listed(
        sql.SQL("u.{name}").format(name=sql.Identifier(_image(field.attribute, stage, prefix))) for field in plan.fields
    )
    there = sql.SQL("u.known") if prefix else sql.SQL("u.n <> 0")
    text = sql.SQL("SELECT {values} WHERE {there}").format(values=values, there=there)
    return Opaque(text.as_string(None), plan.columns)


def _image(attribute: str, stage: Stage, prefix: str) -> str:
    role = next(one.role for one in stage.columns if one.name == attribute)
    return attribute if role in {Role.KEY, Role.HASH} else f"{prefix}{attribute}"
