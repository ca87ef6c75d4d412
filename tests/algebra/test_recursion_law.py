"""The law of recursion, step by step as its docstring has it: the rows it held and its change are the rows it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from psycopg import sql

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter, Item, Project, UnionAll
from pg_trickle.algebra.mark import anti_join, mark
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.recursion import Found, Recursion, is_linear
from pg_trickle.algebra.recursion import given as with_rows
from pg_trickle.algebra.source import Opaque
from pg_trickle.scalar import INT4, Column, Scalar, column, composed
from tests.algebra.plans import R, S, equal, predicate, projected, series
from tests.algebra.sources import Contents, contents, fill, prepare, scan, weighted

pytestmark = pytest.mark.property

Row = tuple[str | None, ...]
Bag = Counter[Row]
LOOKING = settings(
    max_examples=300, phases=[Phase.generate], derandomize=True, database=None, deadline=None, suppress_health_check=()
)


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


def found(*names: str) -> Found:
    return Found("w", tuple(Column(f"w_{name}", INT4) for name in names))


def value(text: sql.SQL, *columns: str) -> Scalar:
    return composed(text.format(*map(sql.Identifier, columns)), frozenset(columns), INT4)


def recursion(base: Plan, step: Plan, *, is_set: bool) -> Recursion:
    assert is_linear(step, "w")
    return Recursion(base, step, "w", is_set)


def counted(plan: Plan, kept: str, n: Scalar) -> Project:
    """A column of a plan, and how many steps led to it."""
    one = next(one for one in plan.columns if one.name == kept)
    return Project(plan, (Item(Column("to", INT4), column(one)), Item(Column("n", INT4), n)))


ONE, TWO = found("a"), found("a", "b")
NEAR = Filter(found("a", "n"), (predicate(sql.SQL("{} < 3"), "w_n"),))
ROOTS = counted(S, "s_a", value(sql.SQL("0")))
MORE = value(sql.SQL("{} + 1"), "w_n")
ALONG = (equal("w_a", "r_a"),)
STEP = counted(Join(NEAR, R, ALONG), "r_b", MORE)
PLANS = {
    "reached": recursion(projected(S, ("one", "s_a")), projected(Join(ONE, R, ALONG), ("to", "r_b")), is_set=True),
    "closure": recursion(
        projected(R, ("one", "r_a"), ("two", "r_b")),
        projected(Join(TWO, scan("r", "t"), (equal("w_b", "t_a"),)), ("one", "w_a"), ("two", "t_b")),
        is_set=True,
    ),
    "back and forth": recursion(
        projected(R, ("one", "r_a"), ("two", "r_b")), projected(TWO, ("one", "w_b"), ("two", "w_a")), is_set=True
    ),
    "but for some": recursion(
        projected(S, ("one", "s_a")),
        projected(
            anti_join(Join(ONE, R, ALONG), scan("s", "u"), (equal("r_b", "u_b"),), mark("m")), ("to", "r_b")
        ),
        is_set=True,
    ),
    "ways": recursion(ROOTS, STEP, is_set=False),
    "ways, each once": recursion(ROOTS, STEP, is_set=True),
    "ways or none": recursion(ROOTS, counted(LeftJoin(NEAR, R, ALONG), "r_b", MORE), is_set=False),
    "ways of one table": recursion(counted(R, "r_a", value(sql.SQL("1"))), STEP, is_set=False),
    "ways to two tables": recursion(
        UnionAll(ROOTS, counted(R, "r_b", value(sql.SQL("0")))),
        counted(Join(Join(NEAR, R, ALONG), scan("s", "u"), (equal("r_b", "u_a"),)), "u_b", MORE),
        is_set=False,
    ),
    "copies": recursion(
        ROOTS, counted(series(Join(NEAR, R, ALONG), "copy", "r_b"), "copy", MORE), is_set=False
    ),
}  # fmt: skip


class Evaluation:
    """A recursion's B and F over the new state, their change, and the rows that it held."""

    def __init__(self, conn: Any, plan: Recursion, held: Bag) -> None:
        self.conn = conn
        self.plan = plan
        self.held = held

    def base(self) -> Bag:
        return _summed(_weighted(self.conn, self.plan.base))

    def step(self, rows: Bag) -> Bag:
        """F′ of rows."""
        return _summed(_weighted(self.conn, with_rows(self.plan.step, self.plan.name, self._rows(rows))))

    def change(self, rows: Bag) -> list[tuple[Row, int]]:
        """The change of B + F(rows), not summed up."""
        return _weighted(self.conn, with_rows(self.plan.derived.delta(), self.plan.name, self._rows(rows)))

    def lost(self) -> set[Row]:
        """O."""
        gone = {row for row, weight in self.change(self.held) if weight < 0} & self.held.keys()
        last = gone
        while last:
            last = (self.step(_only(self.held, last)).keys() & self.held.keys()) - gone
            gone = gone | last
        return gone

    def kept(self, gone: set[Row]) -> Bag:
        """K."""
        return Counter({row: n for row, n in self.held.items() if row not in gone})

    def first(self, gone: set[Row], kept: Bag) -> Bag:
        """S."""
        again = _only(self.base() + self.step(kept), gone)
        come = _summed(self.change(kept))
        return again + Counter({row: n for row, n in come.items() if row not in gone})

    def following(self, first: Bag, kept: Bag) -> Bag:
        """I."""
        if not self.plan.is_set:
            made = last = first
            while last:
                last = self.step(last)
                made = made + last
            return made
        made, last = Counter[Row](), first
        while last := Counter(dict.fromkeys(last.keys() - kept.keys() - made.keys(), 1)):
            made = made + last
            last = self.step(last)
        return made

    def now(self) -> Bag:
        """W′, by the law."""
        gone = self.lost()
        kept = self.kept(gone)
        return kept + self.following(self.first(gone, kept), kept)

    def _rows(self, rows: Bag) -> Opaque:
        schema = self.plan.found.columns
        listed = [sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, row))) for row in rows.elements()]
        columns = sql.SQL(", ").join(
            sql.SQL("({name}::text)::int AS {name}").format(name=sql.Identifier(one.name)) for one in schema
        )
        names = sql.SQL(", ").join(sql.Identifier(one.name) for one in schema)
        none = sql.SQL("({})").format(sql.SQL(", ").join([sql.SQL("NULL")] * len(schema)))
        text = sql.SQL("SELECT {columns} FROM (VALUES {rows}) AS q ({names}){where}").format(
            columns=columns,
            rows=sql.SQL(", ").join(listed or [none]),
            names=names,
            where=sql.SQL("" if listed else " WHERE false"),
        )
        return Opaque(text.as_string(None), schema)


