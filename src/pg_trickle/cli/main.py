"""``pgtrickle``: the commands, and what happens when one fails."""

from __future__ import annotations

import sys
from importlib.metadata import version as package_version
from typing import Annotated

import psycopg
import typer

from pg_trickle.cli import (
    alter,
    bench,
    create,
    dashboard,
    demo,
    dev,
    doctor,
    drop,
    explain,
    export,
    install,
    listing,
    refresh,
    upgrade,
    validate,
    verify,
    worker,
)
from pg_trickle.cli.failure import report
from pg_trickle.errors import PgTrickleError

FAILURE = 1
INTERRUPTED = 130

app = typer.Typer(
    name="pgtrickle",
    help="Stream tables for any PostgreSQL: tables that keep themselves equal to a query.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(dev.app, name="dev")
for _command in (
    demo.demo,
    install.install,
    install.uninstall,
    upgrade.upgrade,
    worker.worker,
    create.create,
    alter.alter,
    drop.drop,
    refresh.refresh,
    listing.list_,
    listing.status,
    dashboard.dashboard,
    explain.explain,
    verify.verify,
    export.export,
    validate.validate,
    doctor.doctor,
    bench.bench,
):
    app.command(_command.__name__.strip("_"))(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"pgtrickle {package_version('pg_trickle')}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Stream tables for any PostgreSQL: tables that keep themselves equal to a query."""


def main() -> None:
    """Run a command; exit with 0, with 1 when it failed, with 2 when it was called wrongly."""
    try:
        app()
    except (PgTrickleError, psycopg.Error) as error:
        sys.stderr.write(report(error) + "\n")
        sys.exit(FAILURE)
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
