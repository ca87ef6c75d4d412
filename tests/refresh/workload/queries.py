"""Random queries, built from the top down along a path of operators.

Which operators stand on which is drawn first, evenly, and then a query that has them so: drawn clause by clause,
what is deep or needs several things at once would hardly ever come up.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.refresh.workload import selects
from tests.refresh.workload.expressions import conditions
from tests.refresh.workload.sources import ALIASES, FROM_OPERATORS, Builder, Path
from tests.refresh.workload.tables import Column, Relation, quoted
from tests.refresh.workload.types import INT, MOMENT
from tests.refresh.workload.values import Built, From, Query, Value

GROUPS = ("grouped", "grouping sets", "window over groups")
ORDERED = ("windowed", "first", "distinct on")
SUBQUERIES = ("exists", "not exists", "compared with subquery", "value of subquery")
SET_OPERATIONS = ("union all", "union", "intersect", "intersect all", "except", "except all")
OPERATORS = (
    "plain", "distinct", *GROUPS, *ORDERED, *SUBQUERIES, *SET_OPERATIONS, *FROM_OPERATORS, "timed", "with", "recursive",
    "gathered",
)  # fmt: skip

paths: st.SearchStrategy[Path] = st.tuples(*[st.sampled_from(OPERATORS)] * 3)


@st.composite
def queries(
    draw: st.DrawFn, relations: tuple[Relation, ...], path: Path = ("plain",), json_table: bool = True
) -> Query:
    """A query over the relations, of the path's operators from the top."""
    operator, rest = path[0], path[1:]

    def make(among: tuple[Relation, ...], further: Path) -> st.SearchStrategy[Query]:
        return queries(among, further, json_table)

    def source(further: Path) -> From:
        names = list(draw(st.permutations(ALIASES)))
        return Builder(draw, relations, make, names, json_table).source(further)

    def query(further: Path) -> Query:
        below: Path = further or ("plain",)
        return draw(make(relations, below))

    if operator in SET_OPERATIONS:
        both = draw(st.permutations([query(rest), query(())]))
        return _set_operation(operator, *both)
    if operator == "with":
        return draw(_with(query(rest), relations, json_table))
    if operator == "recursive":
        return draw(_recursive(source(rest), draw(st.sampled_from(relations))))
    if operator in SUBQUERIES:
        if len(rest) > 0 and draw(st.booleans()):
            return draw(selects.decided(source(()), query(rest), operator))
        return draw(selects.decided(source(rest), None, operator))
    if operator == "timed":
        return draw(selects.timed(_with_moment(draw, source(rest), relations)))
    return draw(_select(operator, source(path if operator in FROM_OPERATORS else rest)))


@st.composite
def _select(draw: st.DrawFn, operator: str, source: From) -> Query:
    if operator in GROUPS:
        return draw(selects.grouped(source, operator))
    if operator in ORDERED:
        return draw(selects.ordered(source, operator))
    if operator in {"gathered", selects.GATHERED_IN_GROUPS}:
        return draw(selects.from_sorted(source, operator))
    if operator == "distinct":
        return draw(selects.distinct(source))
    made = draw(selects.plain(source))
    # What only reads what FROM has made is no operator of its own.
    return replace(made, built=source.built) if operator in FROM_OPERATORS else made


def _with_moment(draw: st.DrawFn, source: From, relations: tuple[Relation, ...]) -> From:
    """The source, or it joined to a table that has a column of time."""
    moving = [one for one in relations if any(column.type is MOMENT for column in one.columns)]
    if any(one.type is MOMENT for one in source.values) or not moving:
        return source
    beside = draw(st.sampled_from(moving))
    integers = source.named_integers
    on = f'"at"."k" = {draw(st.sampled_from(integers))}' if integers else "true"
    values = [Value(f'"at".{one.sql}', one.type, one.loose) for one in beside.columns]
    return From(
        f'{source.text} JOIN {beside.name} AS "at" ON {on}', [*source.qualified, *values], relations, source.built, True
    )


