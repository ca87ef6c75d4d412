"""Leaves: tables, their changes, and constants."""

from __future__ import annotations

from dataclasses import dataclass

from pg_trickle.algebra.plan import Plan
from pg_trickle.scalar import Column


@dataclass(frozen=True, slots=True)
class Source:
    """A table whose changes are captured in a change buffer; ``indexed`` are the columns with which an index begins."""

    oid: int
    schema: str
    name: str
    buffer: str
    indexed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """The stored output of a stage, private to one stream table; its last delta may stand in ``delta_name``."""

    name: str

    @property
    def delta_name(self) -> str:
        return self.name.replace("state_", "delta_", 1)


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a leaf: its name in the plan, in the table and in the table's change buffer."""

    column: Column
    attribute: str
    buffered: str


@dataclass(frozen=True, slots=True)
class Scan(Plan):
    """A table as the refresh's snapshot sees it, ``R′``: every row weighs +1."""

    table: Source | State
    fields: tuple[Field, ...]
    keys: tuple[tuple[str, ...], ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(field.column for field in self.fields)

    def delta(self) -> Plan:
        return Changes(self.table, self.fields, self.keys)


@dataclass(frozen=True, slots=True)
class Changes(Plan):
    """The net change of a table since the frontier, ``ΔR``, consolidated.

    The interval is fixed, so the change itself doesn't change: asking for its delta is a mistake of ours.
    ``keys`` are the table's; of a key there may be two rows here, what it was and what it is.
    """

    table: Source | State
    fields: tuple[Field, ...]
    keys: tuple[tuple[str, ...], ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(field.column for field in self.fields)

    def delta(self) -> Plan:
        raise AssertionError("the delta of a delta is never needed")


@dataclass(frozen=True, slots=True)
class Unit(Plan):
    """The relation with one row and no columns: what ``SELECT 1`` reads.  ``Δ = ∅``."""

    @property
    def columns(self) -> tuple[Column, ...]:
        return ()

    def delta(self) -> Plan:
        return Empty(())


@dataclass(frozen=True, slots=True)
class Unwatched(Plan):
    """A row of no columns that stands for a relation whose changes nothing tells: it counts as changed every time.

    Below a ``Recompute`` it makes each refresh run the text, and compare with what the relation was.
    """

    @property
    def columns(self) -> tuple[Column, ...]:
        return ()

    def delta(self) -> Plan:
        return self


@dataclass(frozen=True, slots=True)
class Empty(Plan):
    """The empty Z-set, ``∅``.  ``Δ = ∅``."""

    schema: tuple[Column, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.schema

    def delta(self) -> Plan:
        return self


@dataclass(frozen=True, slots=True)
class Opaque(Plan):
    """The defining query as its author wrote it, for recomputing; it has no delta."""

    text: str
    schema: tuple[Column, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.schema

    def delta(self) -> Plan:
        raise AssertionError("an opaque query is only ever recomputed")
