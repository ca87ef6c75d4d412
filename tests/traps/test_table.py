"""TRAPS.md is complete, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.traps.script import FOLDER, TITLE, scripts

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<number>[A-GT]\d+) \| (?P<mistake>[^|]+) \| (?P<proof>[^|]*)\|$", re.MULTILINE)
TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)::(?P<name>\w+)`")
KNOWN = {"T": 20, "A": 18, "B": 20, "D": 32, "E": 24, "F": 25, "G": 15}

ROWS = {row["number"]: row["proof"].strip() for row in ROW.finditer((FOLDER.parent / "TRAPS.md").read_text())}
NAMED = {trap for script in scripts() for trap in script.traps}


def test_every_trap_has_a_row() -> None:
    assert list(ROWS) == [f"{letter}{number}" for letter, last in KNOWN.items() for number in range(1, last + 1)]


@pytest.mark.parametrize(("number", "proof"), ROWS.items())
def test_every_row_has_a_proof(number: str, proof: str) -> None:
    if number in NAMED or proof.startswith(("later: ", "can't occur: ")):
        return
    found = TEST.findall(proof)
    assert found, f"{number}: no script names it, and neither does the table say why"
    for path, name in found:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"


def test_scripts_walk_into_traps_that_there_are() -> None:
    assert ROWS.keys() >= NAMED


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sql")), ids=lambda path: path.stem)
def test_every_title_is_one(path: Path) -> None:
    """A comment at the beginning of a paragraph opens a script; one that names no trap would be lost."""
    paragraphs = re.split(r"\n\s*\n", path.read_text())
    assert [text.splitlines()[0] for text in paragraphs if not TITLE.match(text.lstrip())] == []
