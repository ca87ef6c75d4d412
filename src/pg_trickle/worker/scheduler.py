"""What to refresh next: the state between two looks at the database.  No I/O, no clock: every time is the caller's.

The loop tells it what it saw (``load``, ``observe``, ``checked``, ``finished``) and asks what to do
(``to_check``, ``start``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from enum import Enum

from pg_trickle.worker import retry
from pg_trickle.worker.beats import Beats
from pg_trickle.worker.dag import Dag, StreamTable
from pg_trickle.worker.due import Follower, followers, followers_due, next_at
from pg_trickle.worker.marks import Marks, Snapshot

LONGEST_PENALTY_SECONDS = 60.0
# Whoever is creating a stream table, or refreshing one by hand, may take a while.
OUTDATED_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Settings:
    """The server's settings that concern the worker."""

    default_schedule_seconds: float = 1.0
    max_consecutive_errors: int = 3
    max_concurrent_refreshes: int = 4
    metrics_port: int = 0


class Outcome(Enum):
    """What became of one stream table in a refresh.

    OUTDATED: nothing, as its group was put together by a graph that isn't the server's any more.
    """

    REFRESHED = "refreshed"
    OUTDATED = "outdated"
    SKIPPED = "skipped"
    RETRY = "retry"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """Ask which of these tables have changes, because of these sources."""

    tables: frozenset[int]
    sources: frozenset[int]


