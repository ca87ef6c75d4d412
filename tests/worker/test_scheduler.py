from __future__ import annotations

from dataclasses import replace
from typing import Any

from pg_trickle.worker.dag import StreamTable
from pg_trickle.worker.marks import Snapshot
from pg_trickle.worker.scheduler import Outcome, Run, Scheduler, Settings

ORDERS, CUSTOMERS = 100, 101
# The stream tables of these numbers, as sources.
TABLE_1, TABLE_2 = 201, 202
QUIET = Snapshot(50, 50)
DEFAULTS = Settings()


def table(number: int, *upstream: int, sources: tuple[int, ...] = (ORDERS,), **facts: object) -> StreamTable:
    made = StreamTable(
        number, f"t{number}", depends_on=frozenset(upstream), sources=frozenset(sources), last_refresh_at=0.0
    )
    return replace(made, **facts)  # type: ignore[arg-type]


def every(seconds: float) -> dict[str, Any]:
    return {"schedule": f"{seconds}s", "schedule_seconds": seconds}


def made(*tables: StreamTable, settings: Settings = DEFAULTS) -> Scheduler:
    """A scheduler that has looked at everything and found nothing."""
    scheduler = Scheduler()
    scheduler.load(tables, settings)
    scheduler.observe({ORDERS: 0, CUSTOMERS: 0})
    look(scheduler)
    return scheduler


def look(scheduler: Scheduler, *pending: int) -> None:
    check = scheduler.to_check(QUIET)
    scheduler.checked(check, pending=check.tables & set(pending), snapshot=QUIET, next_xid=50)


def write(scheduler: Scheduler, *pending: int, mark: int = 1) -> None:
    """Somebody wrote to orders and committed, which concerns these tables."""
    scheduler.observe({ORDERS: mark, CUSTOMERS: 0})
    look(scheduler, *pending)


def write_both(scheduler: Scheduler, *pending: int, mark: int = 1) -> None:
    """Somebody wrote to orders and customers."""
    scheduler.observe({ORDERS: mark, CUSTOMERS: mark})
    look(scheduler, *pending)


def finish(scheduler: Scheduler, run: Run, now: float, outcome: Outcome = Outcome.REFRESHED) -> None:
    scheduler.finished(run, dict.fromkeys(run.group, outcome), now=now)


def test_nothing_changed_nothing_to_do():
    scheduler = made(table(1))
    assert scheduler.start(10.0) == []
    assert scheduler.idle


def test_a_change_is_refreshed_with_all_that_share_the_source():
    scheduler = made(table(1), table(2), table(3, sources=(CUSTOMERS,)))
    write(scheduler, 1, 2)
    (run,) = scheduler.start(10.0)
    assert run.group == (1, 2)
    assert not scheduler.idle
    finish(scheduler, run, 10.01)
    assert scheduler.idle


def test_upstream_tables_are_refreshed_with_the_one_that_is_due():
    scheduler = made(table(1, schedule=None), table(2, 1, sources=(200,), **every(60)))
    (run,) = scheduler.start(61.0)
    assert run.group == (1, 2)


def test_a_second_change_waits_for_as_long_as_the_first_refresh_took():
    scheduler = made(table(1))
    write(scheduler, 1)
    (run,) = scheduler.start(10.0)
    finish(scheduler, run, 12.0)
    write(scheduler, 1, mark=2)
    assert scheduler.start(13.9) == []
    assert len(scheduler.start(14.0)) == 1


def test_a_change_seen_while_refreshing_is_asked_for_again_afterwards():
    scheduler = made(table(1))
    write(scheduler, 1)
    (run,) = scheduler.start(10.0)
    write(scheduler, 1, mark=2)
    assert scheduler.start(10.0) == []
    finish(scheduler, run, 10.0)
    assert scheduler.to_check(QUIET).tables == {1}
    look(scheduler, 1)
    assert len(scheduler.start(10.1)) == 1


def test_a_table_that_is_being_refreshed_holds_up_what_needs_it():
    scheduler = made(table(1), table(2, 1, sources=(200,), **every(60)), table(3, sources=(CUSTOMERS,), **every(60)))
    (one, three) = scheduler.start(61.0)
    assert (one.group, three.group) == ((1, 2), (3,))
    finish(scheduler, three, 61.0)
    assert [run.group for run in scheduler.start(200.0)] == [(3,)]


def test_no_more_runs_at_once_than_allowed_and_the_longest_waiting_first():
    tables = [table(n, sources=(200 + n,), **every(10), last_refresh_at=float(-n)) for n in range(1, 4)]
    scheduler = made(*tables, settings=Settings(max_concurrent_refreshes=2))
    runs = scheduler.start(20.0)
    assert [run.group for run in runs] == [(3,), (2,)]
    assert scheduler.start(20.0) == []
    finish(scheduler, runs[0], 20.1)
    assert [run.group for run in scheduler.start(20.1)] == [(1,)]


