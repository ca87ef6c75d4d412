"""``pgtrickle export``."""

from __future__ import annotations

from pg_trickle.cli.options import Dsn, Name


def export(name: Name, dsn: Dsn = "") -> None:
    """Print the SQL that makes a stream table anew.

    Example: pgtrickle export order_totals > order_totals.sql
    """
