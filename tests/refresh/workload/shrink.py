"""A failing case made small: whatever isn't needed to fail is left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, NoReturn

from hypothesis import reject

from tests.refresh.workload.cases import Case, Commit, Refresh, Step, script
from tests.refresh.workload.runner import NoQuery

SECONDS = 90


def raise_small(
    case: Case,
    trouble: Exception,
    again: Callable[[Case], Exception | None],
    alike: Callable[[Exception | None], object] = type,
) -> NoReturn:
    """Tell of a small case that has the same trouble; what is no query is left alone.

    ``again`` carries a case out and says what went wrong; ``alike`` what two troubles have in common when they are one.
    """
    if isinstance(trouble, NoQuery):
        reject()
    small = _shrunk(case, lambda other: alike(again(other)) == alike(trouble))
    final = again(small)
    raise AssertionError(f"{final}\n\n{script(small)}\n") from final


def _shrunk(case: Case, fails: Callable[[Case], bool]) -> Case:
    """A case that still fails, without anything that can be left out of it; the best found in a while."""
    deadline = time.monotonic() + SECONDS
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(case):
            if time.monotonic() > deadline:
                return case
            if fails(smaller):
                case, progress = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    for place in range(len(case.streams)):
        name = case.streams[place][0]
        kept = tuple(one for one in case.streams if one[0] != name)
        if kept and not any(name in query.sql for _, query in kept):
            steps = (_without_stream(step, name) for step in case.steps)
            yield replace(case, streams=kept, steps=tuple(step for step in steps if step is not None))
    for part in ("steps", "first", "views", "tables"):
        items = getattr(case, part)
        for place in reversed(range(len(items))):
            yield replace(case, **{part: items[:place] + items[place + 1 :]})
    for place, step in enumerate(case.steps):
        for less in _less(step):
            yield replace(case, steps=(*case.steps[:place], less, *case.steps[place + 1 :]))


def _without_stream(step: Step, name: str) -> Step | None:
    if not isinstance(step, Refresh):
        return step
    names = tuple(one for one in step.names if one != name)
    return replace(step, names=names) if names else None


def _less(step: Step) -> Iterator[Step]:
    if not isinstance(step, Commit | Refresh):
        return
    for part in fields(step):
        value = getattr(step, part.name)
        if isinstance(value, tuple):
            for place in range(len(value)):
                if part.name != "names" or len(value) > 1:
                    yield _with(step, part.name, value[:place] + value[place + 1 :])
        elif part.name == "isolation" and value != "READ COMMITTED":
            yield _with(step, part.name, "READ COMMITTED")


def _with(step: Commit | Refresh, name: str, value: Any) -> Step:
    changes: dict[str, Any] = {name: value}
    return replace(step, **changes)
