"""Where a stage's state is kept.

Where the final plan only filters and computes columns of one stage's state, and the stream table is keyed
like it, each group is at most one row of the stream table.  Where it filters nothing and every stored
column can be read back from what is shown, a state table would hold the same rows once more: then the
stream table itself is the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Scan
from pg_trickle.recomputed import Recomputed
from pg_trickle.render.apply import Target, located
from pg_trickle.render.leaves import relation
from pg_trickle.render.parts import matches
from pg_trickle.scalar import Scalar
from pg_trickle.stages import AnyStage, Stage
from pg_trickle.state_columns import SHOWN_SUM, Role, StateColumn


@dataclass(frozen=True, slots=True)
class Store:
    """The place of a stage's state: its state table or, given a target, the stream table.

    ``shown`` pairs each column of the state with the stream table's column that tells it.
    """

    stage: Stage
    target: Target | None = None
    shown: tuple[tuple[str, str], ...] = ()

    @property
    def table(self) -> sql.Composable:
        return relation(self.stage.state) if self.target is None else self.target.table

    def stored(self, one: StateColumn) -> sql.Composable:
        """The stored value, in the row ``s`` of the store."""
        if self.target is None:
            return sql.Identifier("s", one.name)
        value = sql.Identifier("s", dict(self.shown)[one.name])
        # A sum of nothing shows as NULL.
        return sql.SQL("coalesce({v}, 0)").format(v=value) if one.role is Role.SUM else value

    def match(self, rows: str) -> sql.Composable:
        """Which row ``s`` of the store is of the same group as one of ``rows``."""
        if self.target is None:
            return matches(((one, one.name, one.name) for one in self.stage.key_columns), rows, "s")
        names = {column: state for state, column in self.shown}
        return located(self.target, "s", rows, names)


def is_direct(final: Plan, stage: AnyStage, target: Target) -> bool:
    """Whether the final plan shows each group of the stage's state at most once, under the state's own key."""
    if isinstance(stage, Recomputed) or target.key is None or stage.is_global:
        return False
    origin = dict(passed(final, stage))
    keys = {key.name for key, _ in stage.keys}
    shown = [origin.get(column.name) for name, column in target.columns if name in target.key]
    return len(shown) == len(keys) and set(shown) == keys


def store_in(target: Target, final: Plan, stages: tuple[AnyStage, ...]) -> Store | None:
    """The last stage's state in the stream table, if that shows all of it.

    Not above a stage that stores rows: which of several rows are first is a free choice, and the query, which then
    fills the stream table, might choose otherwise than the state did.
    """
    if not stages or not is_direct(final, stages[-1], target) or not isinstance(final, Project):
        return None
    stage = stages[-1]
    if isinstance(stage, Recomputed) or any(isinstance(one, Recomputed) for one in stages):
        return None
    found: dict[str, str] = {}
    # A key that is shown twice is looked up where the index is.
    for name, state in sorted(
        shown_by(target, final, stage).items(), key=lambda pair: pair[0] not in (target.key or ())
    ):
        found.setdefault(state, name)
    needed = {key.name for key, _ in stage.keys} | {one.name for one in stage.rest}
    return Store(stage, target, tuple(found.items())) if needed <= found.keys() else None


def shown_by(target: Target, final: Project, stage: Stage) -> dict[str, str]:
    """The columns of the target that tell a column of the state each, when the plan only projects the state."""
    scan = final.input
    if not isinstance(scan, Scan):
        return {}
    attributes = {field.attribute: field.column.name for field in scan.fields}
    sums = {
        SHOWN_SUM.format(
            count=sql.Identifier(attributes[count.name]), sum=sql.Identifier(attributes[one.name])
        ).as_string(None): one.name
        for one in stage.rest
        if one.role is Role.SUM
        for count in stage.rest
        if count.role in {Role.ROWS, Role.COUNT}
    }
    plain = {sql.Identifier(name).as_string(None): attribute for attribute, name in attributes.items()}
    by_name = {column.name: name for name, column in target.columns}
    found: dict[str, str] = {}
    for item in final.items:
        state = plain.get(item.value.text) or sums.get(item.value.text)
        if state is not None and item.column.name in by_name:
            found[by_name[item.column.name]] = state
    return found


def passed(plan: Plan, stage: Stage) -> Iterator[tuple[str, str]]:
    """The plan's columns that are columns of the state, passed through."""
    if isinstance(plan, Scan) and plan.table == stage.state:
        yield from ((field.column.name, field.attribute) for field in plan.fields)
    elif isinstance(plan, Filter):
        yield from passed(plan.input, stage)
    elif isinstance(plan, Project):
        below = dict(passed(plan.input, stage))
        for item in plan.items:
            if item.value.is_column and (source := _only(item.value)) in below:
                yield item.column.name, below[source]


def _only(value: Scalar) -> str:
    return next(iter(value.columns))
