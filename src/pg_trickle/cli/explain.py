"""``pgtrickle explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from pg_trickle.cli import output
from pg_trickle.cli.options import AsJson, Dsn, Name, connect


def explain(
    name: Name,
    delta: Annotated[bool, typer.Option("--delta", help="Show the SQL of a differential refresh instead.")] = False,
    dsn: Dsn = "",
    as_json: AsJson = False,
) -> None:
    """Show how a stream table is kept: its operators, and the rule used for each.

    Example: pgtrickle explain order_totals --delta
    """
    with connect(dsn) as conn:
        rows, columns = output.rows_of(
            conn.execute("SELECT * FROM pgtrickle.explain_delta(%s)", (name,))
            if delta
            else conn.execute(
                "SELECT * FROM pgtrickle.explain_stream_table(%s, %s)", (name, "json" if as_json else "text")
            )
        )
    if as_json:
        output.document([row[columns[0]] if len(columns) == 1 else row for row in rows])
    else:
        for row in rows:
            output.line("  ".join(str(row[column]) for column in columns))
