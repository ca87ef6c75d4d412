"""A stage straight onto the stream table.

Where the final plan only filters and computes columns of one stage's state, and the stream table is keyed
like it, every updated group is at most one old and one new row.  Both are computed side by side, so
nothing needs to be netted or matched up again::

    e   for each updated group: the row that was shown (b) and the row to show (a)
"""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Opaque, Scan
from pg_trickle.render.apply import Target, counted, located, upsert_action
from pg_trickle.render.parts import WEIGHT, listed, names
from pg_trickle.render.select import CommonTables
from pg_trickle.stages import Role, Stage


def is_direct(final: Plan, stage: Stage, target: Target) -> bool:
    """Whether the final plan shows each row of the stage's state at most once, under the state's own key."""
    if target.key is None or stage.is_global:
        return False
    origin = _origin(final, stage)
    keys = {key.name for key, _ in stage.keys}
    shown = [origin.get(column.name) for name, column in target.columns if name in target.key]
    return len(shown) == len(keys) and set(shown) == keys


def _origin(plan: Plan, stage: Stage) -> dict[str, str]:
    """The plan's columns that are columns of the state, passed through."""
    if isinstance(plan, Scan):
        return {field.column.name: field.attribute for field in plan.fields} if plan.table == stage.state else {}
    if isinstance(plan, Filter):
        return _origin(plan.input, stage)
    if isinstance(plan, Project):
        below = _origin(plan.input, stage)
        passed = [(item.column.name, next(iter(item.value.columns))) for item in plan.items if item.value.is_column]
        return {name: below[source] for name, source in passed if source in below}
    return {}


def apply_directly(final: Plan, stage: Stage, target: Target, common: CommonTables) -> sql.Composable:
    """Add the WITH queries that bring the stream table up to the stage's updates; the SELECT that counts."""
    assert target.key is not None
    shown = [column.name for _, column in target.columns]
    places = range(1, len(shown) + 1)
    common.add(
        "e",
        sql.SQL(
            "SELECT {before}, b.{w} AS b, {after}, a.{w} AS a FROM {u} AS u"
            " LEFT JOIN LATERAL ({old}) AS b ON TRUE LEFT JOIN LATERAL ({new}) AS a ON TRUE"
        ).format(
            before=_numbered("b", shown),
            after=_numbered("a", shown),
            w=WEIGHT,
            u=sql.Identifier(f"{stage.state.name}_u"),
            old=common.select(_over(final, stage, "o_")),
            new=common.select(_over(final, stage, "")),
        ),
    )
    by_name = {name: f"b_{place}" for place, (name, _) in zip(places, target.columns, strict=True)}
    common.add_writing(
        "x",
        sql.SQL(
            "DELETE FROM {table} AS t USING e WHERE e.b IS NOT NULL AND e.a IS NULL AND {match} RETURNING 1"
        ).format(table=target.table, match=located(target, "t", "e", by_name)),
    )
    common.add_writing(
        "y",
        sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {after} FROM e"
            " WHERE a IS NOT NULL AND (b IS NULL OR ROW({after})::record *<> ROW({before})::record)"
            " ORDER BY {key} ON CONFLICT ({conflict}) {action} RETURNING 1"
        ).format(
            table=target.table,
            columns=names(target.names),
            after=names(f"a_{place}" for place in places),
            before=names(f"b_{place}" for place in places),
            key=names(
                f"a_{place}" for place, (name, _) in zip(places, target.columns, strict=True) if name in target.key
            ),
            conflict=names(target.key),
            action=upsert_action(target),
        ),
    )
    return counted(sql.SQL("(SELECT count(*) FROM e WHERE b IS NOT NULL AND a IS NULL)"))


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
