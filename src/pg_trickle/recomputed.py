"""The stage of an operator that keeps no counters: its output rows, recomputed for touched keys (ALGEBRA.md §6).

::

    K   the keys that occur in the change below; without keys there is one key, that of all rows
    Δ   the operator over what is below, restricted to K  −  the stored rows of K

Old rows are read from the store, never reconstructed, and rows that come out as they were are never written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Recursion, sought
from pg_trickle.algebra.source import Field, Scan, State
from pg_trickle.algebra.window import Window
from pg_trickle.scalar import Column, Identity
from pg_trickle.uniqueness import indexed_keys

RecomputedOperator = Window | DistinctOn | TopK | Recompute | Recursion


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A state table, the operator whose rows it stores, and the column of each of its columns.

    ``columns`` pairs the state's columns with the operator's; ``touched`` names the operator's columns by which a
    change says which rows it touches; ``unique`` names state columns that are unique together, if any are.
    """

    state: State
    operator: RecomputedOperator
    columns: tuple[tuple[str, Column], ...]
    touched: tuple[str, ...]
    unique: tuple[str, ...] | None

    @property
    def below(self) -> Plan:
        """What the stage is maintained from."""
        return self.operator.derived if isinstance(self.operator, Recursion) else self.operator.input

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    @property
    def lookup(self) -> tuple[str, ...] | None:
        """The state's columns by whose hash stored rows are found; None where the unique key finds them."""
        names = tuple(name for name, column in self.columns if column.name in self.touched)
        hashable = all(column.type.hashable for _, column in self.columns if column.name in self.touched)
        return names if names and hashable and set(names) != set(self.unique or ()) else None

    @property
    def sought(self) -> tuple[str, ...]:
        """The state's columns, each by itself, by which a recursion's step finds stored rows."""
        if not isinstance(self.operator, Recursion):
            return ()
        wanted = set(sought(self.operator.step, self.operator.name))
        pairs = zip(self.column_names, self.operator.found.columns, strict=True)
        return tuple(name for name, one in pairs if one.name in wanted and one.type.name and one.type.hashable)


def recomputed(operator: RecomputedOperator, state: State) -> tuple[Recomputed, Plan]:
    """The stage of an operator, and the scan of its state that stands for it."""
    columns = tuple((f"c{place}", column) for place, column in enumerate(operator.columns, 1))
    by_plan_name = {column.name: name for name, column in columns}
    # The key that says which rows are touched finds them too, and whoever joins by it.
    found, shared = indexed_keys(operator), frozenset(_keys(operator))
    key = shared if shared in found else next(iter(found), frozenset())
    stage = Recomputed(
        state,
        operator,
        columns,
        tuple(name for name in _keys(operator) if _is_certain(dict(by_name(operator))[name])),
        tuple(by_plan_name[name] for name in by_plan_name if name in key) or None,
    )
    fields = tuple(Field(column, name, name) for name, column in columns)
    return stage, Scan(state, fields, (tuple(key),) if key else ())


def by_name(plan: Plan) -> tuple[tuple[str, Column], ...]:
    """The plan's columns with their names."""
    return tuple((column.name, column) for column in plan.columns)


def _keys(operator: RecomputedOperator) -> tuple[str, ...]:
    return operator.keys if isinstance(operator, Window | DistinctOn) else ()


def _is_certain(column: Column) -> bool:
    """Whether it is known how values are equal: a key that isn't is left out, and more rows are touched."""
    return column.type.identity is not Identity.NONE


def restricted(stage: Recomputed, rows: Plan) -> Plan:
    """The operator over other rows than those below."""
    assert not isinstance(stage.operator, Recursion)
    return replace(stage.operator, input=rows)
