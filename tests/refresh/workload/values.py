"""What random queries are made of: expressions, items of FROM, and the operators that they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.refresh.workload.tables import Column, Relation
from tests.refresh.workload.types import INT, Type


@dataclass(frozen=True)
class Value:
    """An expression: its text, and what is known of its result."""

    sql: str
    type: Type
    loose: bool = False


@dataclass(frozen=True)
class Built:
    """The operators that a query is built of: one, over others."""

    operator: str
    over: tuple[Built, ...] = ()


def chains(built: Built, length: int) -> Iterator[tuple[str, ...]]:
    """Each operator with what is below it, so many deep."""
    yield from _from_top(built, length)
    for below in built.over:
        yield from chains(below, length)


def _from_top(built: Built, length: int) -> Iterator[tuple[str, ...]]:
    if length == 1:
        yield (built.operator,)
        return
    for below in built.over:
        for rest in _from_top(below, length - 1):
            yield (built.operator, *rest)


TABLE = Built("table")


@dataclass(frozen=True)
class Query:
    """A SELECT and the columns it makes."""

    sql: str
    columns: tuple[Column, ...]
    built: Built = TABLE

    @property
    def relation(self) -> Relation:
        """The query as something to select from."""
        return Relation(f"({self.sql})", self.columns)


@dataclass
class From:
    """The items of FROM by alias, with how to name each column."""

    text: str = ""
    values: list[Value] = field(default_factory=list)
    relations: tuple[Relation, ...] = ()
    built: Built = TABLE
    is_join: bool = False

    @property
    def integers(self) -> list[str]:
        """The integer columns, if there is also anything to compare them with in a subquery."""
        can = any(one.type is INT for relation in self.relations for one in relation.columns)
        return self.named_integers if can else []

    @property
    def qualified(self) -> list[Value]:
        """The columns that mean the same beside further items and inside subqueries: not what USING has merged."""
        return [one for one in self.values if "." in one.sql]

    @property
    def named_integers(self) -> list[str]:
        """The integer columns among these."""
        return [one.sql for one in self.qualified if one.type is INT]