@st.composite
def _with(draw: st.DrawFn, inside: Query, relations: tuple[Relation, ...], json_table: bool) -> Query:
    """WITH, read once, or twice and joined."""
    name = draw(st.sampled_from(["w", relations[0].name]))
    common = Relation(quoted(name), inside.columns)
    how = draw(st.sampled_from(["", "", "MATERIALIZED ", "NOT MATERIALIZED "]))
    if draw(st.booleans()):
        outside = draw(
            queries((common,), (draw(st.sampled_from(["join", "left join", "union all", "except"])),), json_table)
        )
    else:
        others = tuple(one for one in relations if one.name != name)
        outside = draw(queries((common, *others), ("plain",), json_table))
    built = Built("with", (inside.built,))
    return Query(f"WITH {quoted(name)} AS {how}({inside.sql}) {outside.sql}", outside.columns, built)


@st.composite
def _recursive(draw: st.DrawFn, source: From, beside: Relation) -> Query:
    """A walk of a few steps, that begins with rows of the source and goes along those of a table."""
    ours = [one.sql for one in source.values if one.type is INT]
    edges = [one.sql for one in beside.columns if one.type is INT]
    if not ours or not edges:
        return draw(selects.plain(source))
    first, here, there = draw(st.sampled_from(ours)), draw(st.sampled_from(edges)), draw(st.sampled_from(edges))
    how = draw(st.sampled_from(["UNION", "UNION", "UNION ALL"]))
    start = f"SELECT {first}, 0 FROM {source.text} WHERE {draw(conditions(source.values))}"
    step = (
        f"SELECT j.{there} + {draw(st.integers(0, 1))}, rec.n + 1 FROM rec JOIN {beside.name} AS j ON j.{here} = rec.k"
    )
    padded = f"SELECT coalesce(j.{there}, rec.k + 1), rec.n + 1 FROM rec LEFT JOIN {beside.name} AS j"
    ways = [
        f"{step} WHERE rec.n < 2",
        f"{padded} ON j.{here} = rec.k AND j.{there} > 0 WHERE rec.n < 2",
        f"{padded} JOIN {beside.name} AS m ON m.{here} = j.{there} ON j.{here} = rec.k WHERE rec.n < 2",
        "SELECT rec.k + 1, rec.n + 1 FROM rec WHERE rec.k < 4 AND rec.n < 3",
        f"{step} AND rec.n < 2 WHERE NOT EXISTS (SELECT FROM {beside.name} AS m WHERE m.{there} = rec.k + 1)",
    ]
    cycle = draw(st.sampled_from(["", "", "", " CYCLE k SET again USING way", " SEARCH BREADTH FIRST BY k SET place"]))
    text = f"WITH RECURSIVE rec (k, n) AS ({start} {how} {draw(st.sampled_from(ways))}){cycle}"
    columns = (Column("k", INT), Column("c1", INT))
    return Query(f"{text} SELECT rec.k AS k, rec.n AS c1 FROM rec", columns, Built("recursive", (source.built,)))


def _set_operation(operator: str, one: Query, other: Query) -> Query:
    every = operator == "union all"
    pairs = [
        (x, y) for x in one.columns for y in other.columns
        if x.type.name == y.type.name and (every or x.type.comparable)
    ][:2]  # fmt: skip
    if not pairs:
        return one
    names = ["k", "c1"]
    columns = tuple(
        # A sum's decimals are its own, whatever those of the columns that it stands with.
        Column(name, x.type if y.type.telling else y.type, x.loose or y.loose or (not every and x.type.loose))
        for name, (x, y) in zip(names, pairs, strict=False)
    )
    left = ", ".join(f"u.{x.sql} AS {quoted(name)}" for name, (x, _) in zip(names, pairs, strict=False))
    right = ", ".join(f"u.{y.sql}" for _, y in pairs)
    text = f"SELECT {left} FROM ({one.sql}) AS u {operator.upper()} SELECT {right} FROM ({other.sql}) AS u"
    return Query(text, columns, Built(operator, (one.built, other.built)))
