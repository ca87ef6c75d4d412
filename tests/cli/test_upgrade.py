"""``pgtrickle upgrade``: which versions meet, said and acted on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from pg_trickle.install import install as installer

VERSION = installer.VERSION


def test_the_same_version_is_left_alone(pgtrickle, db):
    done = pgtrickle("upgrade")
    assert (done.code, done.out) == (0, f"pg_trickle {VERSION} is installed, as in this package\n")


def test_where_nothing_is_installed_it_says_how_to_install(run, bare_database):
    refused = run("upgrade", "--dsn", bare_database.dsn)
    assert refused.code == 1
    assert "pgtrickle install" in refused.err


def test_a_function_that_somebody_else_calls_by_that_name_is_not_called(run, bare_database):
    bare_database.make_role("squatter")
    db = bare_database.connect()
    db.execute(f"GRANT CREATE ON DATABASE {bare_database.name} TO squatter")
    bare_database.connect("squatter").execute(
        """CREATE SCHEMA pgtrickle; GRANT USAGE ON SCHEMA pgtrickle TO PUBLIC;
           CREATE FUNCTION pgtrickle.version() RETURNS text LANGUAGE plpgsql AS
               'BEGIN ALTER ROLE squatter SUPERUSER; RETURN ''0.0.1''; END'"""
    )
    assert "not installed" in run("upgrade", "--dsn", bare_database.dsn).err
    assert db.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'squatter'").fetchone() == (False,)
    assert run("install", "--dsn", bare_database.dsn).code == 1


def _pretend(db: Any, version: str) -> None:
    """The database says that it has another version."""
    db.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'pg_trickle'", (version,))


@pytest.mark.parametrize(("version", "what"), [("99.0", "newer than this package"), ("0.0.9", "no script leads")])
def test_another_version_is_told_and_nothing_changed(pgtrickle, db, version, what):
    _pretend(db, version)
    refused = pgtrickle("upgrade")
    assert refused.code == 1
    assert what in refused.err
    assert "hint: " in refused.err
    assert db.execute("SELECT extversion FROM pg_extension WHERE extname = 'pg_trickle'").fetchone() == (version,)


@pytest.mark.parametrize("version", ["0.0.9", "99.0"])
def test_a_plain_installation_says_its_version_itself(run, bare_database, version):
    db = bare_database.connect()
    installer.install(db)
    assert run("upgrade", "--dsn", bare_database.dsn).code == 0
    function = "CREATE OR REPLACE FUNCTION pgtrickle.version() RETURNS text LANGUAGE sql IMMUTABLE"
    db.execute(f"{function} AS $$ SELECT '{version}' $$")
    refused = run("upgrade", "--dsn", bare_database.dsn)
    assert refused.code == 1
    assert version in refused.err


@contextmanager
def _script(server: Any, source: str) -> Any:
    """A way from another version to this one, among the extension's files."""
    file = server.directory / "share" / "extension" / f"pg_trickle--{source}--{VERSION}.sql"
    file.write_text("COMMENT ON SCHEMA pgtrickle IS 'upgraded';\n")
    server.account.let_read(server.directory / "share")
    try:
        yield
    finally:
        file.unlink()


def test_an_extension_goes_the_way_that_its_files_know_and_stream_tables_go_on(pgtrickle, db, server, assert_fresh):
    db.execute("CREATE TABLE t (id int PRIMARY KEY)")
    pgtrickle("create", "s", "SELECT id FROM t")
    _pretend(db, "0.0.10")
    with _script(server, "0.0.10"):
        done = pgtrickle("upgrade")
    assert (done.code, done.out) == (0, f"pg_trickle {VERSION} is installed; it was 0.0.10\n")
    assert db.execute("SELECT obj_description('pgtrickle'::regnamespace)").fetchone() == ("upgraded",)
    db.execute("INSERT INTO t VALUES (1)")
    pgtrickle("refresh", "s")
    assert_fresh(db, "s")
