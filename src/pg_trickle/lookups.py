"""What rows of a table are looked up by, so that a change costs the rows that it meets and not the table.

A user is asked for the indexes of his tables (``explain``); those of states are the engine's to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.origins import origins
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, distinct, names
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Scan, Source, State
from pg_trickle.algebra.timed import TimedColumn, TimedFilter
from pg_trickle.recomputed import Recomputed
from pg_trickle.scalar import Scalar, Type, are_compared_as_row
from pg_trickle.stages import AnyStage, Stage
from pg_trickle.state_columns import Role


@dataclass(frozen=True, slots=True)
class Lookup:
    """Columns of a table by whose values, all of them, rows of it are found; ``why`` is in the plan's columns.

    ``as_row``: with NULLs, or values that only records compare, so the statement also says that their hashes are equal.
    """

    table: Source | State
    columns: tuple[str, ...]
    why: str
    as_row: bool = False


@dataclass(frozen=True, slots=True)
class StateIndex:
    """An index over columns of a state.

    ``method``: ``btree``, or ``hash`` where a value may be too wide for that, or ``row``: over the hash of the row.
    """

    columns: tuple[str, ...]
    method: str

    def to_json(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "method": self.method}


def lookups(stages: tuple[AnyStage, ...], final: Plan) -> tuple[Lookup, ...]:
    """All that stages and the plan over them look up; where fewer of the columns are looked up as well, only these."""
    found = [
        one
        for plan in (final, *(stage.below for stage in stages))
        for node in distinct(plan)
        for one in _of_operator(node)
    ]
    found += [one for stage in stages for one in _of_groups(stage)]
    first: dict[tuple[Source | State, frozenset[str], bool], Lookup] = {}
    for one in found:
        first.setdefault((one.table, frozenset(one.columns), one.as_row), one)
    return tuple(
        one
        for (table, columns, as_row), one in first.items()
        if not any(other == table and as_row == also and fewer < columns for other, fewer, also in first)
    )


def state_indexes(stage: AnyStage, wanted: Iterable[Lookup]) -> tuple[StateIndex, ...]:
    """The indexes that a stage's state needs beside those by which it is written."""
    if isinstance(stage, Stage):
        columns = {one.name: one.type for one in stage.columns}
        # Groups keep their keys, and so the index as it is, whatever becomes of what they show.
        lasting = {one.name for one in stage.columns if one.role is Role.KEY}
        keys: tuple[str, ...] = stage.key_names
        sought: list[tuple[str, ...]] = []
        rows: tuple[str, ...] | None = None
    else:
        columns = {name: column.type for name, column in stage.columns}
        lasting, keys, rows = set(), stage.unique or (), stage.lookup
        sought = [(name,) for name in stage.sought]
    made: list[StateIndex | None] = []
    for one in wanted:
        if one.table == stage.state and one.as_row:
            made += [StateIndex(one.columns, "row")] if one.columns != rows else []
        elif one.table == stage.state:
            sought.append(tuple(name for name in one.columns if name in lasting) or one.columns)
    made += [_index({name: columns[name] for name in one}) for one in sought if not _is_keyed(frozenset(one), keys)]
    return tuple(dict.fromkeys(one for one in made if one is not None))


def _is_keyed(columns: frozenset[str], keys: tuple[str, ...]) -> bool:
    """Whether the unique index leads to rows with these values."""
    return bool(keys) and (columns == set(keys[: len(columns)]) or columns >= set(keys))


def _index(columns: dict[str, Type]) -> StateIndex | None:
    narrow = tuple(name for name, of in columns.items() if of.is_narrow)
    if narrow:
        return StateIndex(narrow, "btree")
    hashable = [name for name, of in columns.items() if of.name is not None and of.hashable]
    return StateIndex((hashable[0],), "hash") if hashable else None


def _of_operator(node: Plan) -> Iterator[Lookup]:
    match node:
        case Join(left, right, on) | LeftJoin(left, right, on) | FullJoin(left, right, on) | Mark(left, right, on):
            equated = [one for one in on if one.equates]
            for side in (left, right):
                own = frozenset(names(side))
                pairs = [(name, one.text) for one in equated for name in one.equates or () if name in own]
                yield from _by_table(side, pairs, "join condition")
            if isinstance(node, Mark) and not equated:
                yield from _by_comparison(left, on)
        case TimedFilter(below, timed) | TimedColumn(below, timed):
            for name in sorted(timed.near.columns if timed.near else ()):
                yield from _by_table(below, [(name, timed.now.text)], "condition on time")
        case _:
            return


def _by_comparison(left: Plan, on: tuple[Scalar, ...]) -> Iterator[Lookup]:
    """What rows are found by when the value moves that all are compared with."""
    for one in on:
        for name in one.compares or ():
            if name in names(left):
                yield from _by_table(left, [(name, one.text)], "comparison")


def _of_groups(stage: AnyStage) -> Iterator[Lookup]:
    """What the rows of touched groups and partitions are found by, where they are read again."""
    match stage:
        case Stage() if stage.recomputed:
            keys, reason = stage.aggregate.keys, "group key"
        case Recomputed() if not isinstance(stage.operator, Recursion):
            keys, reason = stage.touched, "partition key"
        case _:
            return
    found = list(_by_table(stage.below, [(name, name) for name in keys], reason))
    of = {one.name: one for one in stage.below.columns}
    if len(found) == 1 and len(found[0].columns) == len(keys) and are_compared_as_row(of[name] for name in keys):
        yield replace(found[0], as_row=isinstance(found[0].table, State))
    else:
        yield from found


def _by_table(plan: Plan, sought: list[tuple[str, str]], reason: str) -> Iterator[Lookup]:
    """Columns of a plan, each with what is said of it, by the tables that they are of."""
    tables: dict[Scan, dict[str, str]] = {}
    for name, text in sought:
        for scan, attribute in origins(plan, name):
            tables.setdefault(scan, {}).setdefault(attribute, text)
    for scan, columns in tables.items():
        yield Lookup(scan.table, tuple(columns), f"{reason} {', '.join(dict.fromkeys(columns.values()))}")
