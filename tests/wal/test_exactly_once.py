"""Every committed change is applied once, whatever commits in whatever order, also from the WAL."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.refresh.test_exactly_once import (  # noqa: F401
    fresh,
    test_a_key_that_another_transaction_has_deleted_since_the_snapshot,
    test_a_prepared_transaction_is_applied_when_it_commits,
    test_a_refresh_that_is_rolled_back_leaves_its_changes,
    test_a_snapshot_older_than_the_last_refresh_is_a_conflict,
    test_a_source_that_changes_during_a_refresh,
    test_a_transaction_that_commits_after_a_refresh_is_not_lost,
    test_random_writers_refreshers_and_cleaners,
    test_transactions_that_commit_in_reverse_order,
    test_writes_and_refreshes_in_one_transaction,
)

Connection = psycopg.Connection[tuple[Any, ...]]

pytestmark = pytest.mark.versions


@pytest.fixture
def shop(db: Connection) -> Connection:
    """A filter by key, a grouped sum, a bag, and a stream table on another one, fed from the WAL."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, k int, v int)")
    db.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    db.execute("INSERT INTO t SELECT n, n % 4, n FROM generate_series(1, 20) AS n")
    for name, query in (
        ("kept", "SELECT id, v FROM t WHERE v > 5"),
        ("sums", "SELECT k, count(*) AS n, sum(v) AS s, max(v) AS m FROM t GROUP BY k"),
        ("bag", "SELECT k FROM t"),
        ("top", "SELECT n, count(*) AS groups FROM sums GROUP BY n"),
    ):
        pg_trickle.create_stream_table(db, name, query, schedule=None, cdc_mode="wal")
    return db
