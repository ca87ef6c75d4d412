"""Which name means which column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from postgast.pg_query_pb2 import SelectStmt

from pg_trickle.catalog.model import ColumnFact, CompileRequest, FunctionFact, RelationFact
from pg_trickle.errors import InvalidDefinition, UnsupportedQuery
from pg_trickle.scalar import Column


@dataclass(slots=True)
class Namer:
    """Hands out names that are unique within a plan, and readable."""

    taken: dict[str, int] = field(default_factory=dict)

    def fresh(self, base: str) -> str:
        clean = re.sub(r"[^a-z0-9_]+", "_", base.lower())[:40].strip("_") or "c"
        if clean[0].isdigit():
            clean = f"c{clean}"
        self.taken[clean] = self.taken.get(clean, 0) + 1
        return f"{clean}__{self.taken[clean]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """An item of FROM under its alias."""

    alias: str
    columns: tuple[tuple[str, Column], ...]

    def find(self, name: str) -> Iterator[Column]:
        return (column for known, column in self.columns if known == name)


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that an expression may use: FROM items, and columns merged by USING."""

    entries: tuple[Entry, ...] = ()
    merged: tuple[tuple[str, Column], ...] = ()

    def __add__(self, other: Scope) -> Scope:
        return Scope(self.entries + other.entries, self.merged + other.merged)

    @property
    def padded(self) -> Scope:
        """The same names on the side of an outer join whose rows may be missing: any column may be NULL."""
        entries = tuple(Entry(one.alias, _padded(one.columns)) for one in self.entries)
        return Scope(entries, _padded(self.merged))

    def resolve(self, name: tuple[str, ...]) -> Column:
        """The column that a possibly qualified name means."""
        if len(name) == 1:
            found = [column for known, column in self.merged if known == name[0]]
            found = found[:1] or [column for entry in self.entries for column in entry.find(name[0])]
        elif len(name) == 2:
            found = [column for entry in self.entries if entry.alias == name[0] for column in entry.find(name[1])]
        else:
            found = []
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise InvalidDefinition(f'column reference "{".".join(name)}" is ambiguous', sqlstate="42702")
        if any(entry.alias == name[-1] for entry in self.entries):
            raise UnsupportedQuery(f'whole-row reference to "{name[-1]}"', "a row value hides which columns it reads.")
        raise UnsupportedQuery(
            f'column "{".".join(name)}"',
            "it is no ordinary column of anything in FROM (system columns have no history).",
        )


def _padded(columns: tuple[tuple[str, Column], ...]) -> tuple[tuple[str, Column], ...]:
    return tuple((name, replace(column, not_null=False)) for name, column in columns)


@dataclass(frozen=True, slots=True)
class Context:
    """What a whole compilation shares."""

    request: CompileRequest
    namer: Namer
    ctes: Mapping[str, CommonTable] = field(default_factory=dict)

    def relation(self, schema: str, name: str) -> RelationFact:
        """The facts about a relation; the canonical query leaves out pg_catalog alone."""
        wanted = schema or "pg_catalog"
        for fact in self.request.relations:
            if fact.name == name and fact.schema == wanted:
                return fact
        if not schema:
            raise UnsupportedQuery(f'system catalog "{name}"', "no trigger can watch it.")
        raise InvalidDefinition(f'relation "{wanted}.{name}" is not among the facts', sqlstate="42P01")

    def is_aggregate(self, name: tuple[str, ...]) -> bool:
        return any(fact.kind == "aggregate" for fact in self.functions(name))

    def functions(self, name: tuple[str, ...]) -> tuple[FunctionFact, ...]:
        schema = name[0] if len(name) > 1 else "pg_catalog"
        return tuple(f for f in self.request.functions if f.name == name[-1] and f.schema == schema)


@dataclass(frozen=True, slots=True)
class CommonTable:
    """A WITH query: its statement, its column aliases and the WITH queries it may use itself."""

    statement: SelectStmt
    aliases: tuple[str, ...]
    ctes: Mapping[str, CommonTable]


Expected = tuple[ColumnFact, ...] | None
