"""``pgtrickle create``: a stream table, compiled here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from pg_trickle import api
from pg_trickle.cli import output
from pg_trickle.cli.failure import report
from pg_trickle.cli.options import Dsn, Name, connect
from pg_trickle.errors import PgTrickleError

Query = Annotated[str | None, typer.Argument(help="The query; - reads it from standard input.", show_default=False)]
File = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="Read the query from a file.", exists=True)
]
Schedule = Annotated[
    str | None, typer.Option(help='A duration (30s, 1h30m), cron ("*/5 * * * *", UTC), "calculated", or "none".')
]
Mode = Annotated[str | None, typer.Option("--refresh-mode", help="AUTO, DIFFERENTIAL or FULL.")]
Diamond = Annotated[str | None, typer.Option("--diamond-consistency", help="atomic or none.")]
DiamondPolicy = Annotated[str | None, typer.Option("--diamond-schedule-policy", help="fastest or slowest.")]
CdcMode = Annotated[str | None, typer.Option("--cdc-mode", help="auto, trigger or wal.")]


def create(
    name: Name,
    query: Query = None,
    file: File = None,
    schedule: Schedule = "calculated",
    refresh_mode: Mode = "AUTO",
    initialize: Annotated[bool, typer.Option(help="Fill it now, or leave that to the first refresh.")] = True,
    diamond_consistency: Diamond = None,
    diamond_schedule_policy: DiamondPolicy = None,
    cdc_mode: CdcMode = None,
    append_only: Annotated[bool, typer.Option(help="A promise: the sources only see INSERTs.")] = False,
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Do nothing if it is there.")] = False,
    or_replace: Annotated[bool, typer.Option("--or-replace", help="Alter it if it is there and differs.")] = False,
    dsn: Dsn = "",
) -> None:
    """Create a stream table from a query.

    Example: pgtrickle create order_totals "SELECT customer_id, sum(amount) FROM orders GROUP BY customer_id"
    """
    if if_not_exists and or_replace:
        raise typer.BadParameter("--if-not-exists and --or-replace exclude each other")
    text = query_text(query, file)
    if text is None:
        raise typer.BadParameter("a query, or a --file with one, is needed")
    make = (
        api.create_stream_table_if_not_exists
        if if_not_exists
        else api.create_or_replace_stream_table
        if or_replace
        else api.create_stream_table
    )
    with connect(dsn) as conn, pointing_into(text):
        make(
            conn,
            name,
            text,
            schedule=None if schedule == "none" else schedule,
            refresh_mode=refresh_mode or "AUTO",
            initialize=initialize,
            diamond_consistency=diamond_consistency,
            diamond_schedule_policy=diamond_schedule_policy,
            cdc_mode=cdc_mode,
            append_only=append_only,
        )
    output.line(f"created {name}")


def query_text(query: str | None, file: Path | None) -> str | None:
    """The query that was given: as an argument, in a file, or on standard input."""
    if query is not None and file is not None:
        raise typer.BadParameter("give the query or a --file, not both")
    text = file.read_text() if file else sys.stdin.read() if query == "-" else query
    return None if text is None else text.strip().removesuffix(";").rstrip()


@contextlib.contextmanager
def pointing_into(query: str) -> Iterator[None]:
    """Show errors inside with the place in the query that they are about, and end the command."""
    try:
        yield
    except (PgTrickleError, psycopg.Error) as error:
        sys.stderr.write(report(error, query) + "\n")
        raise typer.Exit(1) from error