@dataclass(frozen=True, slots=True)
class Quiet:
    """A source that nobody has written since its mark stood there, and the companions that it could concern."""

    mark: int
    readers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A group to be refreshed together, in this order; ``failures`` counts what each has to retry already.

    ``companions`` come along if the group's snapshot holds changes for them.  Of most of these it is known that there
    are none as long as the marks of their sources stand where they were seen: ``quiet``.  ``graph``: the version of the
    graph by which all this was decided.
    """

    group: tuple[int, ...]
    started_at: float
    failures: Mapping[int, int]
    max_errors: int
    companions: tuple[int, ...] = ()
    graph: int | None = None
    quiet: Mapping[int, Quiet] = field(default_factory=dict)


@dataclass(slots=True)
class Scheduler:
    """Knows the stream tables, which of them changed, which are being refreshed and which have to wait."""

    settings: Settings = Settings()
    dag: Dag = field(default_factory=lambda: Dag({}))
    marks: Marks = field(default_factory=Marks)
    running: set[int] = field(default_factory=set)
    runs: int = 0
    unsure: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    stale: bool = True
    graph: int = 0
    _beats: Beats = field(default_factory=Beats)
    _followers: tuple[Follower, ...] = ()
    _watched: frozenset[int] = frozenset()
    _watchers: dict[int, frozenset[int]] = field(default_factory=dict)
    _roots: dict[int, frozenset[int]] = field(default_factory=dict)
    _unfilled: frozenset[int] = frozenset()
    _since: dict[int, float] = field(default_factory=dict)
    _next: dict[int, float] = field(default_factory=dict)
    _paced: dict[int, float] = field(default_factory=dict)
    _held: dict[int, float] = field(default_factory=dict)
    _again: dict[int, float] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _penalties: dict[int, int] = field(default_factory=dict)

    def load(self, tables: Collection[StreamTable], settings: Settings, *, graph: int = 0) -> None:
        """Take in what stream tables there are now, which is that version of the graph."""
        before = self.dag.tables
        self.dag, self.settings, self.graph, self.stale = Dag.of(tables), settings, graph, False
        self._followers = followers(self.dag, default_seconds=settings.default_schedule_seconds)
        self._beats = Beats.made(self.dag, self._followers)
        self._watched = frozenset().union(*(follower.watched for follower in self._followers))
        self._watchers = _watchers(self.dag, self._watched)
        self._roots = {table: _roots(self.dag, table) for members in self._beats.members for table in members}
        self._unfilled = frozenset(table.id for table in tables if table.needs_reinit or not table.populated)
        self._forget_all_but(self.dag.tables.keys())
        for table in self.dag.tables.values():
            if table.id not in before or not _same_but_for_time(before[table.id], table):
                self.unsure.add(table.id)
                self._held.pop(table.id, None)
            if table.last_refresh_at is not None:
                self._since[table.id] = max(table.last_refresh_at, self._since.get(table.id, -math.inf))
            self._next[table.id] = next_at(table, since=self._since.get(table.id))

    def _forget_all_but(self, tables: Set[int]) -> None:
        self.unsure &= tables
        self.changed &= tables
        for times in (self._since, self._next, self._paced, self._held, self._again):
            for gone in times.keys() - tables:
                del times[gone]
        for counts in (self._failures, self._penalties):
            for gone in counts.keys() - tables:
                del counts[gone]

    def forget(self) -> None:
        """Trust nothing that was seen: somebody else may have been at work in the meantime."""
        self.marks = Marks()
        self.changed.clear()
        self.unsure.update(self.dag.tables)
        self.stale = True

    def observe(self, high_water: Mapping[int, int]) -> bool:
        """Note the buffers' high-water marks; whether one that matters has moved."""
        return self.marks.observe({source: mark for source, mark in high_water.items() if source in self._watchers})

    def to_check(self, now: Snapshot) -> Check:
        """What has to be asked before ``start`` knows which tables have changed."""
        sources = self.marks.to_check(now)
        watching = frozenset().union(*(self._watchers.get(source, frozenset()) for source in sources))
        return Check(tables=watching | self.unsure, sources=sources)

    def checked(self, check: Check, *, pending: Collection[int], snapshot: Snapshot, next_xid: int) -> None:
        self.changed -= check.tables
        self.changed.update(pending)
        self.unsure -= check.tables
        self.marks.checked(check.sources, snapshot, next_xid=next_xid)

    def start(self, now: float) -> list[Run]:
        """The groups to begin with now; they count as running until ``finished``."""
        free = self.settings.max_concurrent_refreshes - self.runs
        if free <= 0:
            return []
        tables = self.dag.closure(table for table in self._due(now) if self._may_start(table, now))
        groups = self.dag.groups(self._with_changed_companions(tables, now), self._beats.of)
        # Who has waited longest comes first, or tables with small numbers could starve the others.
        waiting = sorted(groups, key=lambda group: min(self._since.get(table, -math.inf) for table in group))
        return [self._begin(group, now) for group in waiting[:free]]

    def _due(self, now: float) -> frozenset[int]:
        by_time = frozenset(table for table, moment in self._next.items() if moment <= now)
        return by_time | followers_due(self._followers, now, changed=self.changed | self._unfilled, since=self._since)

    def _may_start(self, table: int, now: float) -> bool:
        if self._paced.get(table, -math.inf) > now or not self._is_free(table, now):
            return False
        # What is about to be tried again moves with all the rest.
        needed = self.dag.closure([table])
        peers = needed | self._beats.together(needed)
        return self.running.isdisjoint(peers) and all(self._again.get(peer, -math.inf) <= now for peer in peers)

    def _is_free(self, table: int, now: float) -> bool:
        needed = self.dag.closure([table])
        return self.running.isdisjoint(needed) and all(
            self._held.get(upstream, -math.inf) <= now for upstream in needed
        )

    def _with_changed_companions(self, tables: frozenset[int], now: float) -> frozenset[int]:
        """What is known to have changed comes along whatever its pace."""
        while more := {
            table
            for table in (self._beats.together(tables) & self.changed) - tables
            if self.dag.tables[table].refreshable and self._is_free(table, now)
        }:
            tables |= self.dag.closure(more)
        return tables

    def _begin(self, group: tuple[int, ...], now: float) -> Run:
        companions = tuple(table for table in self._beats.companions(group) if self._is_free(table, now))
        self.running.update(group)
        self.runs += 1
        # Its snapshot will be newer than any check so far.  What a check finds from here on may be newer than that.
        self.changed.difference_update(group)
        self.unsure.difference_update(group)
        failures = {table: self._failures.get(table, 0) for table in group + companions}
        quiet = self._quiet(group, companions)
        return Run(group, now, failures, self.settings.max_consecutive_errors, companions, self.graph, quiet)

    def _quiet(self, group: tuple[int, ...], companions: tuple[int, ...]) -> dict[int, Quiet]:
        """The sources of those companions that have nothing to read as long as these sources' marks don't move.

        A mark that is seen and under no suspicion: all who moved it had ended when its watchers were asked.
        """
        settled = self.marks.settled
        stirred = self.dag.below(group) | self.unsure | self.changed
        readers: dict[int, list[int]] = {}
        for table in companions:
            if table not in stirred and self._roots[table] <= settled:
                for source in self._roots[table]:
                    readers.setdefault(source, []).append(table)
        return {source: Quiet(self.marks.seen[source], tuple(reading)) for source, reading in readers.items()}

    def finished(self, run: Run, outcomes: Mapping[int, Outcome], *, now: float, jitter: float = 0.0) -> None:
        """Take in what became of a run: of its group, and of the companions that came along."""
        self.runs -= 1
        self.running.difference_update(run.group)
        for table, outcome in outcomes.items():
            if table in self.changed or outcome is not Outcome.REFRESHED:
                self.unsure.add(table)
            self._paced[table] = now + (now - run.started_at)
            match outcome:
                case Outcome.REFRESHED:
                    self._failures.pop(table, None)
                    self._penalties.pop(table, None)
                case Outcome.OUTDATED:
                    self.stale = True
                    self._again[table] = now + OUTDATED_SECONDS
                case Outcome.SKIPPED:
                    self._held[table] = now + retry.FIRST_DELAY_SECONDS
                case Outcome.RETRY:
                    self._failures[table] = self._failures.get(table, 0) + 1
                    self._again[table] = now + retry.delay(self._failures[table], jitter)
                case Outcome.FAILED:
                    self._failures.pop(table, None)
                    self._penalties[table] = self._penalties.get(table, 0) + 1
                    self._held[table] = now + self._penalty_seconds(table)
                    self.stale = True
            if outcome in (Outcome.REFRESHED, Outcome.FAILED):
                self._attempted(table, run.started_at)

    def _penalty_seconds(self, table: int) -> float:
        """An error that isn't going to pass by itself is tried again at the default pace, then ever slower."""
        doubled = self.settings.default_schedule_seconds * 2.0 ** min(self._penalties[table] - 1, 30)
        return min(doubled, LONGEST_PENALTY_SECONDS)

    def _attempted(self, table: int, at: float) -> None:
        self._since[table] = max(at, self._since.get(table, -math.inf))
        known = self.dag.tables.get(table)
        if known is not None:
            self.stale |= known.needs_reinit or not known.populated
            self._next[table] = next_at(known, since=self._since[table])

    @property
    def idle(self) -> bool:
        """Nothing is running, nothing is known to have changed, and nothing has to be asked for."""
        return not (self.stale or self.runs or self.unsure or self.changed & self._watched)


def _watchers(dag: Dag, watched: Iterable[int]) -> dict[int, frozenset[int]]:
    """Which of the watched tables to ask about when a source moves."""
    watchers: dict[int, set[int]] = {}
    for table in watched:
        for source in dag.tables[table].sources:
            watchers.setdefault(source, set()).add(table)
    return {source: frozenset(watching) for source, watching in watchers.items()}


def _roots(dag: Dag, table: int) -> frozenset[int]:
    """All sources whose changes reach a table, through others or directly."""
    return frozenset().union(*(dag.tables[above].sources for above in dag.closure([table])))


def _same_but_for_time(one: StreamTable, other: StreamTable) -> bool:
    return replace(one, last_refresh_at=None) == replace(other, last_refresh_at=None)
