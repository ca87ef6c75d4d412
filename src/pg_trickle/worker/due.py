"""Which stream tables are due at a given time.  Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from pg_trickle.worker.dag import Dag, StreamTable

TIERS = {"hot": 1.0, "warm": 2.0, "cold": 10.0}
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# No cron expression worth having is longer, and the time to parse one grows with its length.
LONGEST_CRON_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Every:
    """Each time that many seconds have passed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cron:
    """At the times that a cron expression names, in UTC."""

    expression: str


@dataclass(frozen=True, slots=True)
class Calculated:
    """As fresh as the tightest dependant needs; without dependants, as soon as sources change."""


@dataclass(frozen=True, slots=True)
class Never:
    """Not by itself."""


Schedule = Every | Cron | Calculated | Never


def schedule(table: StreamTable) -> Schedule:
    """The meaning of a stream table's schedule; Never if it can't be understood."""
    if table.schedule is None:
        return Never()
    if table.schedule_seconds is not None:
        return Every(table.schedule_seconds)
    text = table.schedule.strip()
    if text.lower() == "calculated":
        return Calculated()
    expression = ALIASES.get(text.lower(), text)
    try:
        if len(expression) <= LONGEST_CRON_CHARACTERS:
            CronSim(expression, datetime.fromtimestamp(0, UTC))
            return Cron(expression)
    except CronSimError:
        pass
    return Never()


def next_at(table: StreamTable, *, since: float | None) -> float:
    """When a table with a time table of its own is due next, its last attempt having been at ``since``.

    Infinity if it has none.  One that was never refreshed is due at once.
    """
    when = schedule(table)
    if isinstance(when, Calculated | Never) or not table.refreshable:
        return math.inf
    if since is None or table.needs_reinit or not table.populated:
        return -math.inf
    if isinstance(when, Every):
        return since + when.seconds * TIERS[table.tier]
    moment = next(CronSim(when.expression, datetime.fromtimestamp(since, UTC)), None)
    return math.inf if moment is None else moment.timestamp()


@dataclass(frozen=True, slots=True)
class Follower:
    """A ``calculated`` table that nobody's schedule asks for: due when one of ``watched`` changed.

    ``every`` is set when it has to be looked after by the clock: a source can't be watched, or its tier wants it rarer.
    ``clock`` is set when it is due after that time as well, changed or not: its query has conditions on the time.
    """

    id: int
    watched: frozenset[int]
    every: float | None
    waits_for_change: bool
    clock: float | None = None


def followers(dag: Dag, *, default_seconds: float) -> tuple[Follower, ...]:
    """The ``calculated`` tables without a dependant that asks for them."""
    return tuple(
        _follower(dag, table, default_seconds=default_seconds)
        for table in dag.tables.values()
        if table.refreshable and isinstance(schedule(table), Calculated) and not _asked_for(dag, table)
    )


def _asked_for(dag: Dag, table: StreamTable) -> bool:
    """Whether a dependant wants it: one with a time table does, and a ``calculated`` one passes on who wants it."""
    together = dag.together(table)
    dependants = {dependant for member in together for dependant in dag.dependants[member]}
    # In a circle everybody is somebody's dependant; those without a time table wait for the others' and for changes.
    asking = (dag.tables[one] for one in dependants if one not in together or _has_times(dag.tables[one]))
    return any(dependant.refreshable and not isinstance(schedule(dependant), Never) for dependant in asking)


def _has_times(table: StreamTable) -> bool:
    return isinstance(schedule(table), Every | Cron)


def _follower(dag: Dag, table: StreamTable, *, default_seconds: float) -> Follower:
    """Changes reach it through ``calculated`` tables alone: one with a schedule of its own passes them on by that."""
    watched: set[int] = set()
    to_visit = [table.id]
    while to_visit:
        upstream = dag.tables.get(to_visit.pop())
        if upstream is None or upstream.id in watched or not upstream.refreshable:
            continue
        if isinstance(schedule(upstream), Calculated):
            watched.add(upstream.id)
            to_visit.extend(upstream.depends_on)
    by_the_clock = any(not dag.tables[upstream].watched and not dag.tables[upstream].timed for upstream in watched)
    timed = any(dag.tables[upstream].timed for upstream in watched)
    seconds = default_seconds * TIERS[table.tier]
    rarer = TIERS[table.tier] > 1
    return Follower(
        id=table.id,
        watched=frozenset(watched),
        every=seconds if by_the_clock or rarer else None,
        waits_for_change=not by_the_clock,
        clock=seconds if timed else None,
    )


def followers_due(
    candidates: Collection[Follower],
    now: float,
    *,
    changed: Collection[int],
    since: Mapping[int, float],
) -> frozenset[int]:
    """Those of the followers that are due: changed, or by the clock."""
    return frozenset(
        follower.id
        for follower in candidates
        if _is_over(follower, follower.clock, now, since)
        or (
            (not follower.waits_for_change or not follower.watched.isdisjoint(changed))
            and (follower.every is None or _is_over(follower, follower.every, now, since))
        )
    )


def _is_over(follower: Follower, seconds: float | None, now: float, since: Mapping[int, float]) -> bool:
    return seconds is not None and now >= since.get(follower.id, -math.inf) + seconds
