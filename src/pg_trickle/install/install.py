"""Installing the SQL part: one script, three doors (docs/decisions/0004-no-extension-membership.md).

As an extension served from this package (PostgreSQL 18's ``extension_control_path``), as an extension
copied into the share directory, or as plain SQL where no files can be placed.
"""

from __future__ import annotations

from importlib import metadata, resources
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from pg_trickle.errors import InvalidDefinition, NotInstalled

Connection = psycopg.Connection[Any]

VERSION = metadata.version("pg_trickle")

CONTROL = f"""\
# pg_trickle: tables that keep themselves equal to a query
comment = 'stream tables: tables that keep themselves equal to a query'
default_version = '{VERSION}'
relocatable = false
superuser = true
"""

# Whole or in part: triggers on the sources go with the functions in the second schema.
THERE = """
    SELECT pg_catalog.to_regnamespace('pgtrickle') IS NOT NULL
        OR pg_catalog.to_regnamespace('pgtrickle_changes') IS NOT NULL
"""

# A slot keeps WAL for as long as it exists.
DROP_SLOT: LiteralString = """
    SELECT pg_catalog.pg_drop_replication_slot(s.slot_name)
      FROM pg_catalog.pg_replication_slots AS s JOIN pg_catalog.pg_database AS d ON d.datname = s.database
     WHERE s.slot_name = pg_catalog.concat('pg_trickle_', d.oid) AND d.datname = pg_catalog.current_database()
"""


def extension_script() -> str:
    """The whole installation, files in the order of their names."""
    folder = resources.files("pg_trickle.install") / "sql"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def write_extension(directory: Path) -> None:
    """Write the control file and the script into an extension directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pg_trickle.control").write_text(CONTROL, encoding="utf-8")
    (directory / f"pg_trickle--{VERSION}.sql").write_text(extension_script(), encoding="utf-8")


def install(conn: Connection) -> None:
    """Run the installation as plain SQL, all or nothing.

    Raises InvalidDefinition (42501) for a role that isn't a superuser, (42710) when it is there already.
    """
    with conn.transaction(), conn.cursor() as cursor:
        if not _one(cursor, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"):
            raise InvalidDefinition(
                "permission denied to install pg_trickle",
                sqlstate="42501",
                hint="Connect as a superuser; everyday use needs none.",
            )
        if _one(cursor, THERE):
            raise InvalidDefinition(
                "pg_trickle is already installed in this database",
                sqlstate="42710",
                hint="Remove it, or what is left of it, with pgtrickle uninstall first.",
            )
        # As CREATE EXTENSION does: a function may use another that comes later in the script.
        cursor.execute("SET LOCAL check_function_bodies = off")
        cursor.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        cursor.execute("SET LOCAL client_min_messages = warning")
        cursor.execute(extension_script().encode(), prepare=False)


def uninstall(conn: Connection) -> None:
    """Remove pg_trickle, or what a DROP SCHEMA by hand has left of it; stream tables stay as ordinary tables."""
    with conn.transaction(), conn.cursor() as cursor:
        if not _one(cursor, THERE):
            raise NotInstalled("pg_trickle is not installed in this database", sqlstate="42704")
        cursor.execute("SET LOCAL client_min_messages = warning")
        cursor.execute("DROP PUBLICATION IF EXISTS pg_trickle")
        cursor.execute(DROP_SLOT)
        if _one(cursor, "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_trickle')"):
            cursor.execute("DROP EXTENSION pg_trickle CASCADE")
        else:
            cursor.execute("DROP SCHEMA IF EXISTS pgtrickle, pgtrickle_changes CASCADE")


def _one(cursor: psycopg.Cursor[Any], query: str) -> bool:
    row = cursor.execute(query.encode()).fetchone()
    assert row is not None
    return bool(next(iter(row.values())) if isinstance(row, dict) else row[0])


__all__ = ["extension_script", "install", "uninstall", "write_extension"]
