"""``pgtrickle validate``."""

from __future__ import annotations

import typer

from pg_trickle import api
from pg_trickle.cli import output
from pg_trickle.cli.create import File, Query, pointing_into, query_text
from pg_trickle.cli.options import AsJson, Dsn, connect


def validate(query: Query = None, file: File = None, dsn: Dsn = "", as_json: AsJson = False) -> None:
    """Say what would happen to a query, creating nothing; exit with 1 if it can't be a stream table.

    Example: pgtrickle validate "SELECT id, random() FROM orders"
    """
    text = query_text(query, file)
    if text is None:
        raise typer.BadParameter("a query, or a --file with one, is needed")
    with connect(dsn) as conn, pointing_into(text):
        rows = [row._asdict() for row in api.validate_query(conn, text)]
    output.table(rows, ("check_name", "result", "severity"), as_json=as_json, empty="nothing to say")
    if any(row["severity"] == "ERROR" for row in rows):
        raise typer.Exit(1)
