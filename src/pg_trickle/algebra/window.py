"""Window functions: columns computed from the other rows of a row's partition."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.aggregate import Touched
from pg_trickle.algebra.linear import Item, Negate, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.states import old
from pg_trickle.scalar import Column, Scalar


@dataclass(frozen=True, slots=True)
class Window(Plan):
    """Every row with more columns, ``ω``: the columns ``passed`` on from the input, and one for each of ``calls``.

    ``keys`` are input columns by which every call partitions, perhaps among others.  A row's values depend on
    the rows of its partition alone, so only rows that share their keys with the change can differ::

        Δω(Q)  =  ω(Q′ ⋉ ΔQ)  −  ω(Q ⋉ ΔQ)

    Without keys those are all rows.  Duplicates count: a row of weight 2 is two rows with neighbours of their own.

    Only rows for which every condition in ``kept`` holds come out, and none of the columns ``unshown``: ``πσω``, which
    depends on the rows of a partition just as ``ω`` does, so that the law is the same.
    """

    input: Plan
    keys: tuple[str, ...]
    passed: tuple[str, ...]
    calls: tuple[Item, ...]
    kept: tuple[Scalar, ...] = ()
    unshown: frozenset[str] = frozenset()

    @property
    def columns(self) -> tuple[Column, ...]:
        by_name = {column.name: column for column in self.input.columns}
        made = (*(by_name[name] for name in self.passed), *(call.column for call in self.calls))
        return tuple(one for one in made if one.name not in self.unshown)

    def delta(self) -> Plan:
        change = self.input.delta()
        now = replace(self, input=Touched(self.input, change, self.keys))
        before = replace(self, input=Touched(old(self.input), change, self.keys))
        return UnionAll(now, Negate(before))
