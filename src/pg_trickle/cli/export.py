"""``pgtrickle export``."""

from __future__ import annotations

from typing import Any

import psycopg

from pg_trickle.cli import output
from pg_trickle.cli.options import Dsn, Name, connect


def export(name: Name, dsn: Dsn = "") -> None:
    """Print the SQL that makes a stream table anew.

    Example: pgtrickle export order_totals > order_totals.sql
    """
    with connect(dsn) as conn:
        output.line(definition(conn, name))


def definition(conn: psycopg.Connection[Any], name: str) -> str:
    """The statements that make a stream table as it is, wherever its sources are."""
    row = conn.execute("SELECT pgtrickle.export_definition(%s::pg_catalog.regclass)", (name,)).fetchone()
    return "" if row is None else str(row[0])
