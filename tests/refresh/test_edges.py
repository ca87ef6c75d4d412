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


COMPUTED = (
    "SELECT g, sum(10 / v) AS s FROM e GROUP BY g",
    "SELECT g, count(*) AS n FROM e WHERE 10 / v > 1 GROUP BY g",
    "SELECT 10 / v AS k, count(*) AS n FROM e GROUP BY 10 / v",
    "SELECT DISTINCT 10 / v AS k FROM e",
    "SELECT count(*) FILTER (WHERE t::int > 0) AS n, min(t::int) AS least FROM e",
    "SELECT id, 10 / v AS k FROM e",
)


@pytest.mark.parametrize("query", COMPUTED)
def test_what_came_and_went_is_not_computed(db: Connection, assert_fresh: Oracle, query: str) -> None:
    """An expression may fail on a row that the query never sees."""
    db.execute("CREATE TABLE e (id int PRIMARY KEY, g int NOT NULL, v int NOT NULL, t text)")
    db.execute("INSERT INTO e VALUES (1, 1, 3, '4'), (2, 1, 5, '7')")
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("INSERT INTO e VALUES (3, 1, 0, 'no number')")
    db.execute("UPDATE e SET v = 2, t = '1' WHERE id = 3")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    # PostgreSQL itself asks a condition before it nets: then the query is run once.
    assert last_refresh(db, "st")[0] == ("FULL" if "WHERE 10" in query else "DIFFERENTIAL")


def test_pairs_that_never_met_fail_only_by_themselves(db: Connection, assert_fresh: Oracle) -> None:
    """A join's changes pair rows of different moments: where that can't be computed, the query is run once."""
    db.execute("CREATE TABLE l (id int PRIMARY KEY, v int)")
    db.execute("CREATE TABLE r (id int PRIMARY KEY, v int)")
    db.execute("INSERT INTO l VALUES (1, 1)")
    db.execute("INSERT INTO r VALUES (1, 5)")
    query = "SELECT l.id, 10 / (l.v - r.v) AS k FROM l JOIN r USING (id)"
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    with db.transaction():
        db.execute("UPDATE r SET v = 9")
        db.execute("UPDATE l SET v = 5")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    mode, _, reason = last_refresh(db, "st")
    assert (mode, reason) == ("FULL", "the changes can't be evaluated (SQLSTATE 22012)")
    db.execute("UPDATE l SET v = 9")
    with pytest.raises(psycopg.errors.DivisionByZero):
        pg_trickle.refresh_stream_table(db, "st")
    db.execute("UPDATE l SET v = 8")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")


def test_rows_that_were_there_before_a_constraint_of_their_domain(db: Connection, assert_fresh: Oracle) -> None:
    """PostgreSQL shows and changes them as before; changes are kept as integers, and couldn't be made such values."""
    db.execute("CREATE DOMAIN positive AS int; CREATE TABLE t (id int PRIMARY KEY, d positive, v int)")
    db.execute("INSERT INTO t VALUES (1, -1, 1), (2, 2, 2)")
    pg_trickle.create_stream_table(db, "st", "SELECT id, d, v FROM t", schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("ALTER DOMAIN positive ADD CONSTRAINT is_positive CHECK (VALUE > 0) NOT VALID")
    db.execute("UPDATE t SET v = 3")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    mode, _, reason = last_refresh(db, "st")
    assert (mode, reason) == ("FULL", 'changed rows violate a constraint of the domain "positive"')
    db.execute("DELETE FROM t WHERE id = 1")
    db.execute("UPDATE t SET v = 4")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    assert last_refresh(db, "st")[0] == "DIFFERENTIAL"


@pytest.mark.parametrize("tail", ["HAVING 1 < 2", "HAVING 1 > 2", "GROUP BY ()", "GROUP BY GROUPING SETS ((), ())"])
def test_one_group_of_which_nothing_is_asked_reads_no_rows(db: Connection, assert_fresh: Oracle, tail: str) -> None:
    db.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (0), (1)")
    query = f"SELECT 1 AS one FROM t WHERE 1 / a = 1 {tail}"
    expected = db.execute(query.encode()).fetchall()
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    assert_fresh(db, "st")
    db.execute("INSERT INTO t VALUES (0)")
    pg_trickle.refresh_stream_table(db, "st")
    assert db.execute("TABLE st").fetchall() == expected
