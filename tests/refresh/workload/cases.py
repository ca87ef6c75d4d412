"""A random case: tables, stream tables on them and on each other, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from tests.refresh.workload.queries import paths, queries
from tests.refresh.workload.sources import Path
from tests.refresh.workload.spelling import respelt
from tests.refresh.workload.tables import Relation, Table, alterations, inserts, tables, values, writes
from tests.refresh.workload.types import JSON_TABLE_SINCE, TYPES, Type
from tests.refresh.workload.values import Query, chains


@dataclass(frozen=True)
class Commit:
    """Statements in a transaction; those in ``undone`` are rolled back to a savepoint."""

    statements: tuple[str, ...]
    undone: tuple[str, ...] = ()
    outcome: str = "COMMIT"


@dataclass(frozen=True)
class Refresh:
    """Bring stream tables up to date; ``own`` writes come in the same transaction, before and after."""

    names: tuple[str, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    isolation: str = "READ COMMITTED"
    outcome: str = "COMMIT"


@dataclass(frozen=True)
class Open:
    """A second session begins a transaction and writes; it stays open."""

    statement: str


@dataclass(frozen=True)
class Close:
    """The second session ends its transaction."""

    outcome: str


@dataclass(frozen=True)
class Alter:
    """A table is altered, if it can be."""

    statement: str


@dataclass(frozen=True)
class Switch:
    """A stream table gets another refresh mode, if its query can be maintained in it."""

    name: str
    mode: str


@dataclass(frozen=True)
class View:
    """A view, or a materialized one; perhaps ``renamed``, with columns that have other names than the query's."""

    name: str
    query: Query
    materialized: bool = False
    renamed: bool = False

    @property
    def relation(self) -> Relation:
        columns = self.query.columns
        if self.renamed:
            columns = tuple(replace(one, name=f"v{place}") for place, one in enumerate(columns))
        return Relation(self.name, columns)

    @property
    def definition(self) -> str:
        names = f" ({', '.join(one.sql for one in self.relation.columns)})" if self.renamed else ""
        return f"CREATE {'MATERIALIZED ' if self.materialized else ''}VIEW {self.name}{names} AS {self.query.sql}"


Step = Commit | Refresh | Open | Close | Alter | Switch
MODES = ("DIFFERENTIAL", "AUTO", "FULL", "IMMEDIATE", "IMMEDIATE")


@dataclass(frozen=True, repr=False)
class Case:
    """What to make, and what to do then."""

    tables: tuple[Table, ...]
    views: tuple[View, ...]
    streams: tuple[tuple[str, Query], ...]
    first: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def is_timed(self) -> bool:
        """Whether a stream table may change by itself."""
        queries = [*(one.query for one in self.views), *(query for _, query in self.streams)]
        return any("now()" in one.sql or "CURRENT_TIMESTAMP" in one.sql for one in queries)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis is to show it: SQL to run."""
        del cycle
        printer.text(f"\n{script(self)}\n")


def script(case: Case) -> str:
    """The case as SQL to run by hand; the second session's statements begin with "--2"."""
    lines = [one.definition for one in case.tables]
    lines += list(case.first)
    lines += [one.definition for one in case.views]
    lines += [
        f"SELECT pgtrickle.create_stream_table('{name}', $q${query.sql}$q$, NULL)" for name, query in case.streams
    ]
    for step in case.steps:
        lines += _lines(step)
    return ";\n".join(lines) + ";"


def pairs(case: Case) -> set[tuple[str, ...]]:
    """The operators that stand on one another in its queries."""
    queries = [*(one.query for one in case.views), *(query for _, query in case.streams)]
    return {pair for one in queries for pair in chains(one.built, 2)}


def _lines(step: Step) -> list[str]:
    match step:
        case Commit(statements, undone, outcome):
            saved = ["SAVEPOINT s", *undone, "ROLLBACK TO s"] if undone else []
            return ["BEGIN", *statements, *saved, outcome]
        case Refresh(names, before, after, isolation, outcome):
            refreshes = [f"SELECT pgtrickle.refresh_stream_table('{name}')" for name in names]
            if not before and not after and isolation == "READ COMMITTED":
                return refreshes
            return [f"BEGIN ISOLATION LEVEL {isolation}", *before, *refreshes, *after, outcome]
        case Open(statement):
            return ["--2 BEGIN", f"--2 {statement}"]
        case Close(outcome):
            return [f"--2 {outcome}"]
        case Alter(statement):
            return [statement]
        case Switch(name, mode):
            return [f"SELECT pgtrickle.alter_stream_table('{name}', refresh_mode => '{mode}')"]


