"""What an installation sets for its clients, for a database or for a role, doesn't stop the worker."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from pg_trickle.testing.oracle import assert_fresh
from pg_trickle.worker.gateway import connect, connect_pool
from pg_trickle.worker.loop import Worker, reason

WORKER_ROLE = "pgtrickle_worker"
LIMITS = ("statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout")


def _for_database(database: Any, name: str, value: str, *, role: str | None = None) -> None:
    whose = sql.SQL("ROLE {role} IN DATABASE").format(role=sql.Identifier(role)) if role else sql.SQL("DATABASE")
    database.connect().execute(
        sql.SQL("ALTER {whose} {database} SET {name} = {value}").format(
            whose=whose, database=sql.Identifier(database.name), name=sql.Identifier(name), value=value
        )
    )


def _limits(connection: Any) -> list[str]:
    rows = connection.execute("SELECT setting FROM pg_settings WHERE name = ANY (%s)", (list(LIMITS),)).fetchall()
    return [row["setting"] for row in rows]


def test_limits_that_a_database_sets_for_its_clients_are_not_the_workers(database):
    """A refresh that takes longer than what is allowed to a web page would be broken off each time."""
    for limit in LIMITS:
        _for_database(database, limit, "30s")
    with connect(database.dsn_of(WORKER_ROLE)) as connection:
        assert _limits(connection) == ["0"] * len(LIMITS)
    with connect_pool(database.dsn_of(WORKER_ROLE), most=1) as pool, pool.connection() as connection:
        # Refreshes have a limit of their own for locks, which owners may hold.
        assert sorted(_limits(connection)) == ["0"] * (len(LIMITS) - 1) + ["10000"]


@pytest.mark.versions(since=17)
def test_nor_is_the_length_of_a_transaction(database):
    _for_database(database, "transaction_timeout", "30s")
    with connect(database.dsn_of(WORKER_ROLE)) as connection:
        assert connection.execute("SHOW transaction_timeout").fetchone() == {"transaction_timeout": "0"}


def test_a_limit_that_is_set_for_the_workers_role_is_kept(database):
    """docs/security.md counts on it."""
    _for_database(database, "statement_timeout", "20s")
    _for_database(database, "statement_timeout", "10s", role=WORKER_ROLE)
    with connect(database.dsn_of(WORKER_ROLE)) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == {"statement_timeout": "10s"}


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_the_worker_speaks_its_own_encoding(database, db, encoding):
    _for_database(database, "client_encoding", encoding)
    db.execute("CREATE TABLE t (id int, name text)")
    worker = Worker(database.dsn_of(WORKER_ROLE))
    worker.start()
    try:
        worker.wait_for(lambda: worker.is_active)
        db.execute("SELECT pgtrickle.create_stream_table('s', $$SELECT id, name || 'é→' AS n FROM t$$)")
        db.execute("INSERT INTO t VALUES (1, 'ü')")
        worker.wait_until_idle()
        assert_fresh(db, "s")
    finally:
        worker.stop()


def test_the_bridge_writes_where_a_database_is_read_only_by_default(database, db):
    """That is for clients who don't say otherwise, as this one does."""
    _for_database(database, "default_transaction_read_only", "on")
    db.execute("CREATE TABLE t (id int)")
    worker = Worker(database.dsn_of(WORKER_ROLE))
    worker.start()
    try:
        worker.wait_for(lambda: worker.is_active)
        db.execute("SELECT pgtrickle.create_stream_table('s', 'SELECT id FROM t')")
        db.execute("INSERT INTO t VALUES (1)")
        worker.wait_until_idle()
        assert_fresh(db, "s")
    finally:
        worker.stop()


def test_identifiers_quoted_everywhere_make_no_refresh_recompute(database, db):
    _for_database(database, "quote_all_identifiers", "on")
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) AS i"
    )
    worker = Worker(database.dsn_of(WORKER_ROLE))
    worker.start()
    try:
        worker.wait_for(lambda: worker.is_active)
        db.execute("SELECT pgtrickle.create_stream_table('s', 'SELECT id, v FROM t WHERE v > 1')")
        db.execute("UPDATE t SET v = v + 1 WHERE id = 7")
        worker.wait_until_idle()
        assert_fresh(db, "s")
    finally:
        worker.stop()
    history = "SELECT DISTINCT refresh_mode FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'SCHEDULER'"
    assert db.execute(history).fetchall() == [("DIFFERENTIAL",)]


def test_the_role_that_is_appointed_may_connect(database, db):
    """A database that isn't open to everybody is a usual precaution."""
    db.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name)))
    db.execute("SELECT pgtrickle.grant_worker(%s)", (WORKER_ROLE,))
    with connect(database.dsn_of(WORKER_ROLE)) as connection:
        assert connection.execute("SELECT current_user AS role").fetchone() == {"role": WORKER_ROLE}


def test_the_log_says_why_a_server_turns_the_worker_away_and_no_password(database):
    def told(dsn: str) -> str | None:
        with pytest.raises(psycopg.Error) as raised:
            connect(dsn)
        return reason(raised.value)

    assert "refused" in str(told("host=127.0.0.1 port=1 password=secret"))
    assert 'role "nobody_here"' in str(told(database.dsn_of("nobody_here")))
    assert told("postgresql://worker:sec:ret@127.0.0.1:half:secret/x") is None
    assert told("host=127.0.0.1 port=secret") is None


def test_the_log_says_that_transactions_go_to_other_sessions(db):
    """Behind a pooler: what the worker has prepared is in none of them."""
    with pytest.raises(psycopg.Error) as raised:
        db.execute("EXECUTE prepared_elsewhere")
    assert "connect past it" in str(reason(raised.value))
