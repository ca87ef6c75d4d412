"""``pgtrickle refresh``."""

from __future__ import annotations

from typing import Annotated

import typer

from pg_trickle import api
from pg_trickle.cli import output
from pg_trickle.cli.options import Dsn, connect


def refresh(
    names: Annotated[list[str], typer.Argument(help="The stream tables.", show_default=False)],
    dsn: Dsn = "",
) -> None:
    """Bring stream tables up to date now, those they read first.

    Example: pgtrickle refresh order_totals
    """
    with connect(dsn) as conn:
        for name in names:
            api.refresh_stream_table(conn, name)
            output.line(f"refreshed {name}")
