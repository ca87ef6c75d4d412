"""What it costs to keep each operator, told to people: in changed rows, look-ups, touched groups, rows read.

|Δ| is the number of changed rows that come from below, netted; a look-up is one by an index, where there is one
(``wanted_indexes`` tells of those that are missing).
"""

from __future__ import annotations

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.recomputed import Recomputed
from pg_trickle.rewrite.selections import is_selection
from pg_trickle.scalar import Scalar
from pg_trickle.stages import Stage

WHOLE_QUERY = "all rows that the query reads, at each refresh"
_ROWS = "|Δ|"
NOTHING = "nothing"
_ADDED = {Rule.COUNT, Rule.SUM, Rule.AVG, Rule.BOOL_AND, Rule.BOOL_OR, Rule.BIT_XOR}
_SQUARED = {Rule.VAR_POP, Rule.VAR_SAMP, Rule.STDDEV_POP, Rule.STDDEV_SAMP}


def cost(plan: Plan) -> str:
    """Of an operator that has no stage of its own."""
    match operator(plan):
        case Scan() | Changes():
            return f"{_ROWS} rows of its change buffer"
        case Filter() | Project() | UnionAll() | Negate() | Consolidate():
            return _ROWS
        case TimedFilter(_, timed) | TimedColumn(_, timed):
            if timed.near and not timed.near.columns:
                return f"{_ROWS}; all rows below, when the time of the condition is another"
            passed = "the rows that passed" if timed.near else "all rows below"
            return f"{_ROWS}, and {passed}, at each refresh"
        case Join(_, _, on):
            return _met(on, "|ΔL| look-ups in R and |ΔR| in L", "all of R for a change of L, all of L for one of R")
        case LeftJoin(_, _, on):
            looked = "|ΔL| look-ups in R; |ΔR| in L, and one in R for each row found there"
            return _met(on, looked, "all of R for a change of L, L × R for one of R")
        case FullJoin(_, _, on):
            looked = "|ΔL| look-ups in R, |ΔR| in L, and one back for each row found"
            return _met(on, looked, "L × R")
        case Mark(_, _, on, _):
            looked = "|ΔL| look-ups in R; |ΔR| in L, and one in R for each row found there"
            return _met(on, looked, "all of R for a change of L, L × R for one of R")
        case Lateral():
            return f"{_ROWS} × the rows that it makes of one"
        case Aggregate():
            return "the rows of the touched groups"
        case Unit() | Empty():
            return NOTHING
        case Found():
            return "the rows that came last"
        case Window() | DistinctOn() | TopK() | Recompute() | Recursion():
            raise AssertionError("told with its stage")
        case Unwatched() | Touched() | Partners() | Untouched() | Gone() | Flipped() | Elapsed() | Opaque():
            return _ROWS


def _met(on: tuple[Scalar, ...], by_key: str, otherwise: str) -> str:
    return by_key if any(one.equates for one in on) else otherwise


def of_counters(stage: Stage) -> str:
    """Of a stage that counts: what its calls cost in addition is told with each."""
    if stage.is_global:
        return f"{_ROWS}, and one stored row"
    return f"{_ROWS}, and a look-up for each touched group"


def of_call(call: Call) -> str:
    """Of one aggregate of such a stage."""
    if call.rule in _ADDED:
        return f"{_ROWS} additions"
    if call.rule in _SQUARED:
        return f"3 × {_ROWS} additions"
    if call.rule is Rule.RECOMPUTE:
        return "the rows of the touched groups"
    return f"{_ROWS} comparisons; the rows of a group when what it shows went"


def of_rows(stage: Recomputed) -> str:
    """Of a stage that stores its operator's rows."""
    match stage.operator:
        case Window() if stage.touched:
            return "the rows of the touched partitions, sorted"
        case Window():
            return "all rows below, sorted, whenever one changed"
        case DistinctOn() as selection if is_selection(selection):
            return f"{_ROWS} and as many look-ups"
        case DistinctOn() if stage.touched:
            return "the rows of the touched keys, sorted"
        case DistinctOn():
            return "all rows below, sorted, whenever one changed"
        case TopK(_, _, limit, offset, _) if limit and not offset:
            return f"{_ROWS} and the stored rows; all rows below, sorted, when a stored one went"
        case TopK():
            return "all rows below, sorted, whenever one changed"
        case Recursion():
            return "what follows from the rows that came; twice what follows from those that went, at most all rows"
        case Recompute(Unwatched()):
            return "all of its rows, at each refresh"
        case Recompute() as part:
            when = "at each refresh" if part.is_always_run else "whenever one changed"
            return f"all rows that this part reads, {when}"
