"""The options that many commands share."""

from __future__ import annotations

from typing import Annotated, Any

import psycopg
import typer

Dsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        envvar="PGTRICKLE_DSN",
        metavar="DSN",
        help="Where the database is; by default the PG* environment variables say so.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Name = Annotated[str, typer.Argument(help="The stream table, by a name as in SQL.", show_default=False)]


def connect(dsn: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection that commits each statement."""
    # Whatever encoding a database prescribes for its clients.
    return psycopg.connect(dsn, autocommit=True, application_name="pgtrickle", client_encoding="UTF8")
