"""Rows of a window that the query throws away: they aren't stored, nor compared at each refresh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.plan import Plan, inputs, names
from pg_trickle.algebra.window import Window


def kept_alone(plan: Plan) -> Plan:
    """The plan with each filter over a window as part of it: of the first three of each group three are stored.

    Without it a row that comes in at the top of a group of a thousand has a thousand stored rows renumbered.  What only
    the filter reads isn't stored either, but for one column where nothing is left: SQL inserts no rows without any.
    Not where the window stands in the plan several times: it is one stage.
    """
    times = Counter(_windows(plan))

    def descend(part: Plan) -> Plan:
        match part:
            case Project(Filter(Window() as window, conditions), items) if times[window] == 1:
                read = {name for item in items for name in item.value.columns}
                shown = read | frozenset(window.keys) or {window.calls[0].column.name}
                unshown = frozenset(names(window)) - shown
                return replace(part, input=replace(window.over(descend), kept=conditions, unshown=unshown))
            case Filter(Window() as window, conditions) if times[window] == 1:
                return replace(window.over(descend), kept=conditions)
            case _:
                return part.over(descend)

    return descend(plan)


def _windows(plan: Plan) -> Iterator[Window]:
    if isinstance(plan, Window):
        yield plan
    for below in inputs(plan):
        yield from _windows(below)
