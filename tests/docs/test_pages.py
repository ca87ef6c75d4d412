"""What the pages say is so: their SQL runs and gives what they show, their links lead somewhere, their names exist."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from pg_trickle.cli.main import app

Connection = psycopg.Connection[tuple[Any, ...]]

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TUTORIALS = [*sorted((ROOT / "docs" / "tutorials").glob("*.md")), ROOT / "README.md", ROOT / "docs" / "quick-start.md"]
PATIENCE_SECONDS = 20

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A statement ends with the line that ends with a semicolon; what follows the semicolon is a comment.
STATEMENT = re.compile(r".*?;(?=[ \t]*(?:--[^\n]*)?\n)", re.DOTALL)


def page(path: Path) -> str:
    return str(path.relative_to(ROOT))


def cells(table: str) -> list[list[str]]:
    """The rows of a table as psql prints it."""
    return [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]


def result(conn: Connection, statement: str) -> list[list[str]]:
    cursor = conn.execute(statement.encode())
    rows = cursor.fetchall() if cursor.description else []
    return [["" if value is None else str(value).strip() for value in row] for row in rows]


def shown(conn: Connection, statement: str, expected: list[list[str]]) -> list[list[str]]:
    """The result of a query, once the worker has made it what the page shows; in the end, whatever it is."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while (found := result(conn, statement)) != expected and time.monotonic() < give_up_at:
        if conn.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE:
            break
    return found


@pytest.mark.parametrize("path", TUTORIALS, ids=page)
def test_the_sql_of_a_tutorial_gives_what_it_shows(path: Path, db: Connection, database: Any, worker: Any) -> None:
    blocks = [(kind, text) for kind, text in BLOCK.findall(path.read_text()) if kind in ("sql", "text", "python")]
    for place, (kind, text) in enumerate(blocks):
        if kind == "python":
            exec(text.replace("dbname=shop", database.dsn), {})
        if kind != "sql":
            continue
        answer = (
            cells(blocks[place + 1][1]) if blocks[place + 1 : place + 2] and blocks[place + 1][0] == "text" else None
        )
        statements = [one.strip() for one in STATEMENT.findall(text)]
        for number, statement in enumerate(statements):
            # COMMIT may come after the query whose answer is shown.
            last_query = max((n for n, one in enumerate(statements) if one.startswith("SELECT")), default=-1)
            if answer is not None and number == last_query:
                assert shown(db, statement, answer) == answer, statement
            else:
                result(db, statement)


def links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" not in target:
            yield target


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_links_lead_somewhere(path: Path) -> None:
    broken = [target for target in links(path) if not (path.parent / target.split("#")[0]).exists()]
    assert broken == []


def headings(path: Path) -> set[str]:
    lines = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_links_to_sections_lead_there(path: Path) -> None:
    for target in links(path):
        file, _, section = target.partition("#")
        if section:
            assert section in headings(path.parent / file if file else path), target


def test_commands_in_the_pages_exist() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for path in PAGES:
        used = set(re.findall(r"(?:^ {4}|/bin/|`)pgtrickle ([a-z]+)", path.read_text(), re.MULTILINE))
        assert used <= known, path


def test_names_in_the_pages_exist(db: Connection) -> None:
    known = {
        name
        for (name,) in db.execute(
            """SELECT proname FROM pg_proc WHERE pronamespace = 'pgtrickle'::regnamespace
               UNION SELECT relname FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace"""
        )
    }
    for path in PAGES:
        if path.name != "internals.md":
            assert set(re.findall(r"\bpgtrickle\.(\w+)", path.read_text())) <= known, path
