from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pg_trickle.worker.dag import Dag, StreamTable
from pg_trickle.worker.due import Calculated, Cron, Every, Never, followers, followers_due, next_at, schedule

NOON = datetime(2024, 3, 31, 12, 0, tzinfo=UTC).timestamp()


def table(
    number: int = 1, schedule: str | None = "calculated", seconds: float | None = None, *upstream: int, **facts: object
):
    made = StreamTable(
        number, f"t{number}", schedule=schedule, schedule_seconds=seconds, depends_on=frozenset(upstream)
    )
    return replace(made, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seconds", "meaning"),
    [
        (None, None, Never()),
        ("30s", 30.0, Every(30.0)),
        ("Calculated", None, Calculated()),
        ("*/5 * * * *", None, Cron("*/5 * * * *")),
        ("@hourly", None, Cron("0 * * * *")),
        ("0 0 31 13 *", None, Never()),
        ("nonsense", None, Never()),
        ("1," * 1000 + "1 * * * *", None, Never()),
    ],
)
def test_a_schedule_is_understood_or_means_never(text, seconds, meaning):
    assert schedule(table(1, text, seconds)) == meaning


@pytest.mark.parametrize(("tier", "factor"), [("hot", 1), ("warm", 2), ("cold", 10)])
def test_a_duration_counts_from_the_last_refresh_times_the_tier(tier, factor):
    assert next_at(table(1, "30s", 30.0, tier=tier), since=NOON) == NOON + 30 * factor


def test_a_frozen_table_is_never_due():
    assert next_at(table(1, "30s", 30.0, tier="frozen"), since=NOON) == math.inf


def test_a_table_that_was_never_filled_is_due_at_once():
    assert next_at(table(1, "1h", 3600.0, populated=False, status="INITIALIZING"), since=None) == -math.inf
    assert next_at(table(1, None, populated=False), since=None) == math.inf


@pytest.mark.parametrize(
    ("expression", "when"),
    [
        ("@hourly", datetime(2024, 3, 31, 13, 0, tzinfo=UTC)),
        ("30 12 * * *", datetime(2024, 3, 31, 12, 30, tzinfo=UTC)),
        ("15 30 12 * * *", datetime(2024, 3, 31, 12, 30, 15, tzinfo=UTC)),
        ("0 12 * * *", datetime(2024, 4, 1, 12, 0, tzinfo=UTC)),
        ("@monthly", datetime(2024, 4, 1, tzinfo=UTC)),
    ],
)
def test_cron_goes_by_utc_from_the_last_refresh_on(expression, when):
    assert next_at(table(1, expression), since=NOON) == when.timestamp()


def test_a_time_that_never_comes_is_never():
    assert next_at(table(1, "0 0 31 2 *"), since=NOON) == math.inf


def test_a_moment_missed_while_no_worker_ran_is_made_up_for():
    assert next_at(table(1, "@hourly"), since=NOON) < NOON + 3 * 3600


def test_a_calculated_table_goes_with_the_dependant_that_has_a_schedule():
    dag = Dag.of([table(1), table(2, "1h", 3600.0, 1)])
    assert followers(dag, default_seconds=1) == ()


def test_the_last_calculated_table_of_a_chain_follows_for_all_of_it():
    dag = Dag.of([table(1), table(2, "calculated", None, 1), table(3, "calculated", None, 2)])
    (follower,) = followers(dag, default_seconds=1)
    assert follower.id == 3
    assert follower.watched == {1, 2, 3}
    assert follower.every is None


def test_a_dependant_that_is_never_refreshed_asks_for_nothing():
    for dependant in (
        table(2, None, None, 1),
        table(2, "1s", 1.0, 1, status="SUSPENDED"),
        table(2, "1s", 1.0, 1, tier="frozen"),
    ):
        (follower,) = followers(Dag.of([table(1), dependant]), default_seconds=1)
        assert follower.id == 1


def test_an_upstream_with_a_schedule_of_its_own_is_not_followed():
    dag = Dag.of([table(1, "1h", 3600.0), table(2, "calculated", None, 1)])
    (follower,) = followers(dag, default_seconds=1)
    assert follower.watched == {2}


def test_a_follower_is_due_when_something_it_watches_changed():
    dag = Dag.of([table(1), table(2, "calculated", None, 1)])
    every = followers(dag, default_seconds=1)
    assert followers_due(every, NOON, changed={1}, since={}) == {2}
    assert followers_due(every, NOON, changed=set(), since={}) == frozenset()


def test_what_cannot_be_watched_goes_by_the_clock():
    every = followers(Dag.of([table(1, watched=False)]), default_seconds=5)
    assert followers_due(every, NOON + 4, changed={1}, since={1: NOON}) == frozenset()
    assert followers_due(every, NOON + 5, changed=set(), since={1: NOON}) == {1}


def test_a_condition_on_the_time_needs_no_change_but_takes_one_at_once():
    every = followers(Dag.of([table(1, timed=True)]), default_seconds=5)
    assert followers_due(every, NOON + 1, changed={1}, since={1: NOON}) == {1}
    assert followers_due(every, NOON + 4, changed=set(), since={1: NOON}) == frozenset()
    assert followers_due(every, NOON + 5, changed=set(), since={1: NOON}) == {1}
    cold = followers(Dag.of([table(1, timed=True, tier="cold")]), default_seconds=1)
    assert followers_due(cold, NOON + 9, changed={1}, since={1: NOON}) == frozenset()
    assert followers_due(cold, NOON + 10, changed=set(), since={1: NOON}) == {1}


def test_whoever_reads_a_condition_on_the_time_follows_the_time():
    (follower,) = followers(Dag.of([table(1, timed=True), table(2, "calculated", None, 1)]), default_seconds=5)
    assert follower.id == 2
    assert followers_due([follower], NOON + 5, changed=set(), since={2: NOON}) == {2}


def test_a_cold_follower_waits_for_a_change_and_for_its_time():
    every = followers(Dag.of([table(1, tier="cold")]), default_seconds=1)
    assert followers_due(every, NOON + 9, changed={1}, since={1: NOON}) == frozenset()
    assert followers_due(every, NOON + 10, changed=set(), since={1: NOON}) == frozenset()
    assert followers_due(every, NOON + 10, changed={1}, since={1: NOON}) == {1}
