"""``pgtrickle install`` and ``uninstall``: as plain SQL where no files can be placed, or just the files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pg_trickle.cli import output
from pg_trickle.cli.options import Dsn, connect
from pg_trickle.install import install as installer


def install(
    dsn: Dsn = "",
    worker_role: Annotated[
        str | None, typer.Option("--worker-role", metavar="ROLE", help="An existing login role to run the worker.")
    ] = None,
    wal: Annotated[
        bool, typer.Option("--wal", help="Also make the replication slot for cdc_mode wal (wal_level = logical).")
    ] = False,
    files: Annotated[
        Path | None,
        typer.Option(
            "--files", metavar="DIRECTORY", help="Write the files for CREATE EXTENSION there, and touch no database."
        ),
    ] = None,
) -> None:
    """Install pg_trickle into a database, as plain SQL; needs a superuser.

    Example: pgtrickle install --dsn "host=db dbname=shop user=postgres" --worker-role pgtrickle_worker
    """
    if files is not None:
        installer.write_extension(files)
        output.line(f"wrote pg_trickle.control and its script to {files}")
        return
    with connect(dsn) as conn:
        # All or nothing: called again with what was wrong put right, it doesn't find half of it there.
        with conn.transaction():
            installer.install(conn)
            if worker_role is not None:
                conn.execute("SELECT pgtrickle.grant_worker(%s)", (worker_role,))
            if wal:
                conn.execute("SELECT pgtrickle_changes.wal_make_publication()")
        if wal:
            conn.execute("CALL pgtrickle.enable_wal()")
        row = conn.execute("SELECT pgtrickle.version()").fetchone()
    output.line(f"installed pg_trickle {row[0] if row else ''}".rstrip())


def uninstall(dsn: Dsn = "") -> None:
    """Remove pg_trickle from a database; stream tables stay as ordinary tables with their rows.

    Example: pgtrickle uninstall --dsn "host=db dbname=shop user=postgres"
    """
    with connect(dsn) as conn:
        installer.uninstall(conn)
    output.line("removed pg_trickle; the stream tables are ordinary tables now")
