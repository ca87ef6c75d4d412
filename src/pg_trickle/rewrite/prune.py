"""Only the columns that somebody reads: what isn't read is neither captured nor compared."""

from __future__ import annotations

from dataclasses import replace

from pg_trickle.algebra.aggregate import Aggregate, Touched
from pg_trickle.algebra.join import Gone, Join, Partners, Untouched
from pg_trickle.algebra.lateral import Lateral
from pg_trickle.algebra.linear import Consolidate, Filter, Item, Negate, Project, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark, mark, semi_join
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Found, Recursion
from pg_trickle.algebra.source import Changes, Empty, Opaque, Scan, Unit, Unwatched
from pg_trickle.algebra.timed import Elapsed, TimedColumn, TimedFilter
from pg_trickle.algebra.window import Window
from pg_trickle.scalar import Column, Scalar, column
from pg_trickle.uniqueness import is_looked_up, keys


def pruned(plan: Plan, needed: frozenset[str]) -> Plan:
    """The plan without columns outside ``needed`` (a plan may keep more than that, never less)."""
    match operator(plan):
        case Scan(_, fields) as scan:
            return replace(scan, fields=tuple(field for field in fields if field.column.name in needed))
        case Filter(Consolidate(LeftJoin() as join), predicates) if _only_judges(join.right, predicates, needed):
            rest = _choosing(predicates)
            outer = pruned(join.left, needed | _columns(rest))
            return Filter(outer, rest) if rest else outer
        case Filter(below, predicates) as filtered:
            return replace(filtered, input=pruned(below, needed | _columns(predicates)))
        case TimedFilter(below, condition) as timed:
            return replace(timed, input=pruned(below, needed | condition.columns))
        case TimedColumn(below, _, made) if made.name not in needed:
            return pruned(below, needed)
        case TimedColumn(below, value) as told:
            return replace(told, input=pruned(below, needed | value.columns))
        case Project(below, items):
            kept = tuple(item for item in items if item.column.name in needed)
            return Project(pruned(below, _columns(tuple(item.value for item in kept))), kept)
        case Negate(below) | Consolidate(below) as same:
            return replace(same, input=pruned(below, needed))
        case UnionAll(left, right):
            return _union(left, right, needed)
        case Join(left, right) as join if _only_tests(join, right, needed):
            return _tested(left, right, join.on, needed)
        case Join(left, right) as join if _only_tests(join, left, needed):
            return _tested(right, left, join.on, needed)
        case LeftJoin(left, right, on) if not needed & frozenset(names(right)) and is_looked_up(right, on):
            # L ⟕ R has each row of L once, whatever R holds, when no two rows of R meet the same one.
            return pruned(left, needed)
        case Join(left, right, on) | LeftJoin(left, right, on) | FullJoin(left, right, on) as join:
            wanted = needed | _columns(on)
            return replace(join, left=pruned(left, wanted), right=pruned(right, wanted))
        case Mark(left, right, on, marked) as mark:
            if marked.name not in needed:
                return pruned(left, needed)
            wanted = _columns(on)
            return replace(mark, left=pruned(left, needed | wanted), right=pruned(right, wanted))
        case Lateral(below, item, _, _, on) as lateral:
            return replace(lateral, input=pruned(below, needed | item.columns | _columns(on)))
        case Aggregate(below, keys, calls):
            kept_calls = tuple(call for call in calls if call.column.name in needed)
            read = {name for call in kept_calls for name in (*call.value.columns, call.argument, call.condition)}
            return Aggregate(pruned(below, frozenset(keys) | {name for name in read if name}), keys, kept_calls)
        case Window() as window:
            return _window(window, needed)
        case DistinctOn() as first:
            return _distinct_on(first, needed)
        case TopK(below, order) as top:
            return replace(top, input=pruned(below, needed | {one.column for one in order}))
        case Recursion(base, step) as recursion:
            # Whatever nobody reads above may be what tells rows apart, or leads to others.
            return replace(recursion, base=_kept(base, list(base.columns)), step=_kept(step, list(step.columns)))
        case Changes() | Unit() | Unwatched() | Empty() | Opaque() | Touched() | Partners() | Flipped() | Elapsed():
            return plan
        case Untouched() | Gone() | Found() | Recompute():
            return plan


def _only_judges(side: Plan, predicates: tuple[Scalar, ...], needed: frozenset[str]) -> bool:
    """Whether of a side of a left join nothing is read but how often it is met, which is an error beyond once.

    That is a scalar subquery whose value nobody reads, which PostgreSQL doesn't compute either.
    """
    rest = _choosing(predicates)
    return len(rest) < len(predicates) and not (needed | _columns(rest)) & frozenset(names(side))


def _choosing(predicates: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    return tuple(one for one in predicates if not one.only_raises)


def _only_tests(join: Join, side: Plan, needed: frozenset[str]) -> bool:
    """Whether a side of a join is a single row that only the join's conditions read."""
    own = frozenset(names(side))
    return bool(own & _columns(join.on)) and not own & needed and frozenset() in keys(side)


def _tested(kept: Plan, row: Plan, on: tuple[Scalar, ...], needed: frozenset[str]) -> Plan:
    """``π(L ⋈ S) = L ⋉ S`` for an S of one row at most, over the columns of L.

    When S moves, the change of the join takes back every row of L and brings it again; that of the semi-join holds
    the rows for which the conditions have turned.
    """
    met = mark(f"__pgt_met_{min(frozenset(names(row)) & _columns(on))}")
    return pruned(semi_join(kept, row, on, met), needed)


def _distinct_on(first: DistinctOn, needed: frozenset[str]) -> Plan:
    passed = tuple(name for name in first.passed if name in needed or name in first.keys)
    read = frozenset((*passed, *first.keys, *(one.column for one in first.order)))
    return replace(first, input=pruned(first.input, read), passed=passed)


def _window(window: Window, needed: frozenset[str]) -> Plan:
    """Keys stay: the stage finds its rows by them."""
    calls = tuple(call for call in window.calls if call.column.name in needed)
    if not calls:
        return pruned(window.input, needed)
    passed = tuple(name for name in window.passed if name in needed or name in window.keys)
    below = pruned(window.input, frozenset(passed) | _columns(tuple(call.value for call in calls)))
    return replace(window, input=below, passed=passed, calls=calls)


def _columns(scalars: tuple[Scalar, ...]) -> frozenset[str]:
    return frozenset(name for value in scalars for name in value.columns)


def _union(left: Plan, right: Plan, needed: frozenset[str]) -> Plan:
    """Both branches pruned to the same positions, by a projection where a branch keeps more than it must."""
    places = [place for place, name in enumerate(names(left)) if name in needed]
    return UnionAll(*(_kept(side, [side.columns[place] for place in places]) for side in (left, right)))


def _kept(side: Plan, wanted: list[Column]) -> Plan:
    kept = pruned(side, frozenset(one.name for one in wanted))
    if list(names(kept)) == [one.name for one in wanted]:
        return kept
    return Project(kept, tuple(Item(one, column(one)) for one in wanted))
