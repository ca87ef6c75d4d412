"""The statement of a stage that stores its operator's rows (``recomputed.py``).

::

    c   the change below
    t   its keys, each once; or, where there are none, whether everything has to be computed again
    n   the operator's rows of those keys, from the new state below
    o   the stored rows of those keys
    d   n − o, consolidated: the stage's delta, which is put into the store and handed on
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from pg_trickle.algebra.aggregate import Touched
from pg_trickle.algebra.linear import Consolidate, Filter, Project
from pg_trickle.algebra.order import TopK
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Opaque, Scan
from pg_trickle.recomputed import Recomputed, restricted
from pg_trickle.render import first
from pg_trickle.render.apply import Target, apply, located
from pg_trickle.render.leaves import relation
from pg_trickle.render.netting import consolidated
from pg_trickle.render.parts import WEIGHT, distinct_keys, every, leading, listed, matches, names, row_hash
from pg_trickle.render.select import CommonTables
from pg_trickle.scalar import BOOL, Column, Scalar, composed


@dataclass(frozen=True, slots=True)
class Rows:
    """Where a stage's rows are: in its state table or, if that shows them all, in the stream table.

    ``target`` names the state's column behind each column of that table.
    """

    stage: Recomputed
    target: Target
    is_own: bool


def state_rows(stage: Recomputed) -> Rows:
    """The rows in a state table."""
    columns = tuple((name, replace(column, name=name)) for name, column in stage.columns)
    return Rows(stage, Target(relation(stage.state), columns, stage.unique), is_own=False)


def rows_in(target: Target, final: Plan, stage: Recomputed) -> Rows | None:
    """The rows in the stream table, if it shows every column of the stage and nothing else."""
    scan = final.input if isinstance(final, Project) else final
    if not isinstance(scan, Scan) or scan.table != stage.state:
        return None
    passed = {column.name: column.name for column in scan.columns}
    if isinstance(final, Project):
        passed = {item.column.name: next(iter(item.value.columns)) for item in final.items if item.value.is_column}
    state = {column.name: name for name, column in stage.columns}
    found: dict[str, tuple[str, Column]] = {}
    for name, column in target.columns:
        if column.name not in passed:
            return None
        stored = state[passed[column.name]]
        found.setdefault(stored, (name, replace(column, name=stored)))
    if found.keys() != {name for name, _ in stage.columns}:
        return None
    shown = {stored: name for stored, (name, _) in found.items()}
    key = tuple(shown[name] for name in stage.unique) if stage.unique else None
    return Rows(stage, replace(target, columns=tuple(found.values()), key=key), is_own=True)


def add_recomputed(rows: Rows, change: Plan, common: CommonTables) -> None:
    """Add the stage's WITH queries: its delta, named after the state's delta, and those that store it."""
    stage = rows.stage
    prefix = stage.state.name
    changed = common.add(f"{prefix}_c", common.select(change))
    keys = common.add(f"{prefix}_t", _keys(rows, changed))
    new = common.add(f"{prefix}_n", _new(rows, keys, changed, common))
    both = sql.SQL("SELECT {columns}{w} FROM {n} UNION ALL {old}").format(
        columns=leading(stage.column_names), w=WEIGHT, n=new, old=_old(rows, keys)
    )
    columns = tuple(replace(column, name=name) for name, column in stage.columns)
    delta = common.add(stage.state.delta_name, consolidated(columns, both))
    if not rows.is_own:
        read = sql.SQL("SELECT {columns}{w} FROM {delta}").format(
            columns=leading(stage.column_names), w=WEIGHT, delta=delta
        )
        apply(rows.target, read, common, f"{prefix}_")


def fresh(stage: Recomputed, common: CommonTables) -> sql.Composable:
    """The state as it should be, computed from scratch, in the state's columns."""
    return _as_stored(stage, common.select(stage.operator), sql.SQL(""))


def insert_fresh(stage: Recomputed, common: CommonTables) -> sql.Composable:
    """Fill an empty state table."""
    return sql.SQL("INSERT INTO {state} ({columns}) {rows}").format(
        state=relation(stage.state), columns=names(stage.column_names), rows=fresh(stage, common)
    )


def _as_stored(stage: Recomputed, rows: sql.Composable, weight: sql.Composable) -> sql.Composable:
    """The operator's rows under the state's names."""
    values = [
        sql.SQL("{value} AS {name}").format(value=sql.Identifier(column.name), name=sql.Identifier(name))
        for name, column in stage.columns
    ]
    return sql.SQL("SELECT {values}{weight} FROM ({rows}) AS q").format(values=listed(values), weight=weight, rows=rows)


def _keys(rows: Rows, changed: sql.Identifier) -> sql.Composable:
    stage = rows.stage
    if stage.touched:
        return distinct_keys(_touched_columns(stage), sql.SQL("SELECT * FROM {c}").format(c=changed))
    if _keeps_first(stage):
        return sql.SQL(
            "SELECT EXISTS (SELECT FROM {c} AS c JOIN {table} AS s ON {same} WHERE c.{w} < 0) AS again"
        ).format(c=changed, table=rows.target.table, same=_same(rows), w=WEIGHT)
    return sql.SQL("SELECT EXISTS (SELECT FROM {c}) AS again").format(c=changed)


def _touched_columns(stage: Recomputed) -> tuple[Column, ...]:
    return tuple(column for _, column in stage.columns if column.name in stage.touched)


