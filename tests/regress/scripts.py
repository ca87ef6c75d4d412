"""psql scripts, as PostgreSQL's own regression tests are written, statement by statement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import postgast

_VARIABLE = re.compile(r"\\set\s+(\w+)\s+:abs_srcdir\s+'([^']+)'")
_FROM_STDIN = re.compile(r"\bfrom\s+stdin\b[^;]*;\s*$", re.IGNORECASE)
_IN_PLACE_OF_SEMICOLON = re.compile(r"\\(gset|gexec|gx|gdesc|crosstabview|g)\b.*$")
_TEMPORARY = re.compile(r"^(create\s+(?:or\s+replace\s+)?)(?:(?:local|global)\s+)?temp(?:orary)?\s+", re.IGNORECASE)
_UNLOGGED = re.compile(r"^(create\s+)unlogged\s+", re.IGNORECASE)
_ON_COMMIT = re.compile(r"\bon\s+commit\s+(drop|delete\s+rows|preserve\s+rows)", re.IGNORECASE)
_COMMENTS = re.compile(r"\A(\s+|--[^\n]*(\n|\Z)|/\*.*?\*/)*", re.DOTALL)
_EXPLAIN = re.compile(r"^explain\s*(\([^)]*\)|((analyze|verbose)\s+)*)\s*", re.IGNORECASE)
_QUERY = re.compile(r"^(select|with|values|table|\()", re.IGNORECASE)
_LOCKING = re.compile(r"\bfor\s+(update|share|no\s+key|key\s+share)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, and the rows that follow it if it is COPY FROM STDIN."""

    text: str
    rows: str | None = None

    @property
    def query(self) -> str | None:
        """The query that it is, or explains; None if it is something else, or locks rows."""
        text = _EXPLAIN.sub("", self.text)
        return text if _QUERY.match(text) and not _LOCKING.search(text) else None


def statements(script: Path, directory: Path) -> Iterator[Statement]:
    """The statements of a script; the files of data that it names are in ``directory``.

    What psql does by itself is left out.  Tables that would be temporary, or not logged, are ordinary ones.
    """
    pending: list[str] = []
    values: dict[str, str] = {}
    lines = iter(script.read_text(errors="replace").splitlines())
    for line in lines:
        if set_here := _VARIABLE.match(line):
            values[set_here[1]] = f"{directory}{set_here[2]}"
        if line.startswith("\\"):
            continue
        for name, value in values.items():
            line = line.replace(f":'{name}'", f"'{value}'")
        pending.append(_IN_PLACE_OF_SEMICOLON.sub(";", line))
        if _FROM_STDIN.search(line):
            *before, copying = _split(pending)
            yield from map(Statement, before)
            yield Statement(copying, "".join(f"{row}\n" for row in iter(lambda: next(lines, "\\."), "\\.")))
            pending = []
    yield from map(Statement, _split(pending))


def _split(lines: list[str]) -> list[str]:
    parts = (_COMMENTS.sub("", part).rstrip() for part in postgast.split("\n".join(lines), method="scanner"))
    return [_lasting(part) for part in parts if part]


def _lasting(text: str) -> str:
    return _ON_COMMIT.sub("", _UNLOGGED.sub(r"\1", _TEMPORARY.sub(r"\1", text))).rstrip()
