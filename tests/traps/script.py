"""Scripts: SQL with a few directives, each script named by the traps that it walks into (README.md says how)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import postgast

FOLDER = Path(__file__).parent / "scripts"
TITLE = re.compile(r"-- (?P<traps>[A-GT]\d+(?: [A-GT]\d+)*) (?P<title>\S.*)")

DIRECTIVES = (
    ("stream", re.compile(r"STREAM (?P<full>FULL )?(?P<name>\w+) AS\s+(?P<rest>.*)", re.DOTALL)),
    ("alter", re.compile(r"ALTER STREAM (?P<name>\w+) AS\s+(?P<rest>.*)", re.DOTALL)),
    ("refresh", re.compile(r"REFRESH(?P<full> FULL)?(?P<rest>(?: \w+)*)")),
    ("recompute", re.compile(r"RECOMPUTE(?P<rest>)")),
    ("on", re.compile(r"ON (?P<name>\w+):\s*(?P<rest>.*)", re.DOTALL)),
    ("fails", re.compile(r"FAILS '(?P<name>\w{5})'\s+(?P<rest>.*)", re.DOTALL)),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A directive, or ``sql``; ``name`` is its object, session or SQLSTATE, ``full`` its word FULL."""

    kind: str
    rest: str
    name: str = ""
    full: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """What is done, and which traps that covers."""

    topic: str
    traps: tuple[str, ...]
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.topic}: {' '.join(self.traps)} {self.title}"

    def statements(self) -> Iterator[Statement]:
        """Its statements in order; the scanner of PostgreSQL knows where each ends."""
        yield from (statement(text) for text in postgast.split(self.text, method="scanner") if text.strip())


def statement(text: str) -> Statement:
    """One statement, which may be a directive."""
    text = re.sub(r"\A(\s*--[^\n]*\n)*", "", text).strip()
    for kind, pattern in DIRECTIVES:
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            return Statement(kind, parts["rest"].strip(), parts.get("name") or "", bool(parts.get("full")))
    return Statement("sql", text)


def scripts() -> Iterator[Script]:
    """All scripts of all files."""
    for path in sorted(FOLDER.glob("*.sql")):
        yield from _scripts(path.stem, path.read_text(encoding="utf-8"))


def _scripts(topic: str, text: str) -> Iterator[Script]:
    starts = list(TITLE.finditer(text))
    ends = [*(start.start() for start in starts[1:]), len(text)]
    for start, end in zip(starts, ends, strict=True):
        yield Script(topic, tuple(start["traps"].split()), start["title"], text[start.end() : end])
