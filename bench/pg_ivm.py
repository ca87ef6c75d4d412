"""pg_ivm, the peer in C, where it can be had: measured beside us, never needed.

Debian's ``postgresql-18-pg-ivm`` can be unpacked anywhere (``dpkg-deb -x``) and used from there.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]


def settings(directory: Path, major: int) -> dict[str, str]:
    """The server's settings by which every session finds the library of an unpacked package."""
    return {"dynamic_library_path": f"$libdir:{directory.absolute()}/usr/lib/postgresql/{major}/lib"}


def unpacked(text: str) -> Path:
    """The directory of an unpacked package; an argument, or raises ArgumentTypeError."""
    directory = Path(text)
    if not list(directory.glob("usr/share/postgresql/*/extension/pg_ivm.control")):
        raise ArgumentTypeError(f"no pg_ivm is unpacked in {text}")
    return directory


def install(conn: Connection, directory: Path | None, major: int) -> None:
    """Create the extension from an unpacked package."""
    if directory is not None:
        place = f"{directory.absolute()}/usr/share/postgresql/{major}"
        conn.execute(
            """SELECT set_config('extension_control_path',
                                 current_setting('extension_control_path') || ':' || %s, false)""",
            (place,),
        )
    if conn.execute("SELECT FROM pg_available_extensions WHERE name = 'pg_ivm'").fetchone() is not None:
        conn.execute("CREATE EXTENSION pg_ivm")


def is_available(conn: Connection) -> bool:
    """Whether this database has the extension."""
    return conn.execute("SELECT FROM pg_extension WHERE extname = 'pg_ivm'").fetchone() is not None


def create(conn: Connection, name: str, query: str, key: str) -> None:
    """A view that pg_ivm maintains; with the index that it needs, where it doesn't make one by itself."""
    conn.execute("SELECT pgivm.create_immv(%s, %s)", (name, query))
    if conn.execute("SELECT FROM pg_index WHERE indrelid = to_regclass(%s)", (name,)).fetchone() is None:
        columns = sql.SQL(", ").join(sql.Identifier(column.strip()) for column in key.split(","))
        conn.execute(sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(sql.Identifier(name), columns))
