from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_trickle.worker.marks import Marks, Snapshot, full_xid

SOURCE = 7


@pytest.mark.parametrize(
    ("text", "snapshot"),
    [("10:10:", Snapshot(10, 10)), ("10:15:10,12", Snapshot(10, 15, frozenset({10, 12})))],
)
def test_a_snapshot_is_read(text, snapshot):
    assert Snapshot.parse(text) == snapshot


def test_a_source_that_moved_is_looked_at_until_its_writer_has_ended():
    marks = Marks()
    marks.observe({SOURCE: 1})
    writing = Snapshot.parse("10:10:")  # transaction 10 is running
    assert marks.to_check(writing) == {SOURCE}
    marks.checked([SOURCE], writing, next_xid=11)
    assert marks.to_check(writing) == frozenset()
    committed = Snapshot.parse("11:11:")
    assert marks.to_check(committed) == {SOURCE}
    marks.checked([SOURCE], committed, next_xid=11)
    assert not marks.suspects


def test_an_open_transaction_costs_nothing_while_others_come_and_go():
    marks = Marks()
    marks.observe({SOURCE: 1})
    marks.checked([SOURCE], Snapshot.parse("10:10:"), next_xid=11)
    for last in range(12, 30):
        assert marks.to_check(Snapshot.parse(f"10:{last}:10")) == frozenset()
    assert marks.to_check(Snapshot.parse("30:30:")) == {SOURCE}


def test_a_mark_that_moves_again_extends_the_suspicion():
    marks = Marks()
    marks.observe({SOURCE: 1})
    first = Snapshot.parse("10:10:")
    marks.checked([SOURCE], first, next_xid=11)
    assert marks.observe({SOURCE: 2})
    assert marks.to_check(first) == frozenset()
    later = Snapshot.parse("10:12:10")
    assert marks.to_check(later) == {SOURCE}
    marks.checked([SOURCE], later, next_xid=13)
    assert marks.suspects[SOURCE].limit == 13


def test_a_mark_that_stays_raises_no_suspicion():
    marks = Marks()
    marks.observe({SOURCE: 1})
    quiet = Snapshot.parse("10:10:")
    marks.checked([SOURCE], quiet, next_xid=10)
    assert not marks.observe({SOURCE: 1})
    assert marks.to_check(quiet) == frozenset()


def test_a_source_that_is_gone_is_forgotten():
    marks = Marks()
    marks.observe({SOURCE: 1})
    marks.observe({})
    assert marks.to_check(Snapshot.parse("10:10:")) == frozenset()


@pytest.mark.parametrize(
    ("low", "at_least", "full"), [(11, 10, 11), (10, 10, 10), (3, 2**32 - 1, 2**32 + 3), (-5, 2**32 - 9, 2**32 - 5)]
)
def test_the_upper_half_of_a_transaction_id_is_found_again(low, at_least, full):
    assert full_xid(low, at_least=at_least) == full


SIZE = 8


@given(
    writers=st.lists(st.tuples(st.integers(0, SIZE - 1), st.sampled_from(["write", "end"])), max_size=40),
)
def test_no_commit_is_overlooked(writers):
    """Transactions write and end in any order, with a look after each step: no writer's end goes without a check."""
    marks, mark = Marks(), 0
    running: set[int] = set()
    next_xid, latest_ended = 1, 0
    wrote: dict[int, bool] = {}
    slots: dict[int, int] = {}
    for slot, step in writers:
        if step == "write":
            if slot not in slots:
                slots[slot], next_xid = next_xid, next_xid + 1
                running.add(slots[slot])
            mark += 1
            wrote[slots[slot]] = True
            ended = None
        elif slot in slots:
            ended = slots.pop(slot)
            running.discard(ended)
            latest_ended = max(latest_ended, ended)
        else:
            continue
        snapshot = _snapshot(running, latest_ended)
        marks.observe({SOURCE: mark})
        to_check = marks.to_check(snapshot)
        assert SOURCE in to_check or ended is None or not wrote.get(ended)
        marks.checked(to_check, snapshot, next_xid=next_xid)
    for xid in sorted(running):
        running.discard(xid)
        latest_ended = max(latest_ended, xid)
    snapshot = _snapshot(running, latest_ended)
    marks.checked(marks.to_check(snapshot), snapshot, next_xid=next_xid)
    assert not marks.suspects


def _snapshot(running: set[int], latest_ended: int) -> Snapshot:
    """As PostgreSQL takes it: what began after the last to end is not listed."""
    xmax = latest_ended + 1
    listed = frozenset(xid for xid in running if xid < xmax)
    return Snapshot(min(listed, default=xmax), xmax, listed)
