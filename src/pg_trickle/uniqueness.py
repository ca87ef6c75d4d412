"""Which columns of a plan are certainly unique: the key that a stream table is stored under.

Functional dependencies on catalog keys, composed operator by operator (LESSONS.md §2.3).
"""

from __future__ import annotations

from itertools import product

from pg_trickle.algebra.aggregate import Aggregate, Touched
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
from pg_trickle.scalar import Scalar, identifier

Key = frozenset[str]
"""Names of columns that are unique together."""
_MOST = 8
INDEX_COLUMNS = 32
"""As many columns an index of PostgreSQL's has at most."""


def keys(plan: Plan) -> tuple[Key, ...]:
    """Sets of columns by which no two rows of the plan's new state agree, NULLs alike; smallest first."""
    found = {key for key in _keys(plan) if key <= {column.name for column in plan.columns}}
    minimal = [key for key in found if not any(other < key for other in found)]
    return tuple(sorted(minimal, key=lambda key: (len(key), sorted(key)))[:_MOST])


def indexed_keys(plan: Plan) -> tuple[Key, ...]:
    """Those of them that an index can be made of."""
    return tuple(key for key in keys(plan) if len(key) <= INDEX_COLUMNS)


def _keys(plan: Plan) -> set[Key]:
    match operator(plan):
        case Scan(_, _, known):
            return {frozenset(key) for key in known}
        case Unit() | Unwatched():
            return {frozenset()}
        case (
            Filter(below)
            | Consolidate(below)
            | TimedFilter(below)
            | TimedColumn(below)
            | Touched(below)
            | Partners(below)
            | Untouched(below)
            | Gone(below)
            | Mark(below)
            | Window(below)
            | TopK(below)
        ):
            return set(keys(below))
        case DistinctOn(below, shared):
            return {frozenset(shared), *keys(below)}
        case Project(below, items):
            renamed: dict[str, set[str]] = {}
            for item in items:
                if item.value.is_column:
                    renamed.setdefault(next(iter(item.value.columns)), set()).add(item.column.name)
            return {
                frozenset(choice)
                for key in keys(below)
                if key <= renamed.keys()
                for choice in product(*(sorted(renamed[name]) for name in sorted(key)))
            }
        case Join(left, right, on):
            # Both keys together; one alone when each of its rows meets at most one of the other side.
            ours, others = keys(left), keys(right)
            found = {one | other for one, other in product(ours, others)}
            found.update(ours if _is_met_once(right, others, on) else ())
            return found.union(others if _is_met_once(left, ours, on) else ())
        case LeftJoin(left, right, on):
            # A row without a match comes once, and none with the NULLs that it then shows.
            ours, others = keys(left), keys(right)
            found = {one | other for one, other in product(ours, others)}
            return found.union(ours if _is_met_once(right, others, on) else ())
        case FullJoin(left, right, _):
            # Told from one that is padded by a column that never is NULL.
            certain = {one.name for side in (left, right) for one in side.columns if one.not_null}
            return {one | other for one, other in product(keys(left), keys(right)) if certain & (one | other)}
        case Lateral(below, _, _, _, _, ordinal):
            return set() if ordinal is None else {key | {ordinal} for key in keys(below)}
        case Aggregate(_, grouped, _):
            return {frozenset(grouped)}
        case Recursion(base) as recursion:
            # Of what can be indexed: a key is stored under an index.
            is_keyed = recursion.is_set and all(one.type.is_narrow for one in base.columns)
            return {frozenset(one.name for one in base.columns)} if is_keyed else set()
        case UnionAll() | Negate() | Changes() | Empty() | Opaque() | Flipped() | Elapsed() | Recompute() | Found():
            return set()


def is_looked_up(side: Plan, on: tuple[Scalar, ...]) -> bool:
    """Whether a row of the other side meets at most one of this side: the conditions equate a key of it."""
    return _is_met_once(side, keys(side), on)


def met_by(side: Plan, on: tuple[Scalar, ...]) -> Key | None:
    """The key by which a row of the other side meets at most one of this side; None if there is none."""
    joined = _equated(side, on)
    return next((key for key in keys(side) if key <= joined), None)


def _is_met_once(side: Plan, known: tuple[Key, ...], on: tuple[Scalar, ...]) -> bool:
    joined = _equated(side, on)
    return any(key <= joined for key in known)


def _equated(side: Plan, on: tuple[Scalar, ...]) -> Key:
    """The columns of a plan that conditions equate to others."""
    here = {one.name for one in side.columns}
    pairs = [set(predicate.equates) for predicate in on if predicate.equates]
    return frozenset(name for pair in pairs for name in pair & here if pair - here)


def is_single(plan: Plan, on: tuple[Scalar, ...] = ()) -> bool:
    """Whether at most one row of the plan satisfies the conditions, for each row of a query around.

    One of a key that they equate to constants, or to what only the query around provides.
    """
    fixed = _equated(plan, on).union(one.fixes for one in on if one.fixes is not None)
    if any(key <= fixed for key in keys(plan)):
        return True
    match plan:
        case Project(below, items):
            made = {item.column.name for item in items if item.value.text != identifier(item.column.name)}
            return is_single(below, tuple(one for one in on if not one.columns & made))
        case Filter(below, predicates):
            return is_single(below, on + predicates)
        case _:
            return False


def is_net(plan: Plan) -> bool:
    """Whether a delta certainly has no row twice, so that consolidating it would change nothing.

    An update may leave −row and +row alike once columns are projected away, and the terms of a sum may
    overlap; but a filter, or a join with rows that are told apart by a key, keeps net what was net.
    """
    match operator(plan):
        case Changes() | Consolidate() | Empty() | Unwatched():
            return True
        case Filter(below) | TimedFilter(below) | TimedColumn(below) | Negate(below) | Mark(below):
            return is_net(below)
        case Untouched(below) | Gone(below) | Partners(below):
            return is_net(below)
        case Elapsed(below):
            return bool(keys(below))
        case Project(below, items):
            kept = {next(iter(item.value.columns)) for item in items if item.value.is_column}
            return is_net(below) and kept >= {column.name for column in below.columns}
        case Join(left, right, _):
            return (is_net(left) and bool(keys(right))) or (is_net(right) and bool(keys(left)))
        case LeftJoin(left, right, _):
            return is_net(left) and bool(keys(right))
        case FullJoin() | Flipped():
            return False
        case Scan() | Unit() | UnionAll() | Lateral() | Aggregate() | Touched() | Opaque():
            return False
        case Window() | DistinctOn() | TopK() | Recompute() | Recursion() | Found():
            return False
