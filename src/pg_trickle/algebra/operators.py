"""The closed union of operators: what ``match`` must cover."""

from __future__ import annotations

from typing import cast, get_args

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window

Operator = (
    Scan
    | Changes
    | Unit
    | Unwatched
    | Empty
    | Opaque
    | Filter
    | TimedFilter
    | TimedColumn
    | Elapsed
    | Project
    | Negate
    | UnionAll
    | Consolidate
    | Join
    | Partners
    | Untouched
    | Gone
    | LeftJoin
    | FullJoin
    | Mark
    | Flipped
    | Lateral
    | Aggregate
    | Window
    | DistinctOn
    | TopK
    | Recompute
    | Recursion
    | Found
    | Touched
)

_MEMBERS = frozenset(get_args(Operator))


def operator(plan: Plan) -> Operator:
    """The plan as a member of the union, so that mypy proves each ``match`` complete."""
    assert type(plan) in _MEMBERS
    return cast("Operator", plan)
