"""``pgtrickle explain``."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any

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
        if delta:
            rows, _ = output.rows_of(conn.execute("SELECT * FROM pgtrickle.explain_delta(%s)", (name,)))
            if as_json:
                output.document(rows)
            else:
                _statements(rows)
        else:
            wanted = "json" if as_json else "text"
            row = conn.execute("SELECT pgtrickle.explain_stream_table(%s, %s)", (name, wanted)).fetchone()
            assert row is not None
            output.line(row[0])


def _statements(rows: list[dict[str, Any]]) -> None:
    for changed, program in groupby(rows, key=itemgetter("changed")):
        output.line(f"-- when rows changed in: {changed}")
        for row in program:
            output.line(f"{row['statement']};")
        output.line("")
    if not rows:
        output.line("-- always recomputed")
