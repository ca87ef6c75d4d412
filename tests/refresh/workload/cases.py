"""A random case: tables, stream tables on them and on each other, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.refresh.workload.queries import Query, queries
from tests.refresh.workload.tables import Relation, Table, inserts, tables, values, writes
from tests.refresh.workload.types import TYPES, Type


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


Step = Commit | Refresh | Open | Close


@dataclass(frozen=True, repr=False)
class Case:
    """What to make, and what to do then."""

    tables: tuple[Table, ...]
    views: tuple[tuple[str, Query], ...]
    streams: tuple[tuple[str, Query], ...]
    first: tuple[str, ...]
    steps: tuple[Step, ...]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis is to show it: SQL to run."""
        del cycle
        printer.text(f"\n{script(self)}\n")


def script(case: Case) -> str:
    """The case as SQL to run by hand; the second session's statements begin with "--2"."""
    lines = [one.definition for one in case.tables]
    lines += [f"CREATE VIEW {name} AS {query.sql}" for name, query in case.views]
    lines += list(case.first)
    lines += [
        f"SELECT pgtrickle.create_stream_table('{name}', $q${query.sql}$q$, NULL)" for name, query in case.streams
    ]
    for step in case.steps:
        lines += _lines(step)
    return ";\n".join(lines) + ";"


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


@st.composite
def cases(draw: st.DrawFn, types: tuple[Type, ...] = TYPES) -> Case:
    """Two or three tables, perhaps a view, up to three stream tables, and a few batches."""
    made = tuple(draw(tables(name, types)) for name in draw(st.sampled_from([("r", "s"), ("r",), ("r", "s", "t")])))
    first = tuple(draw(inserts(one)) for one in made)
    relations: tuple[Relation, ...] = made
    views = []
    if draw(st.integers(0, 3)) == 0:
        query = draw(queries(relations, 1))
        views.append(("v", query))
        relations += (Relation("v", query.columns),)
    streams: list[tuple[str, Query]] = []
    for number in range(draw(st.sampled_from([1, 1, 2, 3]))):
        name = f"st{number + 1}"
        # What stands on another stream table had better read it.
        below = relations if not streams else (Relation(streams[-1][0], streams[-1][1].columns), *relations[:1])
        query = draw(queries(below, 2 if not streams else 1))
        streams.append((name, query))
    return Case(made, tuple(views), tuple(streams), first, tuple(draw(_steps(made, [name for name, _ in streams]))))


@st.composite
def _steps(draw: st.DrawFn, made: tuple[Table, ...], streams: list[str]) -> list[Step]:
    some = st.one_of([writes(one) for one in made])
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
