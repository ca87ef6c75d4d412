"""Where the columns of a plan come from."""

from __future__ import annotations

from collections.abc import Iterator

from pg_trickle.algebra.linear import Project, UnionAll
from pg_trickle.algebra.plan import Plan, inputs, names
from pg_trickle.algebra.source import Scan, State


def origins(plan: Plan, name: str) -> Iterator[tuple[Scan, str]]:
    """The columns of tables that a column of a plan shows as they are."""
    match plan:
        case Scan(_, fields):
            yield from ((plan, field.attribute) for field in fields if field.column.name == name)
        case Project(below, items):
            value = next(item.value for item in items if item.column.name == name)
            yield from origins(below, next(iter(value.columns))) if value.is_column else ()
        case UnionAll(left, right):
            yield from origins(left, name)
            yield from origins(right, names(right)[names(plan).index(name)])
        case _:
            for below in inputs(plan):
                if name in names(below):
                    yield from origins(below, name)


def is_indexed(plan: Plan, name: str) -> bool:
    """Whether an index leads to the rows with a value of a column; states have those that they need."""
    found = list(origins(plan, name))
    return bool(found) and all(
        isinstance(scan.table, State) or attribute in scan.table.indexed for scan, attribute in found
    )
