"""``pgtrickle verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from pg_trickle import api
from pg_trickle.cli import output
from pg_trickle.cli.options import AsJson, Dsn, connect

COLUMNS = ("name", "missing", "extra", "ok")


def verify(
    names: Annotated[list[str] | None, typer.Argument(help="The stream tables; by default all you may see.")] = None,
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Compare stream tables with their queries; exit with 1 if one differs.

    A stream table that waits for its next refresh differs, too: refresh it first, or give the worker a moment.

    Example: pgtrickle verify order_totals
    """
    with connect(dsn) as conn:
        chosen = names or [row[0] for row in conn.execute("SELECT name FROM pgtrickle.pgt_status() ORDER BY name")]
        rows = [{"name": name, **api.verify_stream_table(conn, name)._asdict()} for name in chosen]
    output.table(rows, COLUMNS, as_json=as_json, empty="no stream tables")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)
