"""``pgtrickle doctor`` finds what is wrong and says what to do."""

from __future__ import annotations

from typing import Any

import pytest

import pg_trickle


def severities(result: Any) -> dict[str, str]:
    return {check["check_name"]: check["severity"] for check in result.json}


def test_a_sound_installation_passes(pgtrickle: Any, worker: Any) -> None:
    result = pgtrickle("doctor", "--json")
    wrong = [check for check in result.json if check["severity"] != "OK" and check["check_name"] != "durability"]
    assert (result.code, wrong) == (0, [])


def test_without_the_extension_it_says_how_to_install_it(run: Any, bare_database: Any) -> None:
    result = run("doctor", "--dsn", bare_database.dsn, "--json")
    assert result.code == 1
    (missing,) = [check for check in result.json if check["check_name"] == "installed"]
    assert missing["severity"] == "ERROR"
    assert "CREATE EXTENSION" in missing["fix"]


def test_it_wants_a_superuser(run: Any, database: Any) -> None:
    database.make_role("plain")
    result = run("doctor", "--dsn", database.dsn_of("plain"), "--json")
    assert (result.code, severities(result)["superuser"]) == (1, "ERROR")


MISTAKES = {
    "worker_running": "SELECT",
    "owners": "SELECT",
    "buffers": "GRANT SELECT ON ALL TABLES IN SCHEMA pgtrickle_changes TO PUBLIC",
    "enabled": "INSERT INTO pgtrickle.pgt_settings VALUES ('enabled', 'off')",
    "allow_circular": "INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')",
    "public_rights": "GRANT EXECUTE ON FUNCTION pgtrickle.version() TO PUBLIC",
    "worker_role": "DELETE FROM pgtrickle.pgt_settings WHERE name = 'worker_role'",
    "capture_integrity": "ALTER TABLE t DISABLE TRIGGER USER",
}


@pytest.mark.parametrize("check", MISTAKES)
def test_each_mistake_comes_with_a_fix(pgtrickle: Any, db: Any, check: str) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    pg_trickle.create_stream_table(db, "st", "SELECT id FROM t")
    db.execute(MISTAKES[check].encode())
    found = {one["check_name"]: one for one in pgtrickle("doctor", "--json").json}[check]
    assert found["severity"] in {"WARN", "ERROR"}
    assert found["fix"]
    assert found["detail"]


def test_of_the_wal_nothing_is_said_where_nothing_asks_for_it(pgtrickle: Any, db: Any) -> None:
    """And where something does, without what it takes, it is."""
    assert not [name for name in severities(pgtrickle("doctor", "--json")) if name.startswith("wal")]
    db.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_mode', 'wal')")
    result = pgtrickle("doctor", "--json")
    found = {check["check_name"]: check for check in result.json}
    assert result.code == 1
    assert (found["wal_level"]["severity"], found["wal_slot"]["severity"]) == ("ERROR", "ERROR")
    assert "restart" in found["wal_level"]["fix"]
