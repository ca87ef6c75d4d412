"""The passes, in the order in which they run."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pg_trickle.algebra.plan import Plan, names
from pg_trickle.catalog.model import RelationFact
from pg_trickle.rewrite.alike import made_alike
from pg_trickle.rewrite.kept import kept_alone
from pg_trickle.rewrite.matched_early import matched_early
from pg_trickle.rewrite.padded_always import padded_always
from pg_trickle.rewrite.pushdown import pushed_down
from pg_trickle.rewrite.reorder import reordered
from pg_trickle.rewrite.repeated import pruned_alike
from pg_trickle.rewrite.selections import selections_stored
from pg_trickle.rewrite.strengthen import strengthened

UNKNOWN: Mapping[int, RelationFact] = MappingProxyType({})


def optimised(plan: Plan, relations: Mapping[int, RelationFact] = UNKNOWN) -> Plan:
    """The same query, arranged so that deltas stay small.

    Outer joins whose padded rows are thrown away become inner ones.  Predicates go down, so that a delta is
    filtered before it is joined, and matches are looked for early; then joins are put in order; then few rows of a
    large table, as the relations' statistics tell, are stored where they are looked up; then columns that nobody reads
    go, so that they are neither captured nor grouped by; and rows of windows that nobody reads.  Below counters left
    joins become sums.  What is left of joins that are alike becomes one.
    """
    arranged = selections_stored(reordered(matched_early(pushed_down(strengthened(plan)))), relations)
    return made_alike(padded_always(kept_alone(pruned_alike(arranged, frozenset(names(plan))))))
