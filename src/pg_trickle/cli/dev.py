"""``pgtrickle dev``: a server to play with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pg_trickle.cli import output
from pg_trickle.cli.options import AsJson
from pg_trickle.errors import NotInstalled
from pg_trickle.testing import playground

app = typer.Typer(help="An embedded PostgreSQL with the extension and a worker, to play with.", no_args_is_help=True)


def _directory(data: str) -> Path:
    # A variable that isn't set must not mean the current directory.
    if not data:
        raise typer.BadParameter("it is empty")
    return Path(data)


Data = Annotated[
    Path,
    typer.Option("--data", metavar="DIR", help="Where the cluster is kept.", show_default=False, parser=_directory),
]


@app.command()
def up(
    data: Data,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port on 127.0.0.1; by default a free one.")
    ] = None,
    no_worker_schedule: Annotated[
        bool, typer.Option("--no-worker-schedule", help="The worker compiles for SQL callers, but refreshes nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a server with the extension and a worker; both keep running.

    Example: pgtrickle dev up --data ./play && psql "$(pgtrickle dev status --data ./play --dsn-only)"
    """
    state = playground.up(data, port=port, schedule=not no_worker_schedule)
    if as_json:
        output.document(state.to_json())
    else:
        # Which of those on the machine it took: without the extra "embedded" it needn't be the one that is thought of.
        output.line(f"{f'PostgreSQL {state.version}'.rstrip()} is ready: psql '{state.dsn}'")
        if no_worker_schedule:
            output.line("The worker refreshes nothing by itself: SELECT pgtrickle.refresh_stream_table('…') does.")


@app.command()
def down(data: Data) -> None:
    """Stop what "up" started, and nothing else; the data stays.

    Example: pgtrickle dev down --data ./play
    """
    output.line("stopped" if playground.down(data) else "nothing was running")


@app.command()
def status(
    data: Data,
    dsn_only: Annotated[bool, typer.Option("--dsn-only", help="Print just the connection string.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is running; exit with 1 unless server and worker are.

    Example: pgtrickle dev status --data ./play --json
    """
    state = playground.status(data)
    server, worker = (state.server.is_alive, state.worker.is_alive) if state else (False, False)
    if as_json:
        output.document({**(state.to_json() if state else {}), "server_running": server, "worker_running": worker})
    elif dsn_only:
        if state is None:
            # Not where a connection string is read from.
            raise NotInstalled("nothing was started there", hint=f'pgtrickle dev up --data "{data}" does.')
        output.line(state.dsn)
    else:
        output.line(f"server: {'running' if server else 'stopped'}\nworker: {'running' if worker else 'stopped'}")
    if not (server and worker):
        raise typer.Exit(1)
