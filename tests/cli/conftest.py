"""Calling the command line as a shell would, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pg_trickle.cli.main import main


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``pgtrickle`` with arguments."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["pgtrickle", *arguments])
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as exit_:
            code = exit_.code or 0
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def pgtrickle(run: Command, database: Any, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run ``pgtrickle`` on the test's database."""
    monkeypatch.setenv("PGTRICKLE_DSN", database.dsn)
    return run
