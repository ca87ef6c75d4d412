"""The stream table's own columns, renamed, dropped and altered by hand: followed, or told, and mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import pg_trickle
from tests.definition.conftest import Connection, Fails

TOTALS = "SELECT customer_id, sum(amount) AS total, max(amount) AS most FROM orders GROUP BY customer_id"
MORE = "INSERT INTO orders SELECT i, 1 + i % 7, i, '' FROM generate_series(100, 130) AS i"


@pytest.fixture
def totals(shop: Any) -> Any:
    pg_trickle.create_stream_table(shop.superuser, "st", TOTALS, schedule=None)
    return shop


def names(shop: Any, table: str = "st") -> list[str]:
    return [name for name, _ in shop.columns(table)]


@pytest.mark.parametrize(
    ("renames", "expected"),
    [
        ({"total": "Sum of it"}, ["customer_id", "Sum of it", "most"]),
        ({"customer_id": "k"}, ["k", "total", "most"]),
        ({"total": "x", "most": "total", "x": "most"}, ["customer_id", "most", "total"]),
    ],
)
def test_a_renamed_column_is_followed(totals: Any, renames: dict[str, str], expected: list[str]) -> None:
    for former, name in renames.items():
        totals.superuser.execute(f'ALTER TABLE st RENAME COLUMN "{former}" TO "{name}"'.encode())
    totals.superuser.execute(MORE)
    totals.fresh("st")
    totals.superuser.execute("DELETE FROM orders WHERE id % 3 = 0")
    totals.fresh("st")
    assert names(totals) == expected
    assert pg_trickle.repair_stream_table(totals.superuser, "st") == "public.st: nothing to repair"


def test_what_reads_a_renamed_column_goes_on(totals: Any) -> None:
    query = "SELECT count(*) AS n, sum(total) AS s FROM st"
    pg_trickle.create_stream_table(totals.superuser, "above", query, schedule=None)
    totals.superuser.execute("ALTER TABLE st RENAME COLUMN total TO amount")
    totals.superuser.execute(MORE)
    totals.fresh("above", "st")


def test_after_another_query_places_are_still_known(totals: Any) -> None:
    query = "SELECT count(*) AS n, max(amount) AS most, customer_id FROM orders GROUP BY customer_id"
    pg_trickle.alter_stream_table(totals.superuser, "st", query=query)
    totals.superuser.execute("ALTER TABLE st RENAME COLUMN n TO rows; ALTER TABLE st RENAME COLUMN most TO highest")
    totals.superuser.execute(MORE)
    totals.fresh("st")
    assert names(totals) == ["customer_id", "highest", "rows"]


def test_the_worker_follows_too(totals: Any, worker: Any, assert_fresh: Callable[[Connection, str], None]) -> None:
    db = totals.superuser
    pg_trickle.alter_stream_table(db, "st", schedule="calculated")
    pg_trickle.create_stream_table(db, "im", TOTALS, refresh_mode="IMMEDIATE")
    worker.wait_until_idle()
    db.execute("ALTER TABLE st RENAME COLUMN total TO amount; ALTER TABLE im RENAME COLUMN total TO amount")
    worker.wait_for(lambda: not _needs_mending(db))
    db.execute(MORE)
    worker.wait_until_idle()
    assert_fresh(db, "st")
    assert_fresh(db, "im")


def _needs_mending(db: Connection) -> bool:
    (found,) = db.execute(
        """SELECT pg_catalog.bool_or(s.needs_reinit OR s.fingerprint <> pgtrickle_changes.fingerprint(s.pgt_id))
             FROM pgtrickle.pgt_stream_tables AS s WHERE s.refresh_mode = 'IMMEDIATE'"""
    ).fetchone() or (True,)
    return bool(found)


DAMAGES = {
    "ALTER TABLE st DROP COLUMN total": 'column "total" was dropped',
    "ALTER TABLE st DROP COLUMN customer_id": 'column "customer_id" was dropped',
    "ALTER TABLE st ALTER COLUMN customer_id TYPE text": 'column "customer_id" is of type text, not integer',
    "ALTER TABLE st DROP COLUMN total; ALTER TABLE st RENAME COLUMN most TO total": 'column "most" was dropped',
    "ALTER TABLE st RENAME COLUMN total TO __pgt_total": 'column "total" was dropped',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cant_be_followed_is_told_and_mended(totals: Any, fails: Fails, damage: str) -> None:
    db = totals.superuser
    db.execute("ALTER TABLE st ADD COLUMN remark text")
    db.execute(damage.encode())
    error = fails("42P17", pg_trickle.refresh_stream_table, db, "st")
    assert "has not the columns of its query" in str(error)
    assert "repair_stream_table('public.st')" in (error.diag.message_hint or "")
    assert totals.catalog("st")["consecutive_errors"] == 1
    assert "42P17" in totals.catalog("st")["last_error_message"]
    (told,) = db.execute("SELECT error_message FROM pgtrickle.get_refresh_history('st') LIMIT 1").fetchone()
    assert "has not the columns of its query" in told
    repaired = pg_trickle.repair_stream_table(db, "st")
    assert "column" in repaired
    assert "remark" in names(totals), "what somebody has added stays"
    db.execute(MORE)
    totals.fresh("st")
    assert pg_trickle.repair_stream_table(db, "st") == "public.st: nothing to repair"


def test_another_query_mends_it_too(totals: Any) -> None:
    totals.superuser.execute("ALTER TABLE st DROP COLUMN total")
    query = "SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id"
    pg_trickle.alter_stream_table(totals.superuser, "st", query=query)
    totals.superuser.execute(MORE)
    totals.fresh("st")
    assert names(totals) == ["customer_id", "n"]
