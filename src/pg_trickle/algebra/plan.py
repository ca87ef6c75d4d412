"""What every operator is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from pg_trickle.scalar import Column


@dataclass(frozen=True, slots=True)
class Plan:
    """A query over the sources, denoting a Z-set: rows with integer weights.

    Abstract, though no ABC: each ``case`` that doesn't match would ask Python code of abc's, a third of compiling.
    """

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The output columns, in order."""

    @abstractmethod
    def delta(self) -> Plan:
        """The plan of this plan's change over the refreshed interval."""

    def over(self, rebuild: Callable[[Plan], Plan]) -> Self:
        """The same operator with each input rebuilt."""
        inputs = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plans = {name: rebuild(value) for name, value in inputs.items() if isinstance(value, Plan)}
        return replace(self, **plans) if plans else self


@dataclass(frozen=True, slots=True)
class DeltaPart(Plan):
    """What stands in deltas alone, and so has none of its own."""

    def delta(self) -> Plan:
        raise AssertionError(f"{type(self).__name__} is part of a delta already")


def names(plan: Plan) -> tuple[str, ...]:
    """The names of a plan's columns, in order."""
    return tuple(column.name for column in plan.columns)


def inputs(plan: Plan) -> tuple[Plan, ...]:
    """The plans directly below."""
    values = (getattr(plan, name) for name in plan.__dataclass_fields__)
    return tuple(value for value in values if isinstance(value, Plan))


def distinct(plan: Plan) -> Iterator[Plan]:
    """Each node of a plan once.  A delta shares its parts: as a tree, a join of n inputs would have 2ⁿ of them."""
    seen: set[int] = set()
    pending = [plan]
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            pending.extend(reversed(inputs(node)))


def size(plan: Plan) -> int:
    """How many nodes a plan has as a tree, which is how it is printed where nothing is printed once for all."""
    known: dict[int, int] = {}

    def of(node: Plan) -> int:
        if id(node) not in known:
            known[id(node)] = 1 + sum(map(of, inputs(node)))
        return known[id(node)]

    return of(plan)
