"""A worker that is there but does nothing is noticed by whoever waits for it; one that is busy isn't taken for one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psycopg
import pytest

from pg_trickle.testing.process import wait_until

WORKER_ROLE = "pgtrickle_worker"


@pytest.fixture
def process(database):
    """A worker of its own process, that can be stopped."""
    command = [sys.executable, "-m", "pg_trickle.cli.main", "worker", "--dsn", database.dsn_of(WORKER_ROLE)]
    made = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    yield made
    made.send_signal(signal.SIGCONT)
    made.terminate()
    made.wait()


def running(db):
    return db.execute("SELECT pgtrickle_changes.worker_is_running()").fetchone() == (True,)


def test_a_hung_worker_is_an_error_and_not_waited_for(db, process):
    db.execute("CREATE TABLE t (a int)")
    assert wait_until(lambda: running(db), 60)
    db.execute("SELECT pgtrickle.create_stream_table('one', 'SELECT a FROM t')")
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="hangs") as caught:
        db.execute("SELECT pgtrickle.create_stream_table('two', 'SELECT a FROM t')")
    # After 1.5 s on a machine that has nothing else to do; who only compiles for long is waited for for half a minute.
    assert time.monotonic() - began < 15
    assert "Continue its process" in str(caught.value.diag.message_hint)
    detail = "SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'worker_running'"
    assert wait_until(lambda: db.execute(detail).fetchone()[0] == "ERROR", 60)
    assert "hangs" in db.execute(detail).fetchone()[1]
    process.send_signal(signal.SIGCONT)
    assert wait_until(lambda: db.execute(detail).fetchone()[0] == "OK", 60)
    db.execute("SELECT pgtrickle.create_stream_table('two', 'SELECT a FROM t')")


def test_a_worker_in_a_long_refresh_still_answers(db, database, process):
    db.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    assert wait_until(lambda: running(db), 60)
    # Until the worker is told to end.
    query = "SELECT a, pg_sleep(1000)::text AS slept FROM t"
    db.execute(
        "SELECT pgtrickle.create_stream_table('slow', %s, refresh_mode => 'FULL', initialize => false)", (query,)
    )
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = %s"
    assert wait_until(lambda: db.execute(waiting, (WORKER_ROLE,)).rowcount == 1, 60)
    assert wait_until(lambda: _asked(db) < 1, 60)
    db.execute("SELECT pgtrickle.create_stream_table('two', 'SELECT a FROM t')")
    health = "SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'worker_running'"
    assert wait_until(lambda: db.execute(health).fetchone() == ("OK",), 60)
    assert db.execute(waiting, (WORKER_ROLE,)).rowcount == 1


def test_a_worker_that_compiles_for_long_is_not_taken_for_one_that_hangs(db, process):
    """Nobody takes the request, while the worker goes on asking: the caller's patience is what ends it."""
    db.execute("CREATE TABLE t (a int)")
    assert wait_until(lambda: running(db), 60)
    compiling = wait_until(lambda: db.execute("SELECT pgtrickle.validate_query('SELECT a FROM t')").rowcount > 0, 60)
    assert compiling
    began = time.monotonic()
    with db.transaction():
        asked_at = db.execute("SELECT clock_timestamp() - interval '1 hour'").fetchone()
        while time.monotonic() - began < 4:
            db.execute("SELECT pgtrickle_changes.demand_worker(%s)", asked_at)


def test_a_worker_whose_session_is_busy_is_not_taken_for_one_that_hangs(db, database):
    """Such as one that asks for long which stream tables have changes."""
    worker = database.connect(WORKER_ROLE, autocommit=False)
    worker.execute("SELECT pg_advisory_lock(1885762401, 1)")
    assert db.execute("SELECT pgtrickle_changes.worker_quiet_for() IS NULL").fetchone() == (True,)
    db.execute("SELECT pgtrickle_changes.demand_worker(now() - interval '1 hour')")
    worker.rollback()
    worker.close()


def _asked(db):
    (quiet,) = db.execute("SELECT extract(epoch FROM pgtrickle_changes.worker_quiet_for())").fetchone()
    return 0 if quiet is None else quiet
