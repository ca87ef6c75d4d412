"""What a change would have met before: rows that changed themselves are told by their change, not looked up."""

from __future__ import annotations

from dataclasses import replace

from pg_trickle.algebra.join import Gone, Join, Untouched, is_equality
from pg_trickle.algebra.linear import Filter, Negate, UnionAll
from pg_trickle.algebra.mark import Flipped
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Scan, Source
from pg_trickle.rewrite.found_once import is_from_one_source
from pg_trickle.scalar import Scalar


def known_before(plan: Plan) -> Plan:
    """The delta with less to look up where both sides of a join have changed, and a key of one is equated.

    Of ``Δ(L ⋈ R)`` two terms are the change beside the other side as it was: ``ΔL ⋈ R′ − ΔL ⋈ ΔR = ΔL ⋈ R°``.  Of a key
    there is at most one row, before and after.  So where R's net change has a row of that key, what it took away is
    what there was, and if it took nothing away there was none::

        ΔL ⋈ R′ − ΔL ⋈ ΔR  =  (ΔL ▷ ΔR) ⋈ R′  −  ΔL ⋈ ΔR⁻

    Lines of an order come and go with it: none of them looks for its order any more.  The same holds of rows whose
    mark a change turns, ``Flipped(L′) − Flipped(ΔL)``.  Parts that the plan shares stay shared.
    """
    # A part stays with what it became, so that none that is made here gets its id.
    done: dict[int, tuple[Plan, Plan]] = {}

    def descend(part: Plan) -> Plan:
        if id(part) not in done:
            done[id(part)] = part, (_told(part) or part).over(descend)
        return done[id(part)][1]

    return descend(plan)


def _told(plan: Plan) -> Plan | None:
    """The sum of terms with less to look up; the inputs of its joins are parts of the plan as it was."""
    match plan:
        case UnionAll(UnionAll(Join(change, rows, on) as first, Join(other, others) as second), Negate(Join() as both)):
            if both.left is not change or both.right is not others:
                return None
            if keys := _keys(rows, change, on):
                rest = replace(first, left=Untouched(change, _touching(others, change), keys))
                return UnionAll(UnionAll(rest, second), Negate(replace(both, right=Gone(others))))
            if keys := _keys(other, others, on):
                rest = replace(second, right=Untouched(others, _touching(change, others), keys))
                return UnionAll(UnionAll(first, rest), Negate(replace(both, left=Gone(change))))
        case UnionAll(UnionAll(judged, Flipped(rows, _, change, on) as first), Negate(Flipped(taken) as both)):
            if both.change is change and (keys := _keys(rows, change, on)):
                turned = replace(first, change=Untouched(change, _touching(taken, change), keys))
                return UnionAll(UnionAll(judged, turned), Negate(replace(both, input=Gone(taken))))
    return None


def _keys(rows: Plan, change: Plan, on: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """The conditions that equate a key of a table's rows, filtered or not; none where there is no such key."""
    match rows:
        case Filter(below):
            return _keys(below, change, on)
        case Scan(Source(), _, keys):
            equal = tuple(one for one in on if is_equality(one, change, rows))
            found = (tuple(one for one in equal if one.columns & set(key)) for key in keys)
            return next((by for by, key in zip(found, keys, strict=True) if _equated(by) >= set(key)), ())
        case _:
            return ()


def _equated(on: tuple[Scalar, ...]) -> frozenset[str]:
    return frozenset(name for one in on for name in one.columns)


def _touching(change: Plan, looking: Plan) -> Plan:
    """What changed in the table, also what the filter leaves out: that isn't in the table's rows, before or after.

    For what is left of a change after joins, mostly little, it isn't worth netting.
    """
    if isinstance(change, Filter) and is_from_one_source(looking):
        return _touching(change.input, looking)
    return change
