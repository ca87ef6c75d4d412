"""Stages that recompute what a change touches, told to people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pg_trickle.algebra.order import DistinctOn, Order, TopK
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Unwatched
from pg_trickle.algebra.window import Window
from pg_trickle.recomputed import Recomputed
from pg_trickle.rewrite.selections import is_selection

NAMES = {
    Window: "window",
    DistinctOn: "choice of first rows",
    TopK: "choice of first rows",
    Recompute: "query",
    Recursion: "recursion",
}
_EVERYTHING = "recomputed and diffed: only rows that differ are written"
_SEMI_NAIVE = "semi-naive: what came is followed; what lost a way is taken out with what follows, and derived again"


def line(stage: Recomputed, shown: Callable[[str], str]) -> dict[str, Any]:
    """The operator, what it holds, and the rule that maintains it; ``shown`` makes plan columns readable."""
    name, detail, rule = _described(stage)
    return {"operator": name, "detail": f"{shown(detail)}, state {stage.state.name}".lstrip(", "), "rule": rule}


def _described(stage: Recomputed) -> tuple[str, str, str]:
    by = ", ".join(stage.touched)
    match stage.operator:
        case Window(_, _, _, calls, kept):
            detail = ", ".join(call.value.text for call in calls)
            detail += f" where {' AND '.join(one.text for one in kept)}" if kept else ""
            return "Window", detail, f"recomputed for the touched partitions, by {by}" if by else _EVERYTHING
        case DistinctOn(_, keys) as selection if is_selection(selection):
            return (
                "Selection",
                f"by {', '.join(keys)}",
                "stored: few of a large table's rows pass and are looked up",
            )
        case DistinctOn(_, keys, _, order):
            detail = f"{', '.join(keys)} order {_ordered(order)}" if order else ", ".join(keys)
            return "Distinct on", detail, f"picked again for the touched keys, by {by}" if by else _EVERYTHING
        case TopK(_, order, limit, offset, _):
            detail = (
                _ordered(order)
                + (f" limit {limit.text}" if limit else "")
                + (f" offset {offset.text}" if offset else "")
            )
            cheap = "what came competes with what is stored; the query runs again only when a stored row went"
            if limit and offset:
                return "Top", detail, "taken again of the first rows, which are kept; only rows that differ are written"
            return "Top", detail, cheap if limit else _EVERYTHING
        case Recompute(Unwatched(), text):
            return "Compare", text, "read as a whole at each refresh; what differs from the last time is its change"
        case Recompute():
            return "Query", "", _EVERYTHING
        case Recursion():
            return "Recursion", "a set of rows" if stage.operator.is_set else "a row for each way", _SEMI_NAIVE


def _ordered(order: tuple[Order, ...]) -> str:
    return ", ".join(one.column if one.is_ascending else f"{one.column} DESC" for one in order)


def notes(stage: Recomputed) -> Iterator[str]:
    """What a reader should know of the stage beyond its rule."""
    match stage.operator:
        case Window() if not stage.touched:
            yield (
                "Its windows share no PARTITION BY column: each refresh computes them for all rows again,"
                " and writes the rows that differ."
            )
        case Recompute(Unwatched(), _, _, reason):
            yield reason
        case Recompute(_, _, _, reason, way_out) as part:
            who = "each refresh" if part.is_always_run else "a change"
            told = f"{reason} So {who} has that part of the query run again; only rows that differ are written."
            yield f"{told} {way_out}" if way_out else told
        case _:
            return
