"""Which name means which column."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from postgast.pg_query_pb2 import CommonTableExpr, Node, SelectStmt

from pg_trickle.algebra.recursion import Found
from pg_trickle.catalog.model import ColumnFact, CompileRequest, FunctionFact, RelationFact
from pg_trickle.errors import InvalidDefinition, UnsupportedQuery
from pg_trickle.parse.tree import kind, strings
from pg_trickle.scalar import Column

# Aggregates with a grammar of their own.
JSON_AGGREGATES = frozenset({"json_array_agg", "json_object_agg"})


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
    """The names that an expression may use: FROM items, columns merged by USING, what stands for
    subqueries, and the names of the query around.
    """

    entries: tuple[Entry, ...] = ()
    merged: tuple[tuple[str, Column], ...] = ()
    lowered: tuple[Column, ...] = ()
    outer: Scope | None = None

    def __add__(self, other: Scope) -> Scope:
        return Scope(self.entries + other.entries, self.merged + other.merged, self.lowered + other.lowered, self.outer)

    @property
    def padded(self) -> Scope:
        """The same names on the side of an outer join whose rows may be missing: any column may be NULL."""
        entries = tuple(Entry(one.alias, _padded(one.columns)) for one in self.entries)
        return Scope(entries, _padded(self.merged), self.lowered, self.outer)

    @property
    def columns(self) -> Iterator[Column]:
        """The columns of this query's own FROM."""
        yield from (column for entry in self.entries for _, column in entry.columns)
        yield from (column for _, column in self.merged)
        yield from self.lowered

    @property
    def levels(self) -> Iterator[Scope]:
        """The names of this query, then those of each query around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def column(self, name: str) -> Column:
        """The column of this name in the plan, of this query or one around."""
        here = next((one for one in self.columns if one.name == name), None)
        if here is not None:
            return here
        assert self.outer is not None
        return self.outer.column(name)

    def resolve(self, name: tuple[str, ...]) -> Column:
        """The column that a possibly qualified name means: of this query, else of the next one around it."""
        scope: Scope | None = self
        while scope is not None:
            found = scope._own(name)
            if len(found) == 1:
                return found[0]
            if len(found) > 1:
                raise InvalidDefinition(f'column reference "{".".join(name)}" is ambiguous', sqlstate="42702")
            scope = None if len(name) == 2 and scope.knows(name[0]) else scope.outer
        # The star of "o.*" has no name.
        row = next((one for one in (name[-1], name[0]) if self.knows(one)), None)
        if row is not None and name[1:] in {(), ("",)}:
            raise UnsupportedQuery(
                f'whole-row reference to "{row}"',
                "its row may be absent as a whole, or has no type with a name.",
                hint="Name the columns: jsonb_build_object('a', x.a, …) for to_jsonb(x), count(x.id) for count(x).",
            )
        raise UnsupportedQuery(
            f'column "{".".join(name)}"',
            "it is no ordinary column of anything in FROM (system columns have no history).",
        )

    def knows(self, alias: str) -> bool:
        """Whether an item of FROM is called so."""
        return any(entry.alias == alias for entry in self.entries)

    def _own(self, name: tuple[str, ...]) -> list[Column]:
        if len(name) == 1:
            found = [column for known, column in self.merged if known == name[0]]
            return found[:1] or [column for entry in self.entries for column in entry.find(name[0])]
        if len(name) != 2:
            return []
        if name[0] == LOWERED:
            return [column for column in self.lowered if column.name == name[1]]
        return [column for entry in self.entries if entry.alias == name[0] for column in entry.find(name[1])]


LOWERED = "__pgt_subquery"
"""Qualifies references to the columns that stand for subqueries."""


def _padded(columns: tuple[tuple[str, Column], ...]) -> tuple[tuple[str, Column], ...]:
    return tuple((name, replace(column, not_null=False)) for name, column in columns)


@dataclass(frozen=True, slots=True)
class Context:
    """What a whole compilation shares, and what may be referred to; ``parsed`` are queries that may be read again.

    ``spelt``: something tells equal keys apart, so groups within show theirs as a row reads that is there.
    ``borrowed``: what takes its order from a subquery that may lose it: aggregates as SQL, LIMIT (``presorted.py``).
    ``most_leaves``: how many tables a plan may read (``length.py``).
    """

    request: CompileRequest
    namer: Namer
    ctes: Mapping[str, CommonTable] = field(default_factory=dict)
    outer: Scope | None = None
    parsed: dict[Hashable, object] = field(default_factory=dict)
    spelt: bool = False
    borrowed: dict[str, None] = field(default_factory=dict)
    most_leaves: int = 0

    def relation(self, schema: str, name: str) -> RelationFact:
        """The facts about a relation; the canonical query leaves out pg_catalog alone."""
        wanted = schema or "pg_catalog"
        for fact in self.request.relations:
            if fact.name == name and fact.schema == wanted:
                return fact
        if not schema:
            raise UnsupportedQuery(
                f'system catalog "{name}"',
                "no trigger can watch it.",
                hint="Use refresh_mode => 'FULL' or 'AUTO', or join it where you read the stream table.",
            )
        raise InvalidDefinition(f'relation "{wanted}.{name}" is not among the facts', sqlstate="42P01")

    def aggregates(self, node: Node) -> bool:
        """Whether a node is an aggregate's call; windows aside."""
        if kind(node) in JSON_AGGREGATES:
            return True
        if kind(node) != "func_call" or node.func_call.HasField("over"):
            return False
        return node.func_call.agg_star or self.is_aggregate(strings(list(node.func_call.funcname)))

    def is_aggregate(self, name: tuple[str, ...]) -> bool:
        return any(fact.kind == "aggregate" for fact in self.functions(name))

    def functions(self, name: tuple[str, ...]) -> tuple[FunctionFact, ...]:
        schema = name[0] if len(name) > 1 else "pg_catalog"
        return tuple(f for f in self.request.functions if f.name == name[-1] and f.schema == schema)


@dataclass(frozen=True, slots=True, eq=False)
class CommonTable:
    """A WITH query: its statement, its column aliases, the WITH queries it may use, and the whole as it stands.

    Inside a recursive term its own name means the rows ``found`` before.  ``readings``: how often it is named, at most.
    """

    statement: SelectStmt
    aliases: tuple[str, ...]
    ctes: Mapping[str, CommonTable]
    outer: Scope | None = None
    expression: CommonTableExpr | None = None
    is_recursive: bool = False
    found: Found | None = None
    readings: int = 1


Expected = tuple[ColumnFact, ...] | None
