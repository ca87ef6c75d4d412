"""The generated pages of docs/ are what their sources say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from tests.support.constructs import TEST, constructs

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_is_documented(generator: ModuleType) -> None:
    assert (DOCS / "cli.md").read_text() == generator.command_line(), "run make docs"


def test_the_sql_reference_is_up_to_date(generator: ModuleType, db: psycopg.Connection[Any]) -> None:
    assert (DOCS / "sql-reference.md").read_text() == generator.sql_reference(db), "run make docs"


def test_the_supported_sql_is_up_to_date(generator: ModuleType) -> None:
    assert (DOCS / "sql-support.md").read_text() == generator.sql_support(), "run make docs"


def test_every_construct_has_a_test_of_its_own() -> None:
    names = [one.test for one in constructs()]
    assert len(names) == len(set(names))
    path, _, function = TEST.partition("::")
    assert f"def {function}(" in (DOCS.parent / path).read_text()


def test_every_command_has_an_example(generator: ModuleType) -> None:
    sections = generator.command_line().split("\n## ")[1:]
    assert [section.split("\n")[0] for section in sections if "```sh" not in section] == []
