"""The corpus: queries in .sql files, each followed by what the compiler makes of it, as comments.

A case is a title (a comment), a query that ends in a semicolon, and lines that begin with ``--|``.  To add one,
write title and query and run ``pytest tests/compile/test_corpus.py --rewrite``; then read what it wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Empty, Source, State, Unit
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.compile import compile as compile_query
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse import fallback
from pg_trickle.parse.select import parse
from pg_trickle.recomputed import Recomputed
from pg_trickle.rewrite.collapse import collapsed
from pg_trickle.rewrite.passes import optimised
from pg_trickle.rewrite.specialise import specialised
from pg_trickle.stages import AnyStage, cut
from tests.algebra.outline import outline
from tests.compile.requests import request

FOLDER = Path(__file__).parent.parent / "corpus"
RESULT = "--|"


@dataclass(frozen=True)
class Case:
    """A query, and what the file says the compiler makes of it."""

    file: str
    title: str
    query: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}: {self.title}"


def cases() -> Iterator[Case]:
    """Every case of every file."""
    for path in sorted(FOLDER.glob("*.sql")):
        yield from _cases(path)


def _cases(path: Path) -> Iterator[Case]:
    title = ""
    query: list[str] = []
    expected: list[str] = []
    for line in [*path.read_text(encoding="utf-8").splitlines(), "-- end"]:
        if line.startswith(RESULT):
            expected.append(line.removeprefix(RESULT).removeprefix(" "))
        elif line.startswith("-- "):
            if query:
                yield Case(path.stem, title, "\n".join(query).rstrip(";"), "\n".join(expected))
            title, query, expected = line.removeprefix("-- "), [], []
        elif line:
            query.append(line)


def rewrite(name: str) -> None:
    """Write a file again, with what the compiler makes of its queries now."""
    path = FOLDER / f"{name}.sql"
    parts = []
    for case in _cases(path):
        result = "\n".join(f"{RESULT} {line}".rstrip() for line in told(case.query).splitlines())
        parts.append(f"-- {case.title}\n{case.query};\n{result}\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def told(query: str) -> str:
    """What the compiler makes of a query: its refusal, or key, captured columns, and the change of each part."""
    made = request(query)
    plan = compile_query(made)
    if plan.refusal is not None:
        return f"refused: {plan.refusal.construct}: {plan.refusal.reason}"
    names = {one.oid: one.name for one in made.relations}
    captured = (f"{names[oid]} ({', '.join(columns)})" for oid, columns in sorted(plan.sources.items()))
    lines = [f"key: {', '.join(plan.key)}" if plan.key else "key: none", f"captured: {'; '.join(captured)}"]
    stages, final = cut(collapsed(optimised(_understood(made))), made.id)
    states: set[State] = set()
    for stage in stages:
        lines += [f"{stage.state.name}: {_stored(stage)}", outline(stage.below, 1)]
        lines += _changes(stage.below, plan.sources, names, states)
        states.add(stage.state)
    lines += ["final:", outline(final, 1), *_changes(final, plan.sources, names, states)]
    return "\n".join(lines)


def _understood(made: CompileRequest) -> Plan:
    try:
        return parse(made).plan
    except UnsupportedQuery as refusal:
        return fallback.whole(made, refusal).plan


def _stored(stage: AnyStage) -> str:
    if isinstance(stage, Recomputed):
        return outline(stage.operator.over(lambda _: Unit())).partition("\n")[0]
    keys = ", ".join(stage.aggregate.keys) or "nothing"
    return f"by {keys}: {', '.join(f'{one.name} {one.role.name.lower()}' for one in stage.rest)}"


def _changes(plan: Plan, sources: Iterable[int], names: dict[int, str], states: set[State]) -> Iterator[str]:
    """The change when just one source changed; that of a state is read wherever its source is."""
    oids = sorted(sources)
    for oid in oids:

        def is_changed(table: Source | State, oid: int = oid) -> bool:
            return table in states if isinstance(table, State) else table.oid == oid

        change = specialised(plan.delta(), is_changed)
        if not isinstance(change, Empty) and len(oids) > 1:
            yield f"when {names[oid]} changed:"
            yield outline(change, 1)
