"""SQL's constructs, each with a query: what docs/sql-support.md shows and tests/support tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).parent
FILE = HERE / "constructs.sql"
IS_RUN = "every mode runs it at each refresh"
IN_PART = "a part of it has no rule"
TEST = "tests/support/test_constructs.py::test_a_construct_does_what_the_page_says"


@dataclass(frozen=True, slots=True)
class Construct:
    """A query, of the modes that don't take it why (``{mode: construct that is refused}``), and whether all run it.

    ``in_part``: its changes have a part of it run again.
    """

    topic: str
    title: str
    query: str
    refused: dict[str, str]
    is_run: bool = False
    in_part: bool = False

    @property
    def test(self) -> str:
        """The part of the test's name that is this construct's own."""
        words = "".join(letter if letter.isalnum() else " " for letter in f"{self.topic} {self.title}")
        return "-".join(words.lower().split())

    def mode(self, asked: str) -> str:
        """How a stream table of that mode is maintained."""
        if asked in self.refused:
            return f"refused: {self.refused[asked]}"
        if self.is_run or (asked == "AUTO" and "DIFFERENTIAL" in self.refused):
            return "FULL"
        return "DIFFERENTIAL" if asked == "AUTO" else asked


def constructs() -> tuple[Construct, ...]:
    """All of them, in the order of the page."""
    return tuple(_read(FILE.read_text().split("\n\n")))


def _read(blocks: Iterable[str]) -> Iterator[Construct]:
    topic = ""
    for block in blocks:
        lines = block.strip().splitlines()
        if lines[0].startswith("# "):
            topic = lines[0].removeprefix("# ")
            continue
        notes = [line.removeprefix("--! ") for line in lines if line.startswith("--! ")]
        refused = {mode: what for mode, _, what in (note.partition(" refuses ") for note in notes) if what}
        query = "\n".join(line for line in lines if not line.startswith("--"))
        yield Construct(topic, lines[0].removeprefix("-- "), query, refused, IS_RUN in notes, IN_PART in notes)


def written(found: Iterable[Construct]) -> str:
    """The file anew."""
    parts = []
    for topic, members in groupby(found, key=lambda one: one.topic):
        parts.append(f"# {topic}")
        for one in members:
            notes = [f"--! {mode} refuses {what}" for mode, what in one.refused.items()]
            notes += [f"--! {IS_RUN}"] * one.is_run + [f"--! {IN_PART}"] * one.in_part
            parts.append("\n".join([f"-- {one.title}", *notes, one.query]))
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """The support matrix."""
    lines = [
        "# What SQL is maintained",
        "",
        "Each line is a construct, tried in each refresh mode by the test of its name: a stream table of the query,",
        "rows inserted, updated and deleted, a refresh, and the same rows as the query gives. `DIFFERENTIAL` is",
        "maintained by its changes, `FULL` by running the query and writing what differs; `AUTO` takes the first that",
        "works. `as FULL` under `DIFFERENTIAL`: nothing but looking tells what has changed, so each refresh runs the",
        "query. `in part`: a part without a rule is run again when what it reads has changed, the time included.",
        "Constructs combine freely: random combinations are tested by the thousand (`make fuzz`),"
        " and so are the queries of PostgreSQL's own regression tests and TPC-DS (`make regress`).",
        "",
        f"The tests are `{TEST}[NAME]`.",
    ]
    for topic, members in groupby(constructs(), key=lambda one: one.topic):
        lines += [
            "",
            f"## {topic}",
            "",
            "| construct | DIFFERENTIAL | FULL | AUTO | test |",
            "| --- | --- | --- | --- | --- |",
        ]
        for one in members:
            cells = [_cell(one, mode) for mode in ("DIFFERENTIAL", "FULL", "AUTO")]
            lines.append(f"| {one.title} | {' | '.join(cells)} | `{one.test}` |")
    return "\n".join(lines) + "\n"


def _cell(one: Construct, asked: str) -> str:
    mode = one.mode(asked)
    if mode.startswith("refused"):
        return mode
    if mode == asked == "DIFFERENTIAL" and one.in_part:
        return "in part"
    return "yes" if mode == asked else f"as {mode}"
