"""Databases aren't all in UTF8: what is installed is ASCII, and what the compiler says can be written in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pg_trickle.repertoire import ASCII

SOURCES = Path(__file__).parents[2] / "src" / "pg_trickle"
SCRIPTS = sorted((SOURCES / "install" / "sql").glob("*.sql"))
# What never speaks to a server.
APART = ("cli", "demo", "testing")
WORDED = [
    path
    for path in sorted(SOURCES.rglob("*.py"))
    if path.relative_to(SOURCES).parts[0] not in APART and path.name != "repertoire.py"
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_ascii(script):
    """A file for CREATE EXTENSION is read in the database's encoding."""
    assert script.read_text(encoding="utf-8").isascii()


def _said(path: Path) -> str:
    """All string literals of a module that aren't documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return "".join(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    )


def test_everything_that_is_said_can_be_said_in_ascii():
    foreign = {char for path in WORDED for char in _said(path) if not char.isascii()}
    assert foreign
    assert {char for char in foreign if not char.translate(ASCII).isascii()} == set()
