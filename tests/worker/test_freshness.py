"""The worker on a real server: what was committed shows up, and how soon."""

from __future__ import annotations

import statistics
import threading
from itertools import pairwise

import pytest

from pg_trickle.worker.loop import SystemClock


@pytest.fixture
def orders(db, worker):
    """A table with a stream table on it, and one on top of that."""
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, amount numeric NOT NULL)")
    db.execute("INSERT INTO orders SELECT n, n % 10, n FROM generate_series(1, 100) AS n")
    for name, query in (
        ("totals", "SELECT customer, sum(amount) AS total FROM orders GROUP BY customer"),
        ("large", "SELECT customer, total FROM totals WHERE total > 500"),
    ):
        db.execute("SELECT pgtrickle.create_stream_table(%s, %s)", (name, query))
    worker.wait_until_idle()
    return db


def count(db, what):
    (found,) = db.execute(f"SELECT count(*) FROM {what}").fetchone()
    return found


class Waits(SystemClock):
    """Notes for how long the worker means to wait; for how long it does is also a matter of what else is running."""

    def __init__(self):
        self.seconds = 0.0

    def wait(self, event, seconds):
        self.seconds += seconds
        super().wait(event, seconds)


def test_a_commit_is_visible_within_milliseconds(orders, worker):
    waits = worker._clock = Waits()
    delays = []
    for number in range(1000, 1030):
        waits.seconds = 0.0
        orders.execute("INSERT INTO orders VALUES (%s, %s, 1)", (number, number))
        worker.wait_for(lambda customer=number: count(orders, f"totals WHERE customer = {customer}") == 1)
        delays.append(waits.seconds)
    # The aim is 20 ms, with all that there is to do; looks go on while that takes longer, waits between them included.
    assert statistics.median(delays) < 0.2


def test_both_tables_of_a_chain_are_right(orders, worker, assert_fresh):
    orders.execute("UPDATE orders SET amount = amount * 2 WHERE customer < 5")
    orders.execute("DELETE FROM orders WHERE customer = 7")
    worker.wait_until_idle()
    assert_fresh(orders, "totals")
    assert_fresh(orders, "large")


def test_a_chain_always_shows_one_moment(orders, worker, database):
    """A reader never sees the lower table behind, or ahead of, the upper one."""
    stopping = threading.Event()

    def write():
        with database.server.connect(database.name) as conn:
            while not stopping.is_set():
                conn.execute("UPDATE orders SET amount = amount + 100 WHERE id = 1 + (random() * 99)::int")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            (wrong,) = orders.execute(
                """SELECT count(*) FROM totals AS t FULL JOIN large AS l USING (customer)
                    WHERE (t.total > 500) IS DISTINCT FROM (l.customer IS NOT NULL) OR t.total <> l.total"""
            ).fetchone()
            assert wrong == 0
    finally:
        stopping.set()
        writer.join()
    worker.wait_until_idle()


def test_a_transaction_that_commits_late_is_not_overlooked(orders, worker, database, assert_fresh):
    late = database.connect(autocommit=False)
    late.execute("INSERT INTO orders VALUES (1000, 1000, 1)")
    for number in range(2000, 2005):
        orders.execute("INSERT INTO orders VALUES (%s, 2000, 1)", (number,))
        worker.wait_until_idle()
    assert count(orders, "totals WHERE customer = 1000") == 0
    late.commit()
    worker.wait_for(lambda: count(orders, "totals WHERE customer = 1000") == 1)
    worker.wait_until_idle()
    assert_fresh(orders, "totals")


def test_what_was_rolled_back_refreshes_nothing(orders, worker, database):
    before = count(orders, "pgtrickle.pgt_refresh_history")
    late = database.connect(autocommit=False)
    late.execute("INSERT INTO orders VALUES (1000, 1000, 1)")
    worker.wait_until_idle()
    late.rollback()
    worker.wait_until_idle()
    assert count(orders, "pgtrickle.pgt_refresh_history") == before


def test_a_duration_is_kept(orders, worker, monkeypatch):
    """From one moment when the worker says go to the next; when a thread has begun is up to the machine."""
    begun: list[tuple[tuple[int, ...], float]] = []
    start = worker._scheduler.start

    def noted(now):
        runs = start(now)
        begun.extend((run.group, run.started_at) for run in runs)
        return runs

    monkeypatch.setattr(type(worker._scheduler), "start", lambda _, now: noted(now))
    orders.execute("SELECT pgtrickle.alter_stream_table('large', schedule => NULL)")
    orders.execute("SELECT pgtrickle.create_stream_table('paced', 'SELECT id FROM orders', schedule => '1s')")
    (paced,) = orders.execute("SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'paced'").fetchone()
    orders.execute("DELETE FROM orders WHERE id = 1")
    worker.wait_for(lambda: count(orders, "paced") == 99)
    history = """pgtrickle.pgt_refresh_history WHERE pgt_name LIKE '%paced' AND initiated_by = 'SCHEDULER'"""
    worker.wait_for(lambda: count(orders, history) >= 3)
    moments = [moment for group, moment in begun if paced in group]
    assert len(moments) >= 3
    assert min(later - earlier for earlier, later in pairwise(moments)) >= 1


def test_a_table_without_a_schedule_stays_as_it_is(orders, worker):
    orders.execute("SELECT pgtrickle.create_stream_table('still', 'SELECT id FROM orders', schedule => NULL)")
    orders.execute("DELETE FROM orders WHERE id = 1")
    worker.wait_until_idle()
    assert count(orders, "still") == 100


def test_a_table_created_empty_is_filled(orders, worker):
    orders.execute("SELECT pgtrickle.create_stream_table('later', 'SELECT id FROM orders', initialize => false)")
    worker.wait_for(lambda: count(orders, "later") == 100)


def test_switched_off_nothing_is_refreshed_and_on_again_everything(orders, worker, assert_fresh, caplog):
    with caplog.at_level("INFO"):
        orders.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('enabled', 'off')")
        worker.wait_for(lambda: "scheduling switched off" in caplog.text)
    orders.execute("DELETE FROM orders WHERE customer = 3")
    # Requests are still compiled.
    orders.execute("SELECT pgtrickle.create_stream_table('while_off', 'SELECT id FROM orders')")
    worker.wait_until_idle()
    assert count(orders, "totals WHERE customer = 3") == 1
    orders.execute("DELETE FROM pgtrickle.pgt_settings")
    worker.wait_for(lambda: count(orders, "totals WHERE customer = 3") == 0)
    worker.wait_until_idle()
    assert_fresh(orders, "large")
