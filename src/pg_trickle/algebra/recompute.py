"""What no rule knows: recomputed as a whole, and compared."""

from __future__ import annotations

from dataclasses import dataclass

from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.source import Unwatched
from pg_trickle.scalar import Column


@dataclass(frozen=True, slots=True)
class Recompute(Plan):
    """A query by its own text: whatever PostgreSQL can run whose result is a function of rows.

    ``input`` has no columns: it is the sum of the tables that the text reads, there to say whether any of them
    changed.  If none did, ``Δ = ∅``; otherwise a stage runs the text and compares with what it has stored.
    Of what changes unseen, such as the time, ``Unwatched`` rows stand among them.
    ``reason`` says what keeps the query from having a rule, ``way_out`` how to write it so that it has one.
    """

    input: Plan
    text: str
    schema: tuple[Column, ...]
    reason: str
    way_out: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.schema

    @property
    def is_always_run(self) -> bool:
        """Whether every refresh runs the text: something that it reads changes unseen."""
        return any(isinstance(node, Unwatched) for node in distinct(self.input))

    def delta(self) -> Plan:
        raise AssertionError("only a stage knows what the text gave before")
