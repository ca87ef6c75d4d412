"""``pgtrickle worker``."""

from __future__ import annotations

from typing import Annotated

import typer
from psycopg.conninfo import conninfo_to_dict

from pg_trickle.cli.options import Dsn
from pg_trickle.worker import process
from pg_trickle.worker.exporter import LOOPBACK


def worker(
    dsn: Dsn = "",
    no_schedule: Annotated[
        bool, typer.Option("--no-schedule", help="Compile for SQL callers, but refresh nothing.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            help="Serve Prometheus metrics there; by default as pg_trickle.metrics_port says, if it does.",
        ),
    ] = None,
    metrics_address: Annotated[
        str, typer.Option("--metrics-address", help="The address to serve them on, to whoever can connect.")
    ] = LOOPBACK,
) -> None:
    """Run the worker of a database until SIGTERM or Ctrl-C: it refreshes on schedule and compiles for SQL callers.

    It logs in as a role that pgtrickle.grant_worker() was called for, and needs no other rights. A second worker
    waits until the first is gone.

    Example: pgtrickle worker --dsn "host=db dbname=shop user=pgtrickle_worker"
    """
    # One that can't be read won't be any better later.
    conninfo_to_dict(dsn)
    process.run(dsn, schedule=not no_schedule, metrics_port=metrics_port, metrics_address=metrics_address)
