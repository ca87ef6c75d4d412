"""How long a query gets when WITH queries and views stand wherever they are named."""

from __future__ import annotations

from collections.abc import Iterable

from postgast.pg_query_pb2 import SelectStmt

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.window import Window
from pg_trickle.errors import Overgrown
from pg_trickle.parse.tree import kind, nodes

STATEFUL = Aggregate | Window | DistinctOn | TopK | Recompute | Recursion
_TIMES = 6
_FEW = 100
_MANY = 1000


def most_leaves(statements: Iterable[SelectStmt]) -> int:
    """How many tables a plan may read, for what its texts name: some times as many, and some in any case."""
    named = sum(1 for one in statements for part in nodes(one) if kind(part) == "range_var")
    return max(_FEW, _TIMES * named)


def check_length(plan: Plan, most: int) -> None:
    """Refuse a plan that reads far more tables than its text names.

    Of WITH queries each of which names the one before twice, twenty read a million: a delta for each would be nothing
    that PostgreSQL could plan.  Stages are made once, so what is below them counts for little.
    """
    own, through = _leaves(plan, {})
    if own > most or through > max(_MANY, most):
        raise Overgrown(
            "WITH query or view that is named very often",
            f"written out wherever it is named, it makes the query read {max(own, through)} tables.",
            hint="Keep what is named several times in a stream table of its own, and read that one.",
        )


def _leaves(plan: Plan, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The leaves of a plan: those outside of its stages, each of which is one, and all."""
    if id(plan) not in known:
        below = [_leaves(one, known) for one in inputs(plan)]
        through = sum(one for _, one in below) or 1
        own = 1 if isinstance(plan, STATEFUL) else sum(one for one, _ in below) or 1
        known[id(plan)] = own, through
    return known[id(plan)]