def _same(rows: Rows) -> sql.Composable:
    """Whether a stored row may be the changed one."""
    plan_names = {name: column.name for name, column in rows.stage.columns}
    return matches(((column, plan_names[column.name], name) for name, column in rows.target.columns), "c", "s")


def _keeps_first(stage: Recomputed) -> bool:
    """Whether what came only has to compete with what is stored (the law of TopK)."""
    operator = stage.operator
    return isinstance(operator, TopK) and operator.limit is not None and operator.offset is None


def _new(rows: Rows, keys: sql.Identifier, changed: sql.Identifier, common: CommonTables) -> sql.Composable:
    stage = rows.stage
    weight = sql.SQL(", {w}").format(w=WEIGHT)
    if stage.touched:
        columns = _touched_columns(stage)
        listed_keys = sql.SQL("SELECT {keys} FROM {k}").format(keys=names(one.name for one in columns), k=keys)
        known = Opaque(listed_keys.as_string(None), columns)
        touched = restricted(stage, Touched(stage.below, known, stage.touched))
        return _as_stored(stage, common.select(touched), weight)
    again = _scalar(sql.SQL("(SELECT again FROM {k})").format(k=keys))
    whole = _as_stored(stage, common.select(_only_if(again, stage)), weight)
    if not _keeps_first(stage):
        return whole
    competing = _as_stored(stage, first.top(_top(stage), _competitors(rows, keys, changed)), weight)
    return sql.SQL("{competing} UNION ALL {whole}").format(competing=competing, whole=whole)


def _scalar(text: sql.Composable) -> Scalar:
    return composed(text, frozenset(), BOOL, not_null=True)


def _only_if(condition: Scalar, stage: Recomputed) -> Plan:
    """The operator over all rows, or nothing; the planner evaluates the condition first."""
    operator = stage.operator
    if isinstance(operator, Recompute | Recursion):
        return Filter(operator, (condition,))
    return replace(operator, input=Filter(operator.input, (condition,)))


def _top(stage: Recomputed) -> TopK:
    assert isinstance(stage.operator, TopK)
    return stage.operator


def _competitors(rows: Rows, keys: sql.Identifier, changed: sql.Identifier) -> sql.Composable:
    """What is stored and what came, unless a stored row left."""
    plan_names = {name: column.name for name, column in rows.stage.columns}
    stored = [
        sql.SQL("s.{stored} AS {name}").format(
            stored=sql.Identifier(name), name=sql.Identifier(plan_names[column.name])
        )
        for name, column in rows.target.columns
    ]
    came = [sql.Identifier("c", plan_names[column.name]) for _, column in rows.target.columns]
    return sql.SQL(
        "SELECT {stored} FROM {table} AS s WHERE NOT (SELECT again FROM {k}) UNION ALL SELECT {came} FROM {c} AS c"
        " CROSS JOIN generate_series(1, c.{w}) WHERE c.{w} > 0 AND NOT (SELECT again FROM {k})"
    ).format(stored=listed(stored), table=rows.target.table, k=keys, came=listed(came), c=changed, w=WEIGHT)


def _old(rows: Rows, keys: sql.Identifier) -> sql.Composable:
    """The stored rows of the touched keys, taken away."""
    stage, target = rows.stage, rows.target
    values = [sql.Identifier("s", name) for name in _in_state_order(rows)]
    if not stage.touched:
        where = sql.SQL("TRUE") if _keeps_first(stage) else sql.SQL("(SELECT again FROM {k})").format(k=keys)
        source = sql.SQL("{table} AS s WHERE {where}").format(table=target.table, where=where)
    else:
        source = sql.SQL("{k} AS k JOIN {table} AS s ON {match}").format(
            k=keys, table=target.table, match=_located(rows)
        )
    return sql.SQL("SELECT {values}, -1::bigint FROM {source}").format(values=listed(values), source=source)


def _in_state_order(rows: Rows) -> list[str]:
    shown = {column.name: name for name, column in rows.target.columns}
    return [shown[name] for name in rows.stage.column_names]


def _located(rows: Rows) -> sql.Composable:
    stage, target = rows.stage, rows.target
    plan_names = {name: column.name for name, column in stage.columns}
    keyed = [(name, column) for name, column in target.columns if plan_names[column.name] in stage.touched]
    if stage.unique and set(stage.unique) == {column.name for _, column in keyed}:
        return located(target, "s", "k", {name: plan_names[column.name] for name, column in keyed})
    match = matches(((column, name, plan_names[column.name]) for name, column in keyed), "s", "k")
    if stage.lookup is None:
        return match
    shown = {column.name: name for name, column in target.columns}
    hashed = sql.SQL("{s} = {k}").format(
        s=row_hash((shown[name] for name in stage.lookup), "s"),
        k=row_hash((plan_names[name] for name in stage.lookup), "k"),
    )
    return every([hashed, match])


def looked_up(rows: Rows) -> tuple[str, ...] | None:
    """The store's columns by whose hash its rows are found."""
    shown = {column.name: name for name, column in rows.target.columns}
    return None if rows.stage.lookup is None else tuple(shown[name] for name in rows.stage.lookup)


def netted(stage: Recomputed, change: Plan) -> Plan:
    """The change below as the stage wants it: rows that came and went count as nothing where rows are compared."""
    return Consolidate(change) if _keeps_first(stage) else change
