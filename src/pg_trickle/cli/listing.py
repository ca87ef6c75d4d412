"""``pgtrickle list`` and ``status``."""

from __future__ import annotations

import typer

from pg_trickle.cli import output
from pg_trickle.cli.options import AsJson, Dsn, connect

LISTED = ("name", "status", "refresh_mode", "schedule", "staleness")


def list_(dsn: Dsn = "", as_json: AsJson = False) -> None:
    """List the stream tables that you may see.

    Example: pgtrickle list --json
    """
    with connect(dsn) as conn:
        rows, _ = output.rows_of(conn.execute("SELECT * FROM pgtrickle.pgt_status() ORDER BY name"))
    output.table(rows, LISTED, as_json=as_json, empty="no stream tables")


def status(dsn: Dsn = "", as_json: AsJson = False) -> None:
    """Show how stream tables and worker are; exit with 1 if a check reports an error.

    Example: pgtrickle status --dsn "dbname=shop"
    """
    with connect(dsn) as conn:
        tables, table_columns = output.rows_of(conn.execute("SELECT * FROM pgtrickle.pgt_status() ORDER BY name"))
        checks, check_columns = output.rows_of(conn.execute("SELECT * FROM pgtrickle.health_check()"))
    if as_json:
        output.document({"stream_tables": tables, "checks": checks})
    else:
        output.table(tables, table_columns, as_json=False, empty="no stream tables")
        output.line("")
        output.table(checks, check_columns, as_json=False, empty="no checks")
    if any(check["severity"] == "ERROR" for check in checks):
        raise typer.Exit(1)
