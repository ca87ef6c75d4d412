"""A stream table that shows all that its aggregation has to remember needs no state table."""

from __future__ import annotations

import pytest

import pg_trickle

SHOWN = "SELECT k, count(*) AS n, sum(v) AS s, count(v) AS c, min(v) AS low, max(w) AS high FROM t GROUP BY k"


@pytest.fixture
def source(db):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, k int, v int, w numeric)")
    db.execute("INSERT INTO t SELECT i, i % 5, nullif(i % 7, 3), i / 2.0 FROM generate_series(1, 50) AS i")
    return db


def states(db):
    found = db.execute("SELECT jsonb_array_length(plan -> 'states') FROM pgtrickle.pgt_plans").fetchone()
    return found[0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (SHOWN, 0),
        ("SELECT k, count(*) AS n FROM t GROUP BY k", 0),
        ("SELECT k, sum(v) AS s FROM t GROUP BY k", 1),
        ("SELECT k, count(*) AS n, avg(v) AS mean FROM t GROUP BY k", 1),
        ("SELECT k, count(*) AS n, sum(w) AS s FROM t GROUP BY k", 1),
        ("SELECT k, count(*) AS n, sum(v) + 1 AS s FROM t GROUP BY k", 1),
        ("SELECT k, count(*) AS n FROM t GROUP BY k HAVING count(*) > 3", 1),
        ("SELECT count(*) AS n FROM t", 1),
        ("SELECT DISTINCT k FROM t", 1),
        ("SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n FROM t GROUP BY k) AS g GROUP BY n", 1),
    ],
)
def test_a_state_table_is_made_unless_the_stream_table_shows_all_of_it(source, query, expected):
    pg_trickle.create_stream_table(source, "s", query, schedule=None)
    assert states(source) == expected


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO t VALUES (100, 9, NULL, 'NaN'), (101, NULL, 1, 1), (102, 1, -5, 99)",
        "DELETE FROM t WHERE k = 2",
        "DELETE FROM t WHERE id IN (SELECT min(id) FROM t GROUP BY k)",
        "UPDATE t SET k = k + 1, v = NULL WHERE k > 2",
        "UPDATE t SET v = NULL",
        "TRUNCATE t",
    ],
)
def test_groups_that_come_change_and_go_are_followed(source, assert_fresh, change):
    pg_trickle.create_stream_table(source, "s", SHOWN, schedule=None)
    for statement in (change, "INSERT INTO t SELECT 1000 + i, i % 6, i, i FROM generate_series(1, 9) AS i"):
        source.execute(statement)
        pg_trickle.refresh_stream_table(source, "s")
        assert_fresh(source, "s")


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
@pytest.mark.parametrize("key", ["k", "id"])
def test_what_is_shown_twice_is_kept_up_in_both_places(source, assert_fresh, mode, key):
    query = f"SELECT {key} AS a, count(*) AS n, {key} AS b, count(*) AS m FROM t GROUP BY {key}"
    pg_trickle.create_stream_table(source, "s", query, schedule=None, refresh_mode=mode)
    assert states(source) == 0
    for statement in ("INSERT INTO t VALUES (100, 9), (101, 1)", "UPDATE t SET k = k + 1, id = -id", "DELETE FROM t"):
        source.execute(statement)
        pg_trickle.refresh_stream_table(source, "s")
        assert_fresh(source, "s")


def test_a_group_of_fewer_than_no_rows_makes_the_refresh_recompute(source, assert_fresh):
    pg_trickle.create_stream_table(source, "s", SHOWN, schedule=None)
    source.execute("UPDATE s SET n = 1 WHERE k = 1")
    source.execute("DELETE FROM t WHERE k = 1 AND id < 20")
    pg_trickle.refresh_stream_table(source, "s")
    assert_fresh(source, "s")
