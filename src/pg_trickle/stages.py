"""Cutting a plan at its stateful operators (ALGEBRA.md §6).

An Aggregate becomes a **stage**: a state table that stores, for each group, counters from which the
aggregates can be computed, maintained from the delta of what is below.  Above the cut the
aggregate is a projection of a scan of that state, so a query is a short list of stages and a
final plan that is linear or bilinear throughout.  Operators without counters store their output
rows instead (``recomputed.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Field, Scan, State
from pg_trickle.algebra.window import Window
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.recomputed import Recomputed, recomputed
from pg_trickle.scalar import INT4, INT8, Column, column
from pg_trickle.state_columns import Layout, Role, StateColumn, output_of
from pg_trickle.uniqueness import INDEX_COLUMNS

TABLE_COLUMNS = 1600
"""As many columns a table of PostgreSQL's has at most."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A state table, the aggregation it stores, and its columns.

    ``keys`` pairs the state's key columns with the grouping columns below; without grouping columns
    there is one key that is always 1, and its row never goes away.
    """

    state: State
    aggregate: Aggregate
    keys: tuple[tuple[StateColumn, Column | None], ...]
    hashed: StateColumn | None
    rest: tuple[StateColumn, ...]

    @property
    def below(self) -> Plan:
        """What the stage is maintained from."""
        return self.aggregate.input

    @property
    def is_global(self) -> bool:
        return not self.aggregate.keys

    @property
    def columns(self) -> tuple[StateColumn, ...]:
        hashed = () if self.hashed is None else (self.hashed,)
        return hashed + tuple(key for key, _ in self.keys) + self.rest

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.columns)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The columns of the unique index, in its order."""
        hashed = () if self.hashed is None else (self.hashed.name,)
        return hashed + tuple(key.name for key, _ in self.keys)

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The same, with their types."""
        hashed = () if self.hashed is None else (self.hashed.column,)
        keys = tuple(replace(key.column, not_null=below is None or below.not_null) for key, below in self.keys)
        return hashed + keys

    @property
    def recomputed(self) -> tuple[StateColumn, ...]:
        """The columns that need their group read again, always or when an extremum went."""
        return tuple(one for one in self.rest if one.is_extremum or one.role is Role.VALUE)


AnyStage = Stage | Recomputed


def cut(plan: Plan, identifier: int) -> tuple[tuple[AnyStage, ...], Plan]:
    """The stages of a plan, inner ones first, and the plan over them.  Equal operators share a stage."""
    stages: list[AnyStage] = []
    outputs: dict[Plan, Plan] = {}

    def descend(part: Plan) -> Plan:
        below = part.over(descend)
        if not isinstance(below, Aggregate | Window | DistinctOn | TopK | Recompute | Recursion):
            return below
        if below not in outputs:
            state = State(f"state_{identifier}_{len(stages) + 1}")
            stage, outputs[below] = _stage(below, state) if isinstance(below, Aggregate) else recomputed(below, state)
            stages.append(stage)
        return outputs[below]

    final = descend(plan)
    _check_columns(stages)
    return tuple(stages), final


def _check_columns(stages: list[AnyStage]) -> None:
    """Refuse to store what no table can hold."""
    for stage in stages:
        plan = stage.operator if isinstance(stage, Recomputed) else stage.aggregate
        if isinstance(stage, Stage) and len(stage.key_names) > INDEX_COLUMNS:
            raise UnsupportedQuery(
                f"grouping by {len(stage.keys)} columns",
                f"its groups are found by a unique index, which has no more than {INDEX_COLUMNS} columns.",
                hint="Group by a key, and join what it determines; or gather columns in an array.",
            )
        if len(stage.column_names) > TABLE_COLUMNS:
            raise UnsupportedQuery(
                f"a result of {len(plan.columns)} columns",
                f"what is kept for it takes {len(stage.column_names)}, and a table has no more than {TABLE_COLUMNS}.",
                hint="Make several stream tables of fewer columns.",
            )
        rows = {one.name for below in inputs(plan) for one in below.columns if one.type.is_row}
        made = [(one.column, one.value) for one in plan.calls] if isinstance(plan, Aggregate | Window) else []
        # What an aggregate makes of rows may be rows.
        unknown = any(value.columns & rows and column.type.name is None for column, value in made)
        if unknown or any(one.type.is_row for one in plan.columns):
            raise UnsupportedQuery(
                "rows without a type",
                "no state can store them.",
                hint="Cast them to text, or use the columns that they are made of.",
            )
        keys = plan.keys if isinstance(plan, Aggregate | Window | DistinctOn) else ()
        if any(one.type.grouped.unsorted for below in inputs(plan) for one in below.columns if one.name in keys):
            raise UnsupportedQuery(
                "grouping by a type without an order",
                "no index can hold its values.",
                hint="Group by its text, or by what it is made of.",
            )


def _stage(aggregate: Aggregate, state: State) -> tuple[Stage, Plan]:
    below = {one.name: one for one in aggregate.input.columns}
    grouped = [below[key] for key in aggregate.keys]
    keys: tuple[tuple[StateColumn, Column | None], ...] = tuple(
        (StateColumn(f"k{place}", Role.KEY, one.type.by_value), one) for place, one in enumerate(grouped, 1)
    ) or ((StateColumn("k1", Role.KEY, INT4), None),)
    layout = Layout({})
    layout.need(Role.ROWS)
    outputs = [output_of(call, layout, below) for call in aggregate.calls]
    stage = Stage(state, aggregate, keys, _hash(grouped), tuple(layout.columns.values()))
    fields = tuple(
        Field(Column(f"{state.name}_{one.name}", one.type, one.column.not_null), one.name, one.name)
        for one in stage.columns
    )
    named = {field.attribute: field.column for field in fields}
    items = [
        Item(replace(source, type=key.type), column(Column(named[key.name].name, key.type, source.not_null)))
        for key, source in keys
        if source is not None
    ]
    items += [Item(call.column, output.over(named)) for call, output in zip(aggregate.calls, outputs, strict=True)]
    scan = Scan(state, fields, _keys(stage, named))
    return stage, Project(scan, tuple(items))


def _keys(stage: Stage, named: dict[str, Column]) -> tuple[tuple[str, ...], ...]:
    """What tells the state's rows apart: the keys, each as it is stored or as it reads in a row that is there."""
    shown = {one.value.text: one.name for one in stage.rest if one.role is Role.VALUE and one.value is not None}
    alike = [
        [key.name, *([] if below is None or (name := shown.get(column(below).text)) is None else [name])]
        for key, below in stage.keys
    ]
    return tuple(tuple(named[name].name for name in choice) for choice in product(*alike))


def _hash(grouped: list[Column]) -> StateColumn | None:
    """A hash in front of the key, when no plain comparison of the key could use an index.

    One nullable column can be looked up by two index scans; several, or types that need
    comparison of records, can't.
    """
    loose = any(not one.not_null for one in grouped) and len(grouped) > 1
    foreign = any(one.type.name is None for one in grouped)
    if (loose or foreign) and all(one.type.hashable for one in grouped):
        return StateColumn("h", Role.HASH, INT8)
    return None
