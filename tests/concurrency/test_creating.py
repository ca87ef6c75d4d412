"""Two who create stream tables on what each has written: one is told who is in the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
QUERY = "SELECT a, count(*) AS n FROM t GROUP BY a"


@pytest.mark.parametrize("names", [("first", "second"), ("same", "same")])
def test_who_waits_for_a_name_in_a_circle_is_told(database: Any, db: Connection, names: tuple[str, str]) -> None:
    """The owner's first stream table, or one of the same name, while the other waits for the table to be free."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
    one, two = database.connect(), database.connect()
    one.execute("SET deadlock_timeout = '1h'")
    two.execute("SET deadlock_timeout = '1ms'")
    for number, conn in enumerate((one, two)):
        conn.execute("BEGIN")
        conn.execute("INSERT INTO t VALUES (%s, 1)", (number,))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(pg_trickle.create_stream_table, one, names[0], QUERY)
        while db.execute("SELECT pg_blocking_pids(%s) = '{}'", (one.info.backend_pid,)).fetchone() == (True,):
            assert not first.done(), "it did not wait"
        with pytest.raises(psycopg.errors.DeadlockDetected) as caught:
            pg_trickle.create_stream_table(two, names[1], QUERY)
        two.execute("ROLLBACK")
        first.result()
    one.execute("COMMIT")
    told = str(caught.value.diag.message_detail)
    assert f"Session {one.info.backend_pid} of role" in told
    assert ("first stream table" if names[0] != names[1] else "same") in told
