"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from rich.text import Text


def printable(text: str) -> str:
    """A text without what commands a terminal: names and messages may hold any character, and are anybody's."""
    return "".join(
        f"\\x{ord(char):02x}" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char for char in text
    )


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print rows; ``empty`` is what to say when there are none."""
    found = [{column: row[column] for column in columns} for row in rows]
    if as_json:
        document(found)
    elif found:
        grid = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in found:
            grid.add_row(*(_cell(row[column]) for column in columns))
        _console().print(grid)
    else:
        sys.stdout.write(f"{empty}\n")


def document(value: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")


def line(text: str) -> None:
    """Print a line: as it is into a file, without control characters onto a terminal."""
    sys.stdout.write(f"{printable(text) if sys.stdout.isatty() else text}\n")


def rows_of(cursor: psycopg.Cursor[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """What a query returned: its rows by column name, and the columns in order."""
    columns = [column.name for column in cursor.description or ()]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()], columns


def _cell(value: Any) -> Text:
    return Text("" if value is None else "yes" if value is True else "no" if value is False else printable(str(value)))


def _console() -> Console:
    # Piped output must not be cut to eighty columns.
    return Console() if sys.stdout.isatty() else Console(width=1000, soft_wrap=True)
