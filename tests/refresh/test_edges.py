"""What the concepts say of the edges is so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import last_refresh

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [("1.0", "1.00", "numeric"), ("1 day", "24:00", "interval"), ("0", "-0", "float8")],
)
def test_a_group_may_show_its_key_in_another_spelling(db: Connection, one: str, other: str, kind: str) -> None:
    db.execute(f"CREATE TABLE t (id int PRIMARY KEY, k {kind}, x int)".encode())
    db.execute("INSERT INTO t VALUES (1, %s, 1), (2, '5', 1)", (one,))
    query = "SELECT k, sum(x) AS s FROM t GROUP BY k"
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    db.execute("UPDATE t SET k = %s, x = 2 WHERE id = 1", (other,))
    pg_trickle.refresh_stream_table(db, "st")
    for here, there in (("TABLE st", query), (query, "TABLE st")):
        assert db.execute(f"{here} EXCEPT ALL {there}".encode()).fetchall() == []
    assert pg_trickle.verify_stream_table(db, "st").ok
    db.execute("DELETE FROM t WHERE id = 1")
    pg_trickle.refresh_stream_table(db, "st")
    assert db.execute("SELECT count(*) FROM st").fetchone() == (1,)


def test_a_key_too_long_for_an_index_fails_and_writes_nothing(db: Connection, assert_fresh: Oracle) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, s text); INSERT INTO t VALUES (1, 'short')")
    for name, query in (("st", "SELECT s, count(*) AS n FROM t GROUP BY s"), ("bag", "SELECT s FROM t")):
        pg_trickle.create_stream_table(db, name, query, schedule=None)
    db.execute("INSERT INTO t SELECT 2, string_agg(md5(n::text), '') FROM generate_series(1, 2000) AS n")
    pg_trickle.refresh_stream_table(db, "bag")
    assert_fresh(db, "bag")
    with pytest.raises(psycopg.errors.ProgramLimitExceeded) as error:
        pg_trickle.refresh_stream_table(db, "st")
    assert "group by a hash" in (error.value.diag.message_hint or "")
    assert db.execute("SELECT s, n FROM st").fetchall() == [("short", 1)]
    db.execute("DELETE FROM t WHERE id = 2")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")


def test_who_goes_on_writing_after_a_refresh_makes_the_next_one_recompute(db: Connection, assert_fresh: Oracle) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    pg_trickle.create_stream_table(db, "st", "SELECT id FROM t", schedule=None)
    with db.transaction():
        db.execute("INSERT INTO t VALUES (2)")
        pg_trickle.refresh_stream_table(db, "st")
        assert last_refresh(db, "st")[0] == "DIFFERENTIAL"
        db.execute("INSERT INTO t VALUES (3)")
    for mode in ("FULL", "DIFFERENTIAL"):
        pg_trickle.refresh_stream_table(db, "st")
        assert last_refresh(db, "st")[0] == mode
        assert_fresh(db, "st")
        db.execute("DELETE FROM t WHERE id = 1")
