"""``pgtrickle doctor``."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from typing import Any

import psycopg
import typer

from pg_trickle.cli import output
from pg_trickle.cli.options import AsJson, Dsn, connect

COLUMNS = ("check_name", "severity", "detail", "fix")


def doctor(dsn: Dsn = "", as_json: AsJson = False) -> None:
    """Check server and installation before they go into production; exit with 1 if a check reports an error.

    What isn't right comes with what to do about it.  Connect as a superuser.

    Example: pgtrickle doctor --dsn "dbname=shop user=postgres"
    """
    with connect(dsn) as conn:
        checks = examine(conn)
    output.table(checks, COLUMNS, as_json=as_json, empty="no checks")
    if any(check["severity"] == "ERROR" for check in checks):
        raise typer.Exit(1)


def examine(conn: psycopg.Connection[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """What there is to say of a server, and of the installation in it: a row a check, by the names of COLUMNS."""
    # Whoever may create in a schema on a superuser's path could otherwise have his functions called here.
    conn.execute("SET search_path = pg_catalog, pg_temp")
    checks, _ = output.rows_of(conn.execute(_query("doctor_server.sql")))
    found = {check["check_name"]: check["severity"] for check in checks}
    if found["superuser"] == found["installed"] == "OK":
        (installed,) = conn.execute("SELECT pgtrickle.version()").fetchone() or ("",)
        checks.append(_version_check(installed, version("pg_trickle")))
        for name in ("doctor_installed.sql", "doctor_wal.sql"):
            checks += output.rows_of(conn.execute(_query(name)))[0]
    return checks


def _version_check(installed: str, package: str) -> dict[str, Any]:
    same = installed == package
    return {
        "check_name": "version",
        "severity": "OK" if same else "ERROR",
        "detail": f"the database has {installed}, the Python package is {package}",
        "fix": None if same else "Upgrade the extension and the Python package together.",
    }


def _query(name: str) -> Any:
    return (files("pg_trickle.cli") / name).read_bytes()
