"""Items of FROM that read nothing but the row to their left."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.plan import Plan
from pg_trickle.scalar import Column, Scalar

# Aliases of the row and of the item, as the item's text knows them.
ROW = "__pgt_l"
ITEM = "__pgt_f"


@dataclass(frozen=True, slots=True)
class Lateral(Plan):
    """Each row beside every row that ``item`` makes of it, ``R ↗ f``: functions, VALUES, subqueries without tables.

    What f makes depends on the row alone, so f maps equal rows to equal bags, and the operator is linear::

        Δ(R ↗ f)  =  ΔR ↗ f

    ``item`` is the item as it stands in FROM, under an alias and with its columns named like ``made``; ``ordinal``
    is the one that numbers its rows.  With ``outer``, a row of which f makes nothing that satisfies ``on`` stays, once,
    beside NULLs; without, ``on`` is empty.
    """

    input: Plan
    item: Scalar
    made: tuple[Column, ...]
    outer: bool = False
    on: tuple[Scalar, ...] = ()
    ordinal: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        made = tuple(replace(one, not_null=False) for one in self.made) if self.outer else self.made
        return self.input.columns + made

    def delta(self) -> Plan:
        return replace(self, input=self.input.delta())
