"""Projections on projections as one: less to plan, and SQL that reads better."""

from __future__ import annotations

from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan, names


def collapsed(plan: Plan) -> Plan:
    """The plan without projections that merely pick or rename columns: ``π(π(R)) = π(R)``."""
    below = plan.over(collapsed)
    if not isinstance(below, Project) or not all(item.value.is_column for item in below.items):
        return below
    picked = [next(iter(item.value.columns)) for item in below.items]
    if isinstance(below.input, Project):
        made = {item.column.name: item.value for item in below.input.items}
        items = (Item(item.column, made[name]) for item, name in zip(below.items, picked, strict=True))
        return collapsed(Project(below.input.input, tuple(items)))
    kinds = [(one.name, one.type) for one in below.columns]
    if kinds == [(one.name, one.type) for one in below.input.columns] and list(names(below)) == picked:
        return below.input
    return below
