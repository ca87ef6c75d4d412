"""The compile request: a query in PostgreSQL's canonical text and the facts about what it reads.

Rows of the catalog as frozen values, made by ``pgtrickle_changes.compile_request`` (docs/internals.md §4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pg_trickle.errors import InvalidDefinition

FORMAT = 1


@dataclass(frozen=True, slots=True)
class ColumnFact:
    """A column of a relation, or of the query's output."""

    name: str
    type: str
    base: str | None
    spelled: str | None
    not_null: bool
    identity: str
    orderable: bool
    hashable: bool
    scale: int | None
    buffer_column: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ColumnFact:
        return cls(
            name=data["name"],
            type=data["type"],
            base=data["base"],
            spelled=data["spelled"],
            not_null=data["not_null"],
            identity=data["identity"],
            orderable=data["orderable"],
            hashable=data["hashable"],
            scale=data["scale"],
            buffer_column=data.get("buffer_column") or data["name"],
        )


@dataclass(frozen=True, slots=True)
class RelationFact:
    """A relation that the query, or a view below it, names."""

    oid: int
    schema: str
    name: str
    kind: str
    columns: tuple[ColumnFact, ...]
    used: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    buffer: str | None
    rows: float
    definition: str | None
    policy: str | None
    policy_tables: tuple[str, ...]
    opaque: str | None
    circular: bool = False
    indexed: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict, hash=False)
    """The share of rows that have the commonest value of a column, where statistics tell."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RelationFact:
        return cls(
            oid=data["oid"],
            schema=data["schema"],
            name=data["name"],
            kind=data["kind"],
            columns=tuple(map(ColumnFact.from_json, data["columns"])),
            used=tuple(data["used"]),
            keys=tuple(tuple(key) for key in data["keys"]),
            buffer=data["buffer"],
            rows=data["rows"] or 0,
            definition=data["definition"],
            policy=data.get("policy"),
            policy_tables=tuple(table["name"] for table in data.get("policy_tables", ())),
            opaque=data["opaque"],
            circular=data.get("circular", False),
            indexed=tuple(data.get("indexed", ())),
            shares=data.get("shares") or {},
        )


@dataclass(frozen=True, slots=True)
class FunctionFact:
    """A function, aggregate, window function or operator's function that the query calls."""

    schema: str
    name: str
    kind: str
    volatility: str
    returns: str
    set_returning: bool
    builtin: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FunctionFact:
        return cls(
            schema=data["schema"],
            name=data["name"],
            kind=data["kind"],
            volatility=data["volatility"],
            returns=data["returns"],
            set_returning=data["set_returning"],
            builtin=data["builtin"],
        )


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """All that a compilation depends on; equal requests give equal plans."""

    id: int
    schema: str
    name: str
    query: str
    columns: tuple[ColumnFact, ...]
    relations: tuple[RelationFact, ...]
    functions: tuple[FunctionFact, ...]
    hash: str | None = None

    @property
    def of_statements(self) -> CompileRequest:
        """The same for IMMEDIATE mode: what statistics have stored apart costs single rows more than it spares them."""
        return replace(self, relations=tuple(replace(one, shares={}) for one in self.relations))

    @property
    def texts(self) -> tuple[str, ...]:
        """The query's text, and those of the views below it."""
        return (self.query, *(one.definition for one in self.relations if one.definition is not None))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompileRequest:
        """Read a request; raises InvalidDefinition when it isn't one."""
        try:
            if data["format"] != FORMAT:
                raise InvalidDefinition(
                    f"compile request has format {data['format']}, this compiler reads {FORMAT}",
                    hint="Upgrade the extension and the Python package together.",
                )
            return cls(
                id=data["id"],
                schema=data["target"]["schema"],
                name=data["target"]["name"],
                query=data["query"],
                columns=tuple(map(ColumnFact.from_json, data["columns"])),
                relations=tuple(map(RelationFact.from_json, data["relations"])),
                functions=tuple(map(FunctionFact.from_json, data["functions"])),
                hash=data.get("hash"),
            )
        except (KeyError, TypeError) as exc:
            raise InvalidDefinition("malformed compile request", detail=f"{type(exc).__name__}: {exc}") from exc
