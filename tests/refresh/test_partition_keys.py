"""Partitions by several columns are found again, in whatever order the query names the columns."""

from __future__ import annotations

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

PARTITIONS = ("a, b", "b, a", "v, a", "b, v, a")


@pytest.mark.parametrize("by", PARTITIONS)
@pytest.mark.parametrize("shown", ["a, b, v", "v, b, a", "id"])
def test_only_the_order_of_the_columns_differs(db, by, shown):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a int, b int, v int)")
    db.execute("INSERT INTO t SELECT n, n % 3, n % 4, n % 5 FROM generate_series(1, 60) AS n")
    query = f"SELECT {shown}, count(*) OVER (PARTITION BY {by}) AS n FROM t"
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("DELETE FROM t WHERE id = 5")
    db.execute("UPDATE t SET a = 1, b = 3 WHERE id = 8")
    db.execute("INSERT INTO t VALUES (100, 2, 1, 0), (101, 0, 2, 4)")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
