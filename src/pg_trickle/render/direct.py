"""A stage straight onto the stream table.

Every updated group is at most one old and one new row of the stream table (``store.is_direct``).  Both are
computed side by side, so nothing needs to be netted or matched up again::

    e   for each updated group: the row that was shown (b) and the row to show (a)
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Opaque, Scan
from pg_trickle.render.apply import Target, located, upsert_action
from pg_trickle.render.parts import WEIGHT, listed, names
from pg_trickle.render.select import CommonTables
from pg_trickle.render.store import Store
from pg_trickle.stages import Role, Stage


def apply_directly(final: Plan, store: Store, target: Target, common: CommonTables) -> sql.Composable:
    """Add the WITH queries that bring the stream table up to the stage's updates; the SELECT that counts."""
    common.add("e", _images(final, store.stage, target, common))
    places = {name: place for place, name in enumerate(target.names, 1)}
    hole = {
        "table": target.table,
        "columns": names(target.names),
        "after": names(f"a_{place}" for place in places.values()),
        "key": names(target.key or ()),
        "action": upsert_action(target),
        "match": located(target, "t", "e", {name: f"b_{place}" for name, place in places.items()}),
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


def _images(final: Plan, stage: Stage, target: Target, common: CommonTables) -> sql.Composable:
    """Both images of each updated group's row, and what is to be done: delete (x), insert (y), update (z), nothing."""
    shown = [column.name for _, column in target.columns]
    return sql.SQL(
        "SELECT {before}, {after}, CASE WHEN a.{w} IS NULL THEN CASE WHEN b.{w} IS NOT NULL THEN 'x' END"
        " WHEN b.{w} IS NULL THEN 'y' WHEN ROW({a})::record *<> ROW({b})::record THEN 'z' END AS act FROM {u} AS u"
        " LEFT JOIN LATERAL ({old}) AS b ON TRUE LEFT JOIN LATERAL ({new}) AS a ON TRUE ORDER BY {keys}"
    ).format(
        before=_numbered("b", shown),
        after=_numbered("a", shown),
        w=WEIGHT,
        a=names(shown, "a"),
        b=names(shown, "b"),
        u=sql.Identifier(f"{stage.state.name}_u"),
        old=common.select(_over(final, stage, "o_")),
        new=common.select(_over(final, stage, "")),
        # The join above may have mixed them up.
        keys=names(stage.key_names, "u"),
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


def _over(plan: Plan, stage: Stage, prefix: str) -> Plan:
    """The final plan over one image of an updated group instead of the state table."""
    if not isinstance(plan, Scan):
        return plan.over(lambda below: _over(below, stage, prefix))
    values = listed(
        sql.SQL("u.{name}").format(name=sql.Identifier(_image(field.attribute, stage, prefix))) for field in plan.fields
    )
    there = sql.SQL("u.known") if prefix else sql.SQL("u.n <> 0")
    text = sql.SQL("SELECT {values} WHERE {there}").format(values=values, there=there)
    return Opaque(text.as_string(None), plan.columns)


def _image(attribute: str, stage: Stage, prefix: str) -> str:
    role = next(one.role for one in stage.columns if one.name == attribute)
    return attribute if role in {Role.KEY, Role.HASH} else f"{prefix}{attribute}"
