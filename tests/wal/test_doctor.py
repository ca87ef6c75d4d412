"""``pgtrickle doctor`` checks what capture from the WAL rests on."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.cli.doctor import examine
from pg_trickle.testing.process import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]
CHECKS = {"wal_level", "wal_slot", "wal_slots_free", "wal_kept", "replica_identity"}


def wrong(db: Connection) -> dict[str, dict[str, Any]]:
    """The checks of the WAL that aren't in order."""
    found = {check["check_name"]: check for check in examine(db)}
    assert found.keys() >= CHECKS
    return {name: found[name] for name in CHECKS if found[name]["severity"] != "OK"}


@pytest.fixture
def captured(db: Connection) -> Connection:
    """A source that is captured from the WAL."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t REPLICA IDENTITY FULL")
    pg_trickle.create_stream_table(db, "st", "SELECT a, count(*) AS n FROM t GROUP BY a", cdc_mode="wal")
    return db


def test_what_is_in_order_passes_but_for_the_disk(captured: Connection) -> None:
    found = wrong(captured)
    assert found.keys() == {"wal_kept"}
    assert "max_slot_wal_keep_size" in found["wal_kept"]["fix"]
    captured.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
    captured.execute("SELECT pg_reload_conf()")
    try:
        assert wait_until(lambda: wrong(captured) == {}, 60)
    finally:
        captured.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        captured.execute("SELECT pg_reload_conf()")


def test_a_source_whose_former_rows_are_not_told(captured: Connection) -> None:
    captured.execute("ALTER TABLE t REPLICA IDENTITY DEFAULT")
    found = wrong(captured)["replica_identity"]
    assert (found["severity"], found["detail"].endswith(": public.t")) == ("ERROR", True)
    assert "REPLICA IDENTITY FULL" in found["fix"]


@pytest.mark.parametrize(
    "broken",
    [
        sql.SQL("SELECT pg_drop_replication_slot(pgtrickle_changes.wal_slot_name())"),
        sql.SQL("DROP PUBLICATION pg_trickle"),
    ],
)
def test_a_slot_or_a_publication_that_is_gone(captured: Connection, broken: sql.SQL) -> None:
    captured.execute(broken)
    found = wrong(captured)["wal_slot"]
    assert (found["severity"], "was dropped" in found["detail"]) == ("ERROR", True)
    assert "enable_wal" in found["fix"]


def test_no_slot_is_free(captured: Connection) -> None:
    (free,) = captured.execute(
        "SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots"
    ).fetchone() or (0,)
    names = [f"taken_{number}" for number in range(free)]
    try:
        for name in names:
            captured.execute("SELECT pg_create_physical_replication_slot(%s)", (name,))
        assert "wal_slots_free" not in wrong(captured)
        captured.execute("SELECT pg_drop_replication_slot(pgtrickle_changes.wal_slot_name())")
        captured.execute("SELECT pg_create_physical_replication_slot('taken')")
        assert wrong(captured)["wal_slots_free"]["severity"] == "ERROR"
    finally:
        captured.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ^@ 'taken'"
        )
