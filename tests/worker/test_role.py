"""The worker's role can do the worker's job and nothing else; and who may talk to the worker can't harm it."""

from __future__ import annotations

import json

import psycopg
import pytest

from pg_trickle.worker.loop import Worker

WORKER_ROLE = "pgtrickle_worker"


def test_the_role_may_execute_the_workers_functions_and_no_others(db):
    found = db.execute(
        """SELECT p.proname FROM pg_proc AS p
            WHERE p.pronamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace)
              AND has_function_privilege(%s, p.oid, 'EXECUTE')
              AND p.proname NOT LIKE 'worker\\_%%'""",
        (WORKER_ROLE,),
    ).fetchall()
    assert found == []


def test_the_role_may_read_and_write_no_table(db, database):
    db.execute("CREATE TABLE t (id int)")
    worker = database.connect(WORKER_ROLE)
    for statement in (
        "SELECT FROM public.t",
        "SELECT FROM pgtrickle_changes.bridge_requests",
        "UPDATE pgtrickle.pgt_stream_tables SET status = 'ACTIVE'",
        "CREATE TABLE pgtrickle_changes.x ()",
        "CREATE TABLE public.x ()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute(statement)


def test_forged_requests_are_answered_with_an_error_and_the_worker_lives_on(db, worker):
    forged = ["{}", "[]", '"x"', "null", json.dumps({"format": 1}), json.dumps({"format": 1, "query": "x" * 5_000_000})]
    numbers = [
        db.execute(
            "INSERT INTO pgtrickle_changes.bridge_requests (request) VALUES (%s) RETURNING id", (request,)
        ).fetchone()[0]
        for request in forged
    ]
    for _ in range(1000):
        db.execute("NOTIFY pgtrickle_bridge, 'DROP TABLE t'")

    def answers():
        return db.execute(
            "SELECT error FROM pgtrickle_changes.bridge_requests WHERE id = ANY(%s) AND answered_at IS NOT NULL",
            (numbers,),
        ).fetchall()

    worker.wait_for(lambda: len(answers()) == len(forged))
    assert all(error["sqlstate"] in ("22023", "54000") for (error,) in answers())
    db.execute("CREATE TABLE t (id int)")
    db.execute("SELECT pgtrickle.create_stream_table('s', 'SELECT id FROM t')")


def test_the_log_holds_neither_passwords_nor_values(db, database, caplog):
    worker = Worker(database.dsn_of(WORKER_ROLE) + " password=hush")
    with caplog.at_level("DEBUG"):
        worker.start()
        try:
            worker.wait_for(lambda: worker.is_active)
            db.execute("CREATE TABLE t (v text)")
            db.execute("SELECT pgtrickle.create_stream_table('s', 'SELECT v::int AS v FROM t')")
            db.execute("INSERT INTO t VALUES ('treasure')")
            worker.wait_for(lambda: any("failed" in record.getMessage() for record in caplog.records))
        finally:
            worker.stop()
    everything = " ".join(str(vars(record)) for record in caplog.records)
    assert "hush" not in everything
    assert "treasure" not in everything
