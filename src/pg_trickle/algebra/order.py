"""Which rows come first: DISTINCT ON, and ORDER BY with LIMIT."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.aggregate import Touched
from pg_trickle.algebra.linear import Negate, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.states import old
from pg_trickle.scalar import Column, Scalar


@dataclass(frozen=True, slots=True)
class Order:
    """An item of ORDER BY over a column of the input."""

    column: str
    is_ascending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class DistinctOn(Plan):
    """The first row by ``order`` of those that share their ``keys``, ``φ``: the columns ``passed`` on of it.

    A key's first row depends on the rows of that key alone::

        Δφ(Q)  =  φ(Q′ ⋉ ΔQ)  −  φ(Q ⋉ ΔQ)

    Where several rows may be first, which of them is shown is PostgreSQL's free choice.
    """

    input: Plan
    keys: tuple[str, ...]
    passed: tuple[str, ...]
    order: tuple[Order, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        by_name = {column.name: column for column in self.input.columns}
        return tuple(by_name[name] for name in self.passed)

    def delta(self) -> Plan:
        change = self.input.delta()
        now = replace(self, input=Touched(self.input, change, self.keys))
        before = replace(self, input=Touched(old(self.input), change, self.keys))
        return UnionAll(now, Negate(before))


@dataclass(frozen=True, slots=True)
class TopK(Plan):
    """The rows from ``offset`` on, ``limit`` of them, in ``order``: ``τ``.

    ``ties`` keeps all that are equal to the last.  By definition ``Δτ(Q) = τ(Q′) − τ(Q)``.  A stage without an
    offset does better: if no stored row left, no other row can move up, so only what came, ``Δ⁺``, competes::

        τ(Q′)  =  τ(τ(Q) + Δ⁺Q)

    An offset is taken of the rows that such a stage keeps::

        τ[offset, limit](Q)  =  τ[offset, limit](τ[0, offset + limit](Q))
    """

    input: Plan
    order: tuple[Order, ...]
    limit: Scalar | None
    offset: Scalar | None = None
    ties: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.input.columns

    def delta(self) -> Plan:
        return UnionAll(self, Negate(old(self)))
