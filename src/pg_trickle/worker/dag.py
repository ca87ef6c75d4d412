"""The stream tables and what they read, as a graph.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

REFRESHABLE = frozenset({"INITIALIZING", "ACTIVE"})
NO_BEATS: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class StreamTable:
    """A stream table as the scheduler sees it; times are seconds since 1970 by the server's clock."""

    id: int
    name: str
    depends_on: frozenset[int] = frozenset()
    sources: frozenset[int] = frozenset()
    schedule: str | None = "calculated"
    schedule_seconds: float | None = None
    status: str = "ACTIVE"
    tier: str = "hot"
    refresh_mode: str = "AUTO"
    populated: bool = True
    needs_reinit: bool = False
    watched: bool = True
    timed: bool = False
    circle: int | None = None
    last_refresh_at: float | None = None

    @property
    def refreshable(self) -> bool:
        """Whether the scheduler may refresh it at all, on its own account or for a dependant's sake."""
        if self.refresh_mode == "IMMEDIATE" and self.populated and not self.needs_reinit:
            # Its writers maintain it.
            return False
        return self.status in REFRESHABLE and self.tier != "frozen"


@dataclass(frozen=True, slots=True)
class Dag:
    """The graph whose edges lead from a stream table to the stream tables that it reads."""

    tables: dict[int, StreamTable]
    dependants: dict[int, frozenset[int]] = field(init=False)
    circles: dict[int, frozenset[int]] = field(init=False)

    def __post_init__(self) -> None:
        dependants: dict[int, set[int]] = {table: set() for table in self.tables}
        for table in self.tables.values():
            for upstream in table.depends_on & self.tables.keys():
                dependants[upstream].add(table.id)
        object.__setattr__(self, "dependants", {table: frozenset(below) for table, below in dependants.items()})
        circles: dict[int, set[int]] = {}
        for table in self.tables.values():
            if table.circle is not None:
                circles.setdefault(table.circle, set()).add(table.id)
        object.__setattr__(self, "circles", {circle: frozenset(members) for circle, members in circles.items()})

    @classmethod
    def of(cls, tables: Iterable[StreamTable]) -> Dag:
        return cls({table.id: table for table in tables})

    def together(self, table: StreamTable) -> frozenset[int]:
        """The table and all that read each other in a circle with it: the server refreshes them as one."""
        return frozenset((table.id,)) if table.circle is None else self.circles[table.circle]

    def closure(self, tables: Iterable[int]) -> frozenset[int]:
        """The refreshable ones of these, and all refreshable ones above them.

        Nothing above a table that isn't refreshed can change what its dependants read, so the walk ends there.
        """
        found: set[int] = set()
        to_visit = list(tables)
        while to_visit:
            table = self.tables.get(to_visit.pop())
            if table is not None and table.refreshable and table.id not in found:
                found.add(table.id)
                to_visit.extend(table.depends_on)
        return frozenset(found)

    def below(self, tables: Iterable[int]) -> frozenset[int]:
        """All that directly or indirectly read one of these tables, without the tables themselves."""
        start = frozenset(tables)
        found: set[int] = set()
        to_visit = list(start)
        while to_visit:
            for table in self.dependants.get(to_visit.pop(), frozenset()) - found:
                found.add(table)
                to_visit.append(table)
        return frozenset(found) - start

    def order(self, tables: Iterable[int]) -> tuple[int, ...]:
        """These tables, each after those that it reads, directly or through tables that aren't among them.

        Iterative, because a chain of views can be longer than Python's stack is deep.
        """
        wanted = frozenset(tables)
        ordered: list[int] = []
        visited: set[int] = set()
        to_visit = [(table, False) for table in sorted(wanted, reverse=True)]
        while to_visit:
            table, above_is_done = to_visit.pop()
            if above_is_done:
                if table in wanted:
                    ordered.append(table)
            elif table not in visited and table in self.tables:
                visited.add(table)
                to_visit.append((table, True))
                to_visit.extend((above, False) for above in sorted(self.tables[table].depends_on, reverse=True))
        return tuple(ordered)

    def groups(self, tables: Iterable[int], beats: Mapping[int, int] = NO_BEATS) -> tuple[tuple[int, ...], ...]:
        """These tables in connected groups, each in dependency order.

        Two are connected when they read a common source or one reads the other, or have the same beat: whoever
        compares them would see whether they show the same moment.
        """
        parent: dict[tuple[str, int], tuple[str, int]] = {}

        def root(node: tuple[str, int]) -> tuple[str, int]:
            while (above := parent.setdefault(node, node)) != node:
                parent[node] = parent[above]
                node = above
            return node

        ordered = self.order(tables)
        members = frozenset(ordered)
        for table in ordered:
            node = self.tables[table]
            neighbours = [("source", source) for source in node.sources]
            neighbours += [("table", above) for above in node.depends_on & members]
            neighbours += [("beat", beats[table])] if table in beats else []
            for neighbour in neighbours:
                parent[root(neighbour)] = root(("table", table))
        groups: dict[tuple[str, int], list[int]] = {}
        for table in ordered:
            groups.setdefault(root(("table", table)), []).append(table)
        return tuple(tuple(group) for group in groups.values())
