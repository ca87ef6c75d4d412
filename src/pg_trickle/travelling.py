"""The deltas of states that a later statement reads than the one that makes them, and what of them travels there.

Who asks for some groups only (``HAVING sum(x) > 300``) filters the change of the state, ``Δσ(S) = σ(ΔS)``.  Where all
that later statements read of it goes through one filter, no more is set on its way: ``σ(σ(ΔS)) = σ(ΔS)``.  Of thousands
of groups that a change touches mostly few pass, and the planner, which knows a delta table by its size, sees that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psycopg import sql

from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.source import Changes, Opaque, State
from pg_trickle.render.parts import CHANGES_SCHEMA, WEIGHT, names
from pg_trickle.render.select import CommonTables

Travelling = dict[State, Filter | None]
"""The states whose deltas travel, and the filter through which all readers see them, if it is one."""


def travelling(statements: Iterable[tuple[Iterable[State], tuple[Plan, ...]]]) -> Travelling:
    """What has to travel between statements, given for each the states whose delta it makes and the plans it reads."""
    earlier: set[State] = set()
    read: dict[State, list[Plan]] = {}
    for made, plans in statements:
        for state in earlier:
            if found := list(_read_of(plans, state)):
                read.setdefault(state, []).extend(found)
        earlier.update(made)
    return {state: _only(found) for state, found in read.items()}


def set_out(state: State, columns: tuple[str, ...], through: Filter | None, common: CommonTables) -> sql.Composable:
    """The INSERT of what travels, out of the WITH query that holds the state's delta."""
    row = sql.SQL("") if through is None else _lateral(through, common)
    return sql.SQL("INSERT INTO {table} ({c}, {w}) SELECT {values}, d.{w} FROM {delta} AS d{row}").format(
        table=sql.Identifier(CHANGES_SCHEMA, state.delta_name),
        c=names(columns),
        values=names(columns, "d"),
        w=WEIGHT,
        delta=sql.Identifier(state.delta_name),
        row=row,
    )


def _read_of(plans: Iterable[Plan], state: State) -> Iterator[Plan]:
    """What plans read of a state's delta: the filters right above it, or all of it."""
    seen: set[int] = set()
    pending = list(plans)
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if (isinstance(node, Filter) and _is_row_by_row(node, state)) or _is_delta(node, state):
            yield node
        else:
            pending.extend(inputs(node))


def _is_delta(plan: Plan, state: State) -> bool:
    return isinstance(plan, Changes) and plan.table == state


def _is_row_by_row(plan: Plan, state: State) -> bool:
    """Whether a plan filters a state's delta and computes columns of it, and does nothing else."""
    match plan:
        case Filter(below) | Project(below):
            return _is_row_by_row(below, state)
        case _:
            return _is_delta(plan, state)


def _only(found: list[Plan]) -> Filter | None:
    """The filter that all are, if they are one."""
    first, *others = found
    return first if isinstance(first, Filter) and all(one == first for one in others) else None


def _lateral(through: Filter, common: CommonTables) -> sql.Composable:
    return sql.SQL(" CROSS JOIN LATERAL ({row}) AS k").format(row=common.select(_over_row(through)))


def _over_row(plan: Plan) -> Plan:
    """The plan over the single row ``d`` in place of the delta."""
    if not isinstance(plan, Changes):
        return plan.over(_over_row)
    values = names((field.attribute for field in plan.fields), "d")
    return Opaque(sql.SQL("SELECT {values}").format(values=values).as_string(None), plan.columns)
