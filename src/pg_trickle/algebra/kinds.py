"""What kind of Z-set a plan denotes: one whose size follows the change, one without negative weights."""

from __future__ import annotations

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window


def is_delta(plan: Plan, known: dict[int, bool] | None = None) -> bool:
    """Whether the plan's size follows the change rather than the tables; ``known`` remembers it by identity."""
    known = {} if known is None else known
    if id(plan) not in known:
        known[id(plan)] = _is_delta(plan, known)
    return known[id(plan)]


def _is_delta(plan: Plan, known: dict[int, bool]) -> bool:
    match operator(plan):
        case Changes() | Empty() | Touched() | Partners() | Untouched() | Gone() | Flipped() | Elapsed():
            return True
        case Scan() | Unit() | Opaque() | Recompute() | Recursion() | Found() | Unwatched():
            return False
        case Join(left, right, _):
            return is_delta(left, known) or is_delta(right, known)
        case UnionAll(left, right):
            return is_delta(left, known) and is_delta(right, known)
        case FullJoin(left, right, _):
            return is_delta(left, known) and is_delta(right, known)
        case Filter() | TimedFilter() | TimedColumn() | Project() | Negate() | Consolidate() | Lateral():
            return is_delta(inputs(plan)[0], known)
        case LeftJoin() | Mark() | Aggregate() | Window() | DistinctOn() | TopK():
            return is_delta(inputs(plan)[0], known)


def is_bag(plan: Plan) -> bool:
    """Whether every row certainly weighs +1, so that SQL's own bags denote the plan."""
    match operator(plan):
        case Scan() | Unit() | Unwatched() | Empty() | Opaque() | FullJoin() | Found():
            return True
        case Aggregate() | Window() | DistinctOn() | TopK() | Recompute() | Recursion():
            return True
        case Changes() | Negate() | Untouched() | Gone() | Flipped() | Elapsed():
            return False
        case Consolidate(below):
            # A bag of its own accord: the rows of a delta are summed up.
            return is_bag(below) and not is_delta(below)
        case Touched(below) | Partners(below) | LeftJoin(below) | Mark(below):
            return is_bag(below)
        case Filter() | TimedFilter() | TimedColumn() | Project() | UnionAll() | Join() | Lateral():
            return all(map(is_bag, inputs(plan)))
