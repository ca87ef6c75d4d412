"""The tables of a small company, what happens to them, and the queries that its developers write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg

HERE = Path(__file__).parent

Connection = psycopg.Connection[Any]


def queries() -> dict[str, str]:
    """The queries by their titles, ``kind: what it shows``."""
    parts = re.split(r"^-- (.+)\n", (HERE / "queries.sql").read_text(), flags=re.MULTILINE)[1:]
    return {title: text.strip().removesuffix(";") for title, text in zip(parts[::2], parts[1::2], strict=True)}


def load(conn: Connection, rows: int) -> None:
    """Make the tables, the large ones with so many rows."""
    conn.execute((HERE / "schema.sql").read_bytes())
    _run(conn, "data.sql", {"n": rows})
    conn.execute("ANALYZE")


def change(conn: Connection, share: float) -> None:
    """Have about that share of the rows come, go or change, in one transaction."""
    _run(conn, "churn.sql", {"share": share})


def _run(conn: Connection, file: str, values: dict[str, float]) -> None:
    with conn.transaction(), psycopg.ClientCursor(conn) as cursor:
        for statement in (HERE / file).read_text().split(";\n"):
            if statement.strip():
                cursor.execute(statement.encode(), values)