def _weighted(conn: Any, plan: Plan) -> list[tuple[Row, int]]:
    return [(tuple(row), weight) for *row, weight in weighted(conn, plan)]


def _summed(rows: Iterable[tuple[Row, int]]) -> Bag:
    made = Bag()
    for row, weight in rows:
        made[row] += weight
    return Counter({row: n for row, n in made.items() if n})


def _only(rows: Bag, wanted: Iterable[Row]) -> Bag:
    return Counter({row: rows[row] for row in wanted if rows[row]})


def before(table: Contents) -> Contents:
    """The contents as of the frontier."""
    return replace(table, stay=table.stay + table.go, go=[], come=[], passing=[], past=[])


def evaluated(conn: Any, plan: Recursion, r: Contents, s: Contents, kind: type[Evaluation] = Evaluation) -> bool:
    """Whether the law gives what the recursion from scratch gives."""
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": before(r), "s": before(s)})
        held = _summed(_weighted(conn, plan))
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        return kind(conn, plan, held).now() == _summed(_weighted(conn, plan))


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@given(r=contents, s=contents)
def test_what_was_held_and_what_changed_is_what_is_held(conn, plan, r, s):
    assert evaluated(conn, plan, r, s)


class NotFollowed(Evaluation):
    def lost(self) -> set[Row]:
        return {row for row, weight in self.change(self.held) if weight < 0} & self.held.keys()


class SummedUp(Evaluation):
    def change(self, rows: Bag) -> list[tuple[Row, int]]:
        return list(_summed(super().change(rows)).items())


class NeverDerivedAgain(Evaluation):
    def first(self, gone: set[Row], kept: Bag) -> Bag:
        return Counter({row: n for row, n in super().first(gone, kept).items() if row not in gone})


class DerivedFromAll(Evaluation):
    def first(self, gone: set[Row], kept: Bag) -> Bag:
        return super().first(gone, self.held)


class OneStep(Evaluation):
    def following(self, first: Bag, kept: Bag) -> Bag:
        return Counter({row: n for row, n in first.items() if not (self.plan.is_set and row in kept)})


class ForgottenBase(Evaluation):
    def base(self) -> Bag:
        return Bag()


class AlreadyThere(Evaluation):
    """Bags whose derived rows don't come again where they are kept."""

    def following(self, first: Bag, kept: Bag) -> Bag:
        return Counter({row: n for row, n in super().following(first, kept).items() if row not in kept})


BROKEN: dict[str, tuple[str, type[Evaluation]]] = {
    "what follows from lost rows is kept": ("closure", NotFollowed),
    "what follows from lost ways is kept": ("ways", NotFollowed),
    "a way lost and a way won cancel": ("reached", SummedUp),
    "what is still derived stays lost": ("reached", NeverDerivedAgain),
    "lost rows derive each other": ("closure", DerivedFromAll),
    "what follows from new rows is overlooked": ("ways", OneStep),
    "what the base still gives is overlooked": ("ways of one table", ForgottenBase),
    "a further way to a kept row is overlooked": ("ways", AlreadyThere),
}


@pytest.mark.parametrize(("title", "kind"), BROKEN.values(), ids=BROKEN)
def test_half_of_the_law_is_noticed(conn, title: str, kind: type[Evaluation]) -> None:
    def fails(both: tuple[Contents, Contents]) -> bool:
        return not evaluated(conn, PLANS[title], *both, kind)

    try:
        find(st.tuples(contents, contents), fails, settings=LOOKING)
    except NoSuchExample:
        pytest.fail("nothing shows that it is broken")
