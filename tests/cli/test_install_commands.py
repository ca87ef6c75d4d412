"""``pgtrickle install`` and ``uninstall``."""

from __future__ import annotations


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


def test_files_for_create_extension(run, bare_database, tmp_path):
    assert run("install", "--files", str(tmp_path / "extension")).code == 0
    found = sorted(file.suffix for file in (tmp_path / "extension").iterdir())
    assert found == [".control", ".sql"]
