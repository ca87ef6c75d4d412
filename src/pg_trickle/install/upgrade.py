"""From the version of the SQL part that a database has to that of this package."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql

from pg_trickle.errors import InvalidDefinition, NotInstalled
from pg_trickle.install.install import VERSION

# An extension says which version it is; what was installed as plain SQL, by its function.  Where nothing is installed,
# anybody may have taken the schema's name, and it is a superuser who is about to call that function.
INSTALLED = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_roles AS o ON o.oid = p.proowner
                    WHERE p.oid = pg_catalog.to_regprocedure('pgtrickle.version()') AND o.rolsuper),
           (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pg_trickle')
"""
PATH = "SELECT path FROM pg_catalog.pg_extension_update_paths('pg_trickle') WHERE source = %s AND target = %s"


def upgrade(conn: psycopg.Connection[Any]) -> tuple[str, str]:
    """The version before and after; the same if there was nothing to do.

    Raises NotInstalled (55000) where there is no SQL part, InvalidDefinition (0A000) where it is newer than this
    package, or older and no script leads here.
    """
    with conn.transaction():
        there, version = _row(conn, INSTALLED)
        if not there:
            raise NotInstalled("pg_trickle is not installed in this database", hint="Install it: pgtrickle install.")
        is_extension = version is not None
        if version is None:
            (version,) = _row(conn, "SELECT pgtrickle.version()")
        if version == VERSION:
            return version, VERSION
        if _order(version) > _order(VERSION):
            raise InvalidDefinition(
                f"the database has pg_trickle {version}, which is newer than this package ({VERSION})",
                sqlstate="0A000",
                hint="Upgrade the Python package; there is no way back.",
            )
        if not is_extension or conn.execute(PATH, (version, VERSION)).fetchone() in (None, (None,)):
            raise InvalidDefinition(
                f"no script leads from pg_trickle {version} to {VERSION}",
                sqlstate="0A000",
                detail="Nothing was changed: the stream tables go on as they are.",
                hint="Use the Python package of the same version, or write the definitions down with pgtrickle export, "
                "uninstall, install, and create them anew.",
            )
        conn.execute("SELECT pg_catalog.set_config('client_min_messages', 'warning', true)")
        conn.execute(sql.SQL("ALTER EXTENSION pg_trickle UPDATE TO {version}").format(version=VERSION))
        return version, VERSION


def _order(version: str) -> tuple[int, ...]:
    """Numbers in the order of their meaning: 0.10 is newer than 0.9."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _row(conn: psycopg.Connection[Any], query: Any) -> tuple[Any, ...]:
    row = conn.execute(query).fetchone()
    assert row is not None
    return tuple(row)
