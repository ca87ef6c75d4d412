"""The list of SQLSTATEs in the documentation is complete, and pg_trickle's own signals stay inside."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import psycopg.errors

from pg_trickle.install.install import extension_script

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
CODE = re.compile(r"\b([0-9A-Z]{5})\b")


def by_condition() -> dict[str, str]:
    """SQLSTATEs by PostgreSQL's names for them, as PL/pgSQL spells those."""
    classes = [one for one in vars(psycopg.errors).values() if isinstance(one, type) and issubclass(one, psycopg.Error)]
    named = {re.sub(r"(?<!^)([A-Z])", r"_\1", one.__name__).lower(): one.sqlstate for one in classes}
    return {name: code for name, code in named.items() if code}


def raised_in_sql() -> set[str]:
    names = by_condition()
    found = set(re.findall(r"ERRCODE = '+(\w+)'", extension_script()))
    return {code if CODE.fullmatch(code) and code[0] in "0123456789TX" else names[code] for code in found}


def raised_in_python() -> set[str]:
    modules = Path(str(files("pg_trickle"))).rglob("*.py")
    return {code for module in modules for code in re.findall(r'sqlstate ?= ?"(\w{5})"', module.read_text("utf-8"))}


def documented() -> set[str]:
    rows = [line.split("|")[1] for line in DOCS.read_text("utf-8").splitlines() if line.startswith("| ")]
    return {code for row in rows for code in CODE.findall(row)}


def signals() -> set[str]:
    return set(re.findall(r"'(TK\d{3})'", extension_script()))


def test_every_code_that_is_raised_is_documented() -> None:
    assert raised_in_sql() | raised_in_python() - signals() >= {"0A000", "22023", "55000"}
    assert (raised_in_sql() | raised_in_python()) - signals() - documented() == set()


def test_every_documented_code_is_raised() -> None:
    assert documented() - raised_in_sql() - raised_in_python() - {"42701"} == set()


def test_every_signal_is_caught_where_it_would_leave() -> None:
    """Raised, and waited for by name; nothing names one that isn't raised."""
    script = extension_script()
    raised = set(re.findall(r"(?:RAISE SQLSTATE |ERRCODE = )'(TK\d{3})'", script))
    caught = set(re.findall(r"WHEN (?:\w+ OR )?SQLSTATE '(TK\d{3})'", script))
    assert raised == caught == signals()
