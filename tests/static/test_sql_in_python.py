"""SQL is made from literal templates, and the core takes nothing of psycopg but the means to compose it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src" / "pg_trickle"
MODULES = sorted(SOURCES.rglob("*.py"))
CORE = (
    "algebra",
    "parse",
    "rewrite",
    "render",
    "catalog/model.py",
    "compile.py",
    "stages.py",
    "state_columns.py",
    "scalar.py",
    "errors.py",
)
STATEMENT_TYPES = {"LiteralString"}


def module_id(path: Path) -> str:
    return str(path.relative_to(SOURCES))


def literal_names(tree: ast.AST) -> set[str]:
    """Names declared as LiteralString and given a literal: a template that stands in one place only."""
    return {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.annotation, ast.Name)
        and node.annotation.id in STATEMENT_TYPES
        and isinstance(node.value, ast.Constant)
    }


def composed_from(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls of psycopg's SQL()."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if name == "SQL":
                yield node


def violations(source: str) -> list[int]:
    tree = ast.parse(source)
    literals = literal_names(tree)

    def is_literal(argument: ast.expr) -> bool:
        if isinstance(argument, ast.Name):
            return argument.id in literals
        return isinstance(argument, ast.Constant) and isinstance(argument.value, str)

    return [call.lineno for call in composed_from(tree) if [*map(is_literal, call.args)] != [True] or call.keywords]


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_sql_is_composed_from_string_literals(path: Path) -> None:
    assert violations(path.read_text()) == []


@pytest.mark.parametrize("argument", ["text", "f'SELECT {x}'", "'a' + b", "'%s' % x", "str(x)", ""])
def test_the_guard_sees_what_is_no_literal(argument: str) -> None:
    assert violations(f"sql.SQL({argument})") == [1]


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if str(path.relative_to(SOURCES)).startswith(CORE)], ids=module_id
)
def test_the_core_takes_nothing_of_psycopg_but_sql(path: Path) -> None:
    used = {name for name in imports(ast.parse(path.read_text())) if name.split(".")[0] == "psycopg"}
    assert all(name == "psycopg.sql" or name.startswith("psycopg.sql.") for name in used), used
