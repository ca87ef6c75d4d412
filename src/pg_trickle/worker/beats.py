"""Which stream tables follow their sources at once, and so always show the same moment.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pg_trickle.worker.dag import Dag
from pg_trickle.worker.due import Follower


@dataclass(frozen=True, slots=True)
class Beats:
    """The connected groups of all that is due as soon as it has changed, each in dependency order.

    When one member of a beat is refreshed, every other for which the same snapshot holds changes has to come along:
    a run takes them for its companions.  So a beat has one run at a time.
    """

    members: tuple[tuple[int, ...], ...] = ()
    of: Mapping[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", {table: beat for beat, tables in enumerate(self.members) for table in tables})

    @classmethod
    def made(cls, dag: Dag, followers: Iterable[Follower]) -> Beats:
        """Those of a graph.  What is looked after by the clock moves at a time of its own."""
        at_once = frozenset().union(*(follower.watched for follower in followers if follower.every is None))
        return cls(dag.groups(at_once))

    def together(self, tables: Iterable[int]) -> frozenset[int]:
        """Everything that shares its beat with one of these tables."""
        beats = {self.of[table] for table in tables if table in self.of}
        return frozenset().union(*(self.members[beat] for beat in beats))

    def companions(self, group: Iterable[int]) -> tuple[int, ...]:
        """What shares its beat with a group and isn't in it, in dependency order."""
        taken = frozenset(group)
        beats = sorted({self.of[table] for table in taken if table in self.of})
        return tuple(table for beat in beats for table in self.members[beat] if table not in taken)
