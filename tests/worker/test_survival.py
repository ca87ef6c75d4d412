"""Nothing is lost when the worker dies, or the server, or when there are two workers."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager

import psycopg
import pytest

import pg_trickle
from pg_trickle.worker.loop import Worker

WORKER_ROLE = "pgtrickle_worker"


@pytest.fixture
def sums(db, worker):
    """A stream table over a table that the tests write to."""
    db.execute("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k int NOT NULL, v int NOT NULL)")
    db.execute("SELECT pgtrickle.create_stream_table('sums', 'SELECT k, sum(v) AS v, count(*) AS n FROM t GROUP BY k')")
    db.execute("SELECT pgtrickle.create_stream_table('big', 'SELECT k, v FROM sums WHERE v > 10')")
    worker.wait_until_idle()
    return db


def caught_up(db):
    (behind,) = db.execute("SELECT (SELECT count(*) FROM t) - (SELECT coalesce(sum(n), 0) FROM sums)").fetchone()
    return behind == 0


class Writer(threading.Thread):
    """Writes until told to stop, and starts over when the server goes away."""

    def __init__(self, database):
        super().__init__()
        self.database = database
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self.database.dsn, autocommit=True) as conn:
                    while not self.stopping.is_set():
                        conn.execute("INSERT INTO t (k, v) SELECT n % 7, n FROM generate_series(1, 20) AS n")
                        conn.execute("UPDATE t SET v = v + 1 WHERE id = (SELECT min(id) + 3 FROM t)")
                        conn.execute("DELETE FROM t WHERE id = (SELECT min(id) FROM t)")
            except psycopg.OperationalError:
                self.stopping.wait(0.05)

    def end(self):
        self.stopping.set()
        self.join()


@pytest.fixture
def writer(database):
    made = Writer(database)
    yield made
    if made.is_alive():
        made.end()


def test_a_killed_worker_is_succeeded_and_nothing_is_lost(sums, worker, database, writer, assert_fresh):
    worker.stop()
    command = [sys.executable, "-m", "pg_trickle.cli.main", "worker", "--dsn", database.dsn_of(WORKER_ROLE)]
    writer.start()
    for _ in range(3):
        (before,) = sums.execute("SELECT coalesce(max(refresh_id), 0) FROM pgtrickle.pgt_refresh_history").fetchone()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for_refresh_after(sums, before)
        finally:
            process.kill()
            process.wait()
    successor = Worker(database.dsn_of(WORKER_ROLE))
    successor.start()
    try:
        writer.end()
        successor.wait_for(lambda: successor.is_active)
        successor.wait_for(lambda: caught_up(sums))
        successor.wait_until_idle()
        assert_fresh(sums, "sums")
        assert_fresh(sums, "big")
    finally:
        successor.stop()


def wait_for_refresh_after(db, refresh_id):
    bystander = Worker("")

    def refreshed():
        return db.execute(
            "SELECT FROM pgtrickle.pgt_refresh_history WHERE refresh_id > %s AND success", (refresh_id,)
        ).fetchone()

    bystander.wait_for(lambda: refreshed() is not None)


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_the_server_goes_away_and_comes_back(sums, worker, database, writer, assert_fresh, how):
    writer.start()
    worker.wait_for(lambda: sums.execute("SELECT count(*) > 100 FROM t").fetchone() == (True,))
    if how == "crash":
        database.server.crash()
    database.server.restart()
    db = database.connect()
    (before,) = db.execute("SELECT coalesce(max(refresh_id), 0) FROM pgtrickle.pgt_refresh_history").fetchone()
    wait_for_refresh_after(db, before)
    writer.end()
    worker.wait_for(lambda: caught_up(db))
    worker.wait_until_idle()
    assert_fresh(db, "sums")
    assert_fresh(db, "big")


def test_of_two_workers_one_works_and_the_other_takes_over(sums, worker, database):
    second = Worker(database.dsn_of(WORKER_ROLE))
    second.start()
    try:
        sums.execute("INSERT INTO t (k, v) VALUES (1, 1)")
        worker.wait_for(lambda: caught_up(sums))
        assert not second.is_active
        worker.stop()
        second.wait_for(lambda: second.is_active)
        sums.execute("INSERT INTO t (k, v) VALUES (1, 1)")
        second.wait_for(lambda: caught_up(sums))
    finally:
        second.stop()


def test_cut_connections_are_made_anew(sums, worker):
    sums.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (WORKER_ROLE,))
    sums.execute("INSERT INTO t (k, v) VALUES (1, 1)")
    worker.wait_for(lambda: caught_up(sums))


@contextmanager
def dropped(db, database):
    """A transaction that has dropped a stream table, and its capture, and is still open."""
    db.execute("CREATE TABLE u (a int)")
    pg_trickle.create_stream_table(db, "other", "SELECT a FROM u")
    conn = database.connect()
    conn.execute("BEGIN")
    conn.execute("SELECT pgtrickle.drop_stream_table('other')")
    try:
        yield conn
    finally:
        conn.execute("ROLLBACK")


def test_who_drops_a_stream_table_and_takes_his_time_keeps_no_other_waiting(sums, worker, database):
    sessions = "SELECT pid FROM pg_stat_activity WHERE usename = %s"
    before = set(sums.execute(sessions, (WORKER_ROLE,)))
    with dropped(sums, database) as dropping:
        for end in ("SELECT", "COMMIT"):
            dropping.execute(end)
            sums.execute("INSERT INTO t (k, v) VALUES (1, 1)")
            worker.wait_for(lambda: caught_up(sums))
    worker.wait_until_idle()
    assert before <= set(sums.execute(sessions, (WORKER_ROLE,)))


def test_a_look_outlives_the_drop_that_it_waited_for(sums, worker, database):
    worker.stop()
    sums.execute("ALTER FUNCTION pgtrickle_changes.buffer_marks(oid[]) SET lock_timeout = 0")
    looking = database.connect(WORKER_ROLE)
    seen = []
    look = threading.Thread(
        target=lambda: seen.extend(looking.execute("SELECT high_water FROM pgtrickle_changes.worker_poll()").fetchone())
    )
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
    with dropped(sums, database) as dropping:
        look.start()
        worker.wait_for(lambda: sums.execute(waiting, (looking.info.backend_pid,)).fetchone() == (1,))
        dropping.execute("COMMIT")
    look.join()
    assert len(seen) == 1


def test_writers_on_two_connections_while_the_worker_refreshes(sums, worker, database, assert_fresh):
    writers = [Writer(database), Writer(database)]
    for one in writers:
        one.start()
    (before,) = sums.execute("SELECT coalesce(max(refresh_id), 0) FROM pgtrickle.pgt_refresh_history").fetchone()
    wait_for_refresh_after(sums, before + 20)
    for one in writers:
        one.end()
    worker.wait_for(lambda: caught_up(sums))
    worker.wait_until_idle()
    assert_fresh(sums, "sums")
    assert_fresh(sums, "big")


def test_a_worker_stops_although_a_refresh_takes_forever(sums, worker):
    sums.execute(
        """CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql STABLE AS
           $$BEGIN PERFORM pg_sleep(CASE WHEN $1 > 1000 THEN 1000 ELSE 0 END); RETURN $1; END$$"""
    )
    sums.execute("SELECT pgtrickle.create_stream_table('slowly', 'SELECT public.slow(v) AS v FROM t')")
    sums.execute("INSERT INTO t (k, v) VALUES (1, 1001)")
    worker.wait_for(
        lambda: sums.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone() is not None
    )
    worker.stop()
    (status,) = sums.execute("SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'slowly'").fetchone()
    assert status == "ACTIVE"
