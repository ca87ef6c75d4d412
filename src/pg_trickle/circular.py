"""Stream tables that read each other in a circle: which queries may (docs/decisions/0014).

A circle is kept at its least fixpoint, what WITH RECURSIVE of the same queries gives.  Going on from where it is finds
that only if rows that come never take others away, so a query must be **monotone** in the members of its circle::

    R ⊆ R′  ⟹  Q(R) ⊆ Q(R′)

and must give a set, or each round would find the same rows once more.  In other sources it need not be monotone: where
it isn't, whatever changes there makes the circle start from nothing (Apt, Blair and Walker's stratification).
"""

from __future__ import annotations

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Source, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.set_operations import is_counted
from pg_trickle.scalar import Scalar

Falling = dict[int, str]
"""Sources in which a plan isn't monotone, each with what is in the way."""

_HINT = "In a circle use joins, filters, UNION, DISTINCT and EXISTS; put the rest into a stream table that reads it."


def restarting(request: CompileRequest, plan: Plan, *, is_set: bool, is_timed: bool) -> tuple[int, ...] | None:
    """The sources whose every change makes the circle start from nothing; None outside of a circle.

    Raises UnsupportedQuery for a query that can't be part of one.
    """
    members = {one.oid: f"{one.schema}.{one.name}" for one in request.relations if one.circular}
    if not members:
        return None
    falling = falling_in(plan)
    for oid, name in members.items():
        if oid in falling:
            raise _refusal(falling[oid], f"a row more in {name}, which comes to read this query, may take rows away.")
    if is_timed:
        raise _refusal("a condition on time, or a source that isn't captured", "rows go although no source changed.")
    if not is_set:
        raise _refusal(
            "a query that may give a row several times",
            "each round would find it once more, and no round would be the last.",
            "Use UNION in place of UNION ALL, or SELECT DISTINCT.",
        )
    return tuple(sorted(falling))


def _refusal(construct: str, reason: str, hint: str = _HINT) -> UnsupportedQuery:
    return UnsupportedQuery(construct, reason, hint=hint)


def falling_in(plan: Plan, kept: frozenset[str] = frozenset()) -> Falling:
    """The sources in which the plan isn't monotone; ``kept`` are marks that are set in all rows that count."""
    match operator(plan):
        case Scan() | Changes() | Unit() | Empty() | Found():
            return {}
        case Filter(below, predicates):
            return falling_in(below, kept | _demanded(predicates))
        case Project(below, items):
            passed = (item.value for item in items if item.column.name in kept)
            return falling_in(below, _demanded(tuple(passed)))
        case UnionAll(left, right):
            places = [place for place, one in enumerate(left.columns) if one.name in kept]
            return falling_in(left, kept) | falling_in(right, frozenset(right.columns[place].name for place in places))
        case Consolidate(below) | Lateral(below):
            return falling_in(below, kept)
        case Recursion(base, step):
            return falling_in(base) | falling_in(step)
        case Join(left, right, on):
            inside = kept | _demanded(on)
            return falling_in(left, inside) | falling_in(right, inside)
        case Mark(left, right, _, column) if column.name in kept:
            return falling_in(left, kept) | falling_in(right)
        case Mark(left, right):
            return falling_in(left, kept) | _all(right, "NOT EXISTS, NOT IN or a subquery in an expression")
        case LeftJoin(left, right):
            return falling_in(left, kept) | _all(right, "LEFT JOIN, the side that may be missing")
        case Aggregate(below, keys, calls) if keys and not calls:
            return falling_in(below, kept)
        case Aggregate(below) as aggregate:
            return _all(below, "INTERSECT or EXCEPT" if is_counted(aggregate) else "an aggregate")
        case FullJoin(left, right):
            return _all(left, "FULL JOIN") | _all(right, "FULL JOIN")
        case Window(below):
            return _all(below, "a window function")
        case DistinctOn(below):
            return _all(below, "DISTINCT ON")
        case TopK(below):
            return _all(below, "LIMIT")
        case Recompute(below, _, _, reason):
            return _all(below, f"a part without a rule ({reason})")
        case TimedFilter(below) | TimedColumn(below) | Elapsed(below):
            return _all(below, "a condition on time")
        case Unwatched() | Opaque() | Negate() | Touched() | Partners() | Untouched() | Gone() | Flipped():
            return _all(plan, "a difference")


def _demanded(predicates: tuple[Scalar, ...]) -> frozenset[str]:
    """The columns that are conditions by themselves."""
    return frozenset(name for one in predicates if one.is_column for name in one.columns)


def _all(plan: Plan, construct: str) -> Falling:
    """Every source below, whatever is done with it."""
    tables = (node.table for node in distinct(plan) if isinstance(node, Scan | Changes))
    return {table.oid: construct for table in tables if isinstance(table, Source)}