def test_a_transient_failure_is_retried_after_a_growing_delay():
    scheduler = made(table(1))
    write(scheduler, 1)
    now = 10.0
    for failures, delay in enumerate((0.1, 0.2, 0.4)):
        (run,) = scheduler.start(now)
        assert run.failures == {1: failures}
        finish(scheduler, run, now, Outcome.RETRY)
        look(scheduler, 1)
        assert scheduler.start(now + delay * 0.9) == []
        now += delay
    (run,) = scheduler.start(now)
    finish(scheduler, run, now)
    write(scheduler, 1, mark=2)
    assert scheduler.start(now + 1)[0].failures == {1: 0}


def test_a_recorded_failure_is_tried_again_at_the_default_pace_then_slower():
    scheduler = made(table(1))
    write(scheduler, 1)
    now = 10.0
    for pause in (1.0, 2.0, 4.0):
        (run,) = scheduler.start(now)
        finish(scheduler, run, now, Outcome.FAILED)
        assert scheduler.stale
        look(scheduler, 1)
        assert scheduler.start(now + pause * 0.9) == []
        now += pause


def test_a_held_upstream_holds_its_dependants_and_nobody_else():
    scheduler = made(table(1), table(2, 1, sources=(200,), **every(5)), table(3, sources=(CUSTOMERS,), **every(5)))
    runs = scheduler.start(5.0)
    for run in runs:
        scheduler.finished(
            run, {1: Outcome.FAILED, 2: Outcome.SKIPPED} if 1 in run.group else {3: Outcome.REFRESHED}, now=5.0
        )
    assert [run.group for run in scheduler.start(10.0)] == [(1, 2), (3,)]
    scheduler = made(table(1), table(2, 1, sources=(200,), **every(5)))
    (run,) = scheduler.start(5.0)
    scheduler.finished(run, {1: Outcome.FAILED, 2: Outcome.SKIPPED}, now=5.0)
    assert scheduler.start(5.9) == []
    assert [run.group for run in scheduler.start(6.0)] == [(1, 2)]


def test_once_suspended_a_table_no_longer_holds_up_its_dependants():
    tables = table(1), table(2, 1, sources=(200,), **every(5))
    scheduler = made(*tables)
    (run,) = scheduler.start(5.0)
    scheduler.finished(run, {1: Outcome.FAILED, 2: Outcome.SKIPPED}, now=5.0)
    scheduler.load([replace(tables[0], status="SUSPENDED"), tables[1]], DEFAULTS)
    assert [run.group for run in scheduler.start(5.5)] == [(2,)]


def test_a_resumed_table_is_asked_about():
    scheduler = made(table(1, status="SUSPENDED"))
    write(scheduler)
    assert scheduler.start(10.0) == []
    scheduler.load([table(1)], DEFAULTS)
    assert scheduler.to_check(QUIET).tables == {1}


def test_a_table_to_be_filled_needs_no_change_to_be_due():
    scheduler = made(table(1, populated=False, status="INITIALIZING", last_refresh_at=None))
    (run,) = scheduler.start(1.0)
    finish(scheduler, run, 1.0)
    assert scheduler.stale


def test_a_source_that_nobody_follows_is_not_looked_at():
    scheduler = made(table(1, **every(60)))
    assert not scheduler.observe({ORDERS: 5})
    assert scheduler.to_check(QUIET).sources == frozenset()


def test_after_an_interruption_everything_is_looked_at_again():
    scheduler = made(table(1))
    scheduler.forget()
    assert scheduler.stale
    scheduler.load([table(1)], DEFAULTS)
    assert scheduler.observe({ORDERS: 0})
    assert scheduler.to_check(QUIET).tables == {1}


def test_a_dropped_table_leaves_nothing_behind():
    scheduler = made(table(1), table(2))
    write(scheduler, 1, 2)
    (run,) = scheduler.start(1.0)
    scheduler.load([table(2)], DEFAULTS)
    finish(scheduler, run, 1.1)
    look(scheduler)
    scheduler.load([table(2)], DEFAULTS)
    assert scheduler.idle


def connected() -> tuple[StreamTable, ...]:
    """One on orders, one on customers, and one on both, by which they have a beat."""
    return table(1), table(2, sources=(CUSTOMERS,)), table(3, sources=(ORDERS, CUSTOMERS))


def test_what_is_connected_comes_along_if_it_has_changed_by_then():
    scheduler = made(*connected(), table(4, sources=(CUSTOMERS,), schedule=None))
    write(scheduler, 1, 3)
    (run,) = scheduler.start(10.0)
    assert (run.group, run.companions) == ((1, 3), (2,))
    scheduler.finished(run, {1: Outcome.REFRESHED, 3: Outcome.REFRESHED, 2: Outcome.REFRESHED}, now=10.1)
    assert scheduler.idle


