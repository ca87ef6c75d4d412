"""``pgtrickle install`` and ``uninstall``."""

from __future__ import annotations

import pytest


def test_install_grants_the_worker_and_uninstall_leaves_nothing(run, bare_database):
    role = bare_database.make_role("pgt_cli_worker")
    installed = run("install", "--dsn", bare_database.dsn, "--worker-role", role)
    assert (installed.code, installed.err) == (0, "")
    with bare_database.connect(role) as conn:
        assert conn.execute("SELECT enabled FROM pgtrickle_changes.worker_poll()").fetchone() == (True,)
    assert run("install", "--dsn", bare_database.dsn).code == 1
    assert run("uninstall", "--dsn", bare_database.dsn).code == 0
    with bare_database.connect() as conn:
        found = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pgtrickle%'").fetchall()
        assert found == []
    assert run("uninstall", "--dsn", bare_database.dsn).code == 1


def test_an_install_that_fails_leaves_nothing(run, bare_database):
    """What it then says, to uninstall first, would be no help."""
    role = bare_database.make_role("pgt_cli_worker")
    for wrong in (["--worker-role", "nobody there"], ["--worker-role", role, "--wal"]):
        failed = run("install", "--dsn", bare_database.dsn, *wrong)
        assert failed.code == 1
        assert "nobody there" in failed.err or "wal_level" in failed.err
    assert run("install", "--dsn", bare_database.dsn, "--worker-role", role).code == 0


@pytest.mark.parametrize(
    "command", [["status"], ["list"], ["verify"], ["refresh", "s"], ["create", "s", "SELECT 1 AS x"]]
)
def test_where_it_is_not_installed_every_command_says_so(run, bare_database, command):
    told = run(*command, "--dsn", bare_database.dsn)
    assert told.code == 1
    assert told.err.startswith("error: pg_trickle is not installed in this database (55000)\nhint: Install it")


def test_files_for_create_extension(run, bare_database, tmp_path):
    assert run("install", "--files", str(tmp_path / "extension")).code == 0
    found = sorted(file.suffix for file in (tmp_path / "extension").iterdir())
    assert found == [".control", ".sql"]
