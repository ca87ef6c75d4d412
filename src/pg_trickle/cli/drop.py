"""``pgtrickle drop``."""

from __future__ import annotations

from typing import Annotated

import typer

from pg_trickle import api
from pg_trickle.cli import output
from pg_trickle.cli.options import Dsn, Name, connect


def drop(
    name: Name,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Drop the stream tables that depend on it as well.")
    ] = False,
    dsn: Dsn = "",
) -> None:
    """Drop a stream table and what belongs to it.

    Example: pgtrickle drop order_totals --cascade
    """
    with connect(dsn) as conn:
        api.drop_stream_table(conn, name, cascade=cascade)
    output.line(f"dropped {name}")