@st.composite
def cases(
    draw: st.DrawFn,
    types: tuple[Type, ...] = TYPES,
    moving: bool = False,
    major: int = 18,
    along: st.SearchStrategy[Path] = paths,
    altering: bool = False,
) -> Case:
    """Two or three tables, perhaps views, up to three stream tables, and a few batches.

    ``moving``: also what differs from its query until it is refreshed though no table was written to: conditions on
    the time, materialized views.  ``altering``: between the batches tables are altered, and modes switched.
    """
    path = draw(along)
    names = draw(st.sampled_from([("r", "s"), ("r",), ("r", "s", "t")]))
    at = moving and "timed" in path
    made = tuple(draw(tables(name, types, at and name == "r")) for name in names)
    first = tuple(draw(inserts(one)) for one in made)
    has_json_table = major >= JSON_TABLE_SINCE
    relations: tuple[Relation, ...] = made
    views: list[View] = []
    for name in draw(st.sampled_from([(), (), (), ("v",), ("v", "v2"), ("mv",) if moving else ("v",)])):
        below = (views[-1].relation,) if views else relations
        query = draw(queries(below, draw(paths)[: 1 if views else 2], has_json_table))
        views.append(View(name, query, name == "mv", draw(st.booleans())))
        relations += (views[-1].relation,)
    streams: list[tuple[str, Query]] = []
    for number in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        # What stands on another stream table had better read it.
        below = relations if not streams else (Relation(streams[-1][0], streams[-1][1].columns), *relations[:1])
        query = draw(queries(below, draw(paths)[:2] if streams else path, has_json_table))
        streams.append((f"st{number + 1}", query))
    steps = draw(_steps(made, [name for name, _ in streams], [one.name for one in views if one.materialized]))
    if altering:
        steps = draw(_altered(steps, made, [name for name, _ in streams]))
    if any(one.telling for one in types):
        steps = draw(_settling(steps, made))
    return Case(made, tuple(views), tuple(streams), first, tuple(steps))


@st.composite
def _steps(draw: st.DrawFn, made: tuple[Table, ...], streams: list[str], stored: list[str]) -> list[Step]:
    some = st.one_of([*(writes(one) for one in made), *(st.just(f"REFRESH MATERIALIZED VIEW {one}") for one in stored)])
    batch = st.lists(some, min_size=1, max_size=4).map(tuple)
    steps: list[Step] = []
    is_open = False
    for _ in range(draw(st.integers(1, 6))):
        for _ in range(draw(st.sampled_from([1, 1, 2]))):
            undone = draw(batch) if draw(st.integers(0, 5)) == 0 else ()
            outcome = draw(st.sampled_from(["COMMIT"] * 9 + ["ROLLBACK"]))
            steps.append(Commit(draw(batch), undone, outcome))
        if is_open and draw(st.booleans()):
            steps.append(Close(draw(st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"]))))
            is_open = False
        elif not is_open and draw(st.integers(0, 3)) == 0:
            steps.append(Open(draw(_late(made))))
            is_open = True
        steps.append(draw(_refreshes(streams, batch)))
    if is_open:
        steps.append(Close("COMMIT"))
    return [*steps, Refresh(tuple(streams))]


@st.composite
def _altered(draw: st.DrawFn, steps: list[Step], made: tuple[Table, ...], streams: list[str]) -> list[Step]:
    """The steps with tables altered and modes switched between them."""
    switches = st.builds(Switch, st.sampled_from(streams), st.sampled_from(MODES))
    others = st.one_of(*(alterations(one).map(Alter) for one in made), switches)
    return [one for step in steps for one in (*draw(st.lists(others, max_size=1)), step)]


@st.composite
def _settling(draw: st.DrawFn, steps: list[Step], made: tuple[Table, ...]) -> list[Step]:
    """The steps with all values that are equal made to read the same before most of the refreshes, and the last."""
    settled: list[Step] = []
    for place, step in enumerate(steps):
        if isinstance(step, Refresh) and (place == len(steps) - 1 or draw(st.integers(0, 2))):
            settled.append(Commit(respelt(made, draw(st.sampled_from("abcd")))))
        settled.append(step)
    return settled


@st.composite
def _refreshes(draw: st.DrawFn, streams: list[str], batch: st.SearchStrategy[tuple[str, ...]]) -> Refresh:
    names = tuple(streams) if draw(st.booleans()) else (draw(st.sampled_from(streams)),)
    if draw(st.integers(0, 3)):
        return Refresh(names)
    return Refresh(
        names,
        draw(batch) if draw(st.booleans()) else (),
        draw(batch) if draw(st.booleans()) else (),
        draw(st.sampled_from(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])),
        draw(st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"])),
    )


@st.composite
def _late(draw: st.DrawFn, made: tuple[Table, ...]) -> str:
    """A write that nobody else has to wait for, unless he wants the whole table."""
    table = draw(st.sampled_from(made))
    row = ", ".join(
        str(draw(st.integers(1000, 1003)))
        if one.name == table.key
        else draw(values(one, one.name not in table.not_null))
        for one in table.columns
    )
    return f"INSERT INTO {table.name} ({', '.join(one.sql for one in table.columns)}) VALUES ({row})"