def readers(run: Run) -> dict[int, tuple[int, tuple[int, ...]]]:
    return {source: (known.mark, known.readers) for source, known in run.quiet.items()}


def test_companions_of_sources_that_are_settled_are_not_asked_while_their_marks_stand():
    """2 has nothing to read unless customers' mark moves; 4, which reads 2, neither."""
    scheduler = made(*connected(), table(4, 2, sources=(TABLE_2,)))
    scheduler.observe({ORDERS: 0, CUSTOMERS: 5, TABLE_2: 7})
    look(scheduler)
    scheduler.observe({ORDERS: 1, CUSTOMERS: 5, TABLE_2: 7})
    look(scheduler, 1, 3)
    (run,) = scheduler.start(10.0)
    assert (run.group, run.companions) == ((1, 3), (2, 4))
    assert readers(run) == {CUSTOMERS: (5, (2, 4)), TABLE_2: (7, (4,))}


def test_a_companion_is_asked_if_somebody_who_wrote_its_source_is_still_under_way():
    scheduler = made(*connected())
    look(scheduler)
    scheduler.observe({ORDERS: 1, CUSTOMERS: 1})
    writing = Snapshot(90, 100, frozenset((90,)))
    scheduler.checked(scheduler.to_check(writing), pending={1, 3}, snapshot=writing, next_xid=100)
    (run,) = scheduler.start(10.0)
    assert (run.group, run.companions, readers(run)) == ((1, 3), (2,), {})


def test_a_companion_is_asked_if_what_it_reads_is_refreshed_or_nobody_knows_about_it():
    by_time = table(3, 1, sources=(TABLE_1,), **every(60))
    scheduler = made(table(1), table(2, 1, sources=(TABLE_1,)), by_time, table(4))
    scheduler.observe({ORDERS: 1, TABLE_1: 1})
    look(scheduler)
    scheduler.unsure.add(4)
    (run,) = scheduler.start(61.0)
    assert (run.group, run.companions, readers(run)) == ((1, 3), (2, 4), {})


def test_what_a_schedule_takes_along_takes_its_beat_along():
    """1 is refreshed because 3 is due, and 2 reads 1."""
    scheduler = made(table(1), table(2, 1, sources=(200,)), table(3, 1, sources=(200,), **every(60)))
    (run,) = scheduler.start(61.0)
    assert (run.group, run.companions) == ((1, 3), (2,))


def test_a_beat_has_one_run_at_a_time():
    scheduler = made(*connected())
    write(scheduler, 1, 3)
    (run,) = scheduler.start(10.0)
    write_both(scheduler, 2)
    assert scheduler.start(10.0) == []
    finish(scheduler, run, 10.0)
    assert [run.group for run in scheduler.start(10.0)] == [(2,)]


def test_two_of_a_beat_that_are_due_are_one_run_whatever_connects_them():
    scheduler = made(*connected())
    write_both(scheduler, 1, 2)
    assert [(run.group, run.companions) for run in scheduler.start(10.0)] == [((1, 2), (3,))]


def test_what_is_known_to_have_changed_comes_along_whatever_its_pace():
    scheduler = made(*connected())
    write_both(scheduler, 2)
    (run,) = scheduler.start(10.0)
    finish(scheduler, run, 20.0)
    write_both(scheduler, 1, 2, mark=2)
    assert [run.group for run in scheduler.start(21.0)] == [(1, 2)]


def test_the_whole_beat_waits_for_what_is_to_be_tried_again_and_not_for_what_failed():
    for outcome, groups in ((Outcome.RETRY, []), (Outcome.OUTDATED, []), (Outcome.FAILED, [(2,)])):
        scheduler = made(*connected())
        write(scheduler, 1)
        (run,) = scheduler.start(10.0)
        finish(scheduler, run, 10.0, outcome)
        write_both(scheduler, 1, 2)
        assert [run.group for run in scheduler.start(10.0)] == groups, outcome


def test_who_failed_is_no_companion():
    scheduler = made(*connected())
    write(scheduler, 3)
    (run,) = scheduler.start(10.0)
    assert (run.group, run.companions) == ((3,), (1, 2))
    finish(scheduler, run, 10.0, Outcome.FAILED)
    write(scheduler, 1, mark=2)
    assert [(run.group, run.companions) for run in scheduler.start(10.0)] == [((1,), (2,))]


def test_after_an_outdated_graph_comes_the_present_one():
    scheduler = made(table(1))
    write(scheduler, 1)
    (run,) = scheduler.start(10.0)
    assert run.graph == 0
    finish(scheduler, run, 10.0, Outcome.OUTDATED)
    assert scheduler.stale
    scheduler.load([table(1), table(2)], DEFAULTS, graph=7)
    look(scheduler, 1)
    (run,) = scheduler.start(10.01)
    assert (run.group, run.companions, run.graph) == ((1,), (2,), 7)
