"""Sessions in which a call can't do what it says: it fails, and says why."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]

pytestmark = pytest.mark.versions


def test_where_triggers_do_not_fire_a_call_fails_instead_of_doing_nothing(db: Connection) -> None:
    db.execute("CREATE TABLE t (a int)")
    pg_trickle.create_stream_table(db, "st", "SELECT a FROM t", schedule=None)
    db.execute("SET session_replication_role = replica")
    db.execute("INSERT INTO t VALUES (1)")
    for call in ("refresh_stream_table('st')", "drop_stream_table('st')", "pause_all()"):
        with pytest.raises(psycopg.errors.CheckViolation, match="SET session_replication_role = origin"):
            db.execute(f"SELECT pgtrickle.{call}".encode())
    db.execute("SET session_replication_role = local")
    pg_trickle.refresh_stream_table(db, "st")
    assert db.execute("TABLE st").fetchall() == [(1,)]
