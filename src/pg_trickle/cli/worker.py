"""``pgtrickle worker``."""

from __future__ import annotations

from typing import Annotated

import typer

from pg_trickle.cli.options import Dsn
from pg_trickle.worker import process


def worker(
    dsn: Dsn = "",
    no_schedule: Annotated[
        bool, typer.Option("--no-schedule", help="Compile for SQL callers, but refresh nothing.")
    ] = False,
) -> None:
    """Run the worker of a database until SIGTERM or Ctrl-C: it refreshes on schedule and compiles for SQL callers.

    It logs in as a role that pgtrickle.grant_worker() was called for, and needs no other rights. A second worker
    waits until the first is gone.

    Example: pgtrickle worker --dsn "host=db dbname=shop user=pgtrickle_worker"
    """
    process.run(dsn, schedule=not no_schedule)
