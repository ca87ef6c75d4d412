"""Whose writers may maintain a join side by side (docs/decisions/0010, "Writers of one side").

An inner join is bilinear, and so are sums and counts of its rows: what changes in one source is paired with the
others as they are.  Changes of the same source don't meet, ``Δ(L₁ + L₂) ⋈ R = ΔL₁ ⋈ R + ΔL₂ ⋈ R``, so as long as nobody
changes the others they may come in any order, if what they write does too: counters that are added to under the lock
of their group's row, or rows that nobody else can write, since each has the key of one row of the changed source.
"""

from __future__ import annotations

from collections import Counter

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Project
from pg_trickle.algebra.operators import operator
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.algebra.source import Scan, Source
from pg_trickle.programs import Definition
from pg_trickle.stages import Stage


def pairing(definition: Definition) -> tuple[int, ...]:
    """The sources whose changes commute with each other in all that they write; none, where anything else is read."""
    if len(definition.stages) > 1 or definition.target.key is None:
        return ()
    stage = definition.stages[0] if definition.stages else None
    if stage is not None and (not isinstance(stage, Stage) or not all(one.is_added for one in stage.rest)):
        return ()
    plan = definition.final if stage is None else stage.below
    scans = _scans(plan)
    if scans is None or len(scans) < 2:
        return ()
    times = Counter(oid for oid, _ in scans)
    once = [(oid, scan) for oid, scan in scans if times[oid] == 1]
    if len(once) < len(scans):
        return ()
    if stage is not None:
        return tuple(sorted(oid for oid, _ in once))
    key = definition.target.key
    shown = {_origin(plan, column.name) for name, column in definition.target.columns if name in key}
    return tuple(sorted(oid for oid, scan in once if any(shown >= {(oid, one) for one in key} for key in scan.keys)))


def own_key(definition: Definition, changed: int) -> dict[str, str] | None:
    """The columns of a changed source that are the key of what it shows, by what they are called there; None if it has
    that not by itself.  For a source that is paired.
    """
    key = definition.target.key or ()
    found = {name: _origin(definition.final, column.name) for name, column in definition.target.columns if name in key}
    own = {name: place[1] for name, place in found.items() if place is not None and place[0] == changed}
    return own if own.keys() == found.keys() else None


def _scans(plan: Plan) -> list[tuple[int, Scan]] | None:
    """The tables that a plan pairs; None if it does anything else."""
    match operator(plan):
        case Scan(Source(oid)) as scan:
            return [(oid, scan)]
        case Filter(below) | Project(below):
            return _scans(below)
        case Join(left, right):
            one, other = _scans(left), _scans(right)
            return None if one is None or other is None else one + other
        case _:
            return None


def _origin(plan: Plan, name: str) -> tuple[int, str] | None:
    """The source, and its column, that a column of a pairing plan shows as it is."""
    match operator(plan):
        case Scan(Source(oid)):
            return oid, name
        case Filter(below):
            return _origin(below, name)
        case Project(below, items):
            value = next(item.value for item in items if item.column.name == name)
            return _origin(below, next(iter(value.columns))) if value.is_column else None
        case Join(left, right):
            return _origin(left if name in names_of(left) else right, name)
        case _:
            return None
