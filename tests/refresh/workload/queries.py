"""Random queries from what a stream table can be kept equal to by its changes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from tests.refresh.workload import subqueries
from tests.refresh.workload.ordered import first, windowed
from tests.refresh.workload.tables import Column, Relation, quoted
from tests.refresh.workload.types import ARRAY, BOOL, CITEXT, COUNT, INT, NUMBER, TEXT
from tests.refresh.workload.values import Value

ALIASES = ("a", "b", "q", "select", 'o"o')


@dataclass(frozen=True)
class Query:
    """A SELECT and the columns it makes."""

    sql: str
    columns: tuple[Column, ...]


@dataclass
class From:
    """The items of FROM by alias, with how to name each column."""

    text: str = ""
    values: list[Value] = field(default_factory=list)
    relations: tuple[Relation, ...] = ()

    @property
    def integers(self) -> list[str]:
        """The integer columns, if there is also anything to compare them with in a subquery."""
        can = any(one.type is INT for relation in self.relations for one in relation.columns)
        return [one.sql for one in self.values if one.type is INT] if can else []


SHAPES = ("plain", "plain", "grouped", "grouped", "distinct", "union", "with", "windowed", "first")


@st.composite
def queries(draw: st.DrawFn, relations: tuple[Relation, ...], depth: int = 2) -> Query:
    """Any query over the relations, at most so deep."""
    shape = draw(st.sampled_from(SHAPES))
    if shape == "union":
        return draw(_unions(relations, depth))
    if shape == "with" and depth:
        inside = draw(queries(relations, depth - 1))
        name = draw(st.sampled_from(["w", relations[0].name]))
        common = Relation(f"{quoted(name)}", inside.columns)
        outside = draw(queries((common, *relations), 0))
        return Query(f"WITH {quoted(name)} AS ({inside.sql}) {outside.sql}", outside.columns)
    source = draw(_sources(relations, depth))
    if shape == "grouped":
        return draw(_grouped(source))
    certain = [one for one in source.values if not one.loose]
    if shape in {"windowed", "first"} and certain:
        return draw(_ordered(source, certain, shape))
    return draw(_plain(source, distinct=shape == "distinct"))


@st.composite
def _sources(draw: st.DrawFn, relations: tuple[Relation, ...], depth: int) -> From:
    made = From(relations=relations)
    count = draw(st.sampled_from([1, 1, 2, 2, 3]))
    aliases = draw(st.permutations(ALIASES))[:count]
    for place, alias in enumerate(aliases):
        if depth and draw(st.integers(0, 3)) == 0:
            inside = draw(queries(relations, depth - 1))
            item, columns = f"({inside.sql})", inside.columns
        else:
            relation = draw(st.sampled_from(relations))
            item, columns = relation.name, relation.columns
        name = quoted(alias)
        values = [Value(f"{name}.{one.sql}", one.type, one.loose) for one in columns]
        _join(draw, made, f"{item} AS {name}", values, place)
    if draw(st.integers(0, 4)) == 0:
        _beside(draw, made)
    return made


def _beside(draw: st.DrawFn, made: From) -> None:
    """An item of FROM that is made of the row to its left."""
    one = draw(st.sampled_from(made.values))
    items = [("(VALUES (1, 'a'), (2, NULL), (1, 'a')) AS lat (x, y)", INT, TEXT)]
    if one.type is INT:
        items += [(f"generate_series(0, least({one.sql}, 3)) WITH ORDINALITY AS lat (x, y)", INT, COUNT)]
        items += [(f"LATERAL (VALUES ({one.sql}, 'v'), (2, NULL)) AS lat (x, y)", INT, TEXT)]
        items += [
            (f"LATERAL (SELECT max(i), 'm'::text FROM (VALUES (1), ({one.sql})) AS q (i)) AS lat (x, y)", INT, TEXT)
        ]
    if one.type is ARRAY:
        items += [(f"ROWS FROM (unnest({one.sql}), generate_series(1, 2)) AS lat (x, y)", INT, INT)]
    item, x, y = draw(st.sampled_from(items))
    joined = f" CROSS JOIN {item}" if draw(st.booleans()) else f" LEFT JOIN {item} ON lat.x > 1"
    made.text += joined.replace(" LEFT JOIN (", " LEFT JOIN LATERAL (")
    made.values = [*made.values, Value("lat.x", x), Value("lat.y", y)]


def _join(draw: st.DrawFn, made: From, item: str, values: list[Value], place: int) -> None:
    if place == 0:
        made.text, made.values = item, values
        return
    left, right = [one for one in made.values if one.type is INT], [one for one in values if one.type is INT]
    how = draw(st.sampled_from(["on", "on", "on", "comma", "any", "using"]))
    last = values[0].sql.rpartition(".")[0]
    unambiguous = sum(one.sql.endswith('."k"') for one in made.values) == 1
    outer = draw(st.sampled_from(["", "", "", "LEFT ", "LEFT ", "RIGHT ", "FULL "]))
    if how == "using" and unambiguous and f'{last}."k"' in [one.sql for one in values]:
        made.text += f" {outer}JOIN {item} USING (k)"
        made.values = [Value("k", INT), *made.values, *values]
        return
    if not left or not right:
        made.text += f" CROSS JOIN {item}"
    else:
        one, other = draw(st.sampled_from(left)), draw(st.sampled_from(right))
        if how == "comma":
            made.text += f" CROSS JOIN {item}"
        elif outer == "FULL ":
            # PostgreSQL itself knows no other condition of a full join.
            made.text += f" FULL JOIN {item} ON {other.sql} = {one.sql}"
        else:
            extra = draw(
                st.sampled_from(["", "", "", f" OR {one.sql} IS NULL", f" AND {one.sql} > 0", f" AND {other.sql} > 0"])
            )
            made.text += f" {outer}JOIN {item} ON {other.sql} {'<' if how == 'any' else '='} {one.sql}{extra}"
    made.values = made.values + values


@st.composite
def _conditions(draw: st.DrawFn, values: list[Value]) -> str:
    one = draw(st.sampled_from(values))
    choices = [f"{one.sql} IS NOT NULL", f"{one.sql} IS NULL"]
    if one.type.comparable and one.type.values:
        literal = one.type.literal(draw(st.sampled_from(one.type.values)))
        choices += [f"{one.sql} = {literal}", f"{one.sql} <> {literal}", f"({one.sql} = {literal}) IS NOT TRUE"]
        choices += [f"{one.sql} IN ({literal})"]
        # Which equality that is, PostgreSQL's own printer doesn't say.
        choices += [f"{one.sql} IS DISTINCT FROM {literal}"] if one.type is not CITEXT else []
    if one.type.number:
        choices += [f"{one.sql} > 0", f"{one.sql} BETWEEN 0 AND 2", f"NOT {one.sql} > 1"]
    if one.type is BOOL:
        choices += [one.sql, f"NOT {one.sql}"]
    return draw(st.sampled_from(choices))


@st.composite
def _wheres(draw: st.DrawFn, source: From) -> str:
    if draw(st.booleans()) and source.integers:
        return draw(subqueries.conditions(source.integers, source.relations))
    return draw(_conditions(source.values))


@st.composite
def _values(draw: st.DrawFn, values: list[Value]) -> Value:
    """A column, or something computed from columns of which no two equal values differ."""
    one = draw(st.sampled_from(values))
    choices = [one, one]
    if one.type is INT:
        choices += [Value(f"coalesce({one.sql}, 0) + 1", INT), Value(f"{one.sql} * 2 - {one.sql}", INT)]
        choices += [Value(f"{one.sql} / 2.0", NUMBER, True), Value(f"({one.sql} > 1 OR {one.sql} IS NULL)", BOOL)]
        choices += [Value(f"CASE WHEN {one.sql} > 1 THEN {one.sql} WHEN {one.sql} IS NULL THEN 7 END", INT)]
        choices += [Value(f"nullif({one.sql}, 1)", INT), Value(f"greatest({one.sql}, 1)", INT)]
    if one.type is TEXT:
        choices += [Value(f"upper({one.sql}) || '!'", TEXT), Value(f"length({one.sql})", INT)]
    if not one.loose:
        choices += [Value(f"coalesce({one.sql}::text, 'none')", TEXT)]
    return draw(st.sampled_from(choices))


def _output(draw: st.DrawFn, values: list[Value]) -> tuple[str, tuple[Column, ...]]:
    names = ["k"] + [f"c{place}" for place in range(1, len(values))]
    if draw(st.booleans()) and values[0].type is not INT:
        names[0] = "c0"
    columns = tuple(Column(name, one.type, one.loose) for name, one in zip(names, values, strict=True))
    return ", ".join(f"{one.sql} AS {quoted(name)}" for name, one in zip(names, values, strict=True)), columns


@st.composite
def _plain(draw: st.DrawFn, source: From, *, distinct: bool) -> Query:
    usable = [one for one in source.values if one.type.comparable] if distinct else source.values
    values: list[Value] = draw(st.lists(_values(usable or source.values), min_size=1, max_size=4))
    if source.integers and draw(st.integers(0, 3)) == 0:
        values.append(Value(*draw(subqueries.values(source.integers, source.relations))))
    if not all(one.type.comparable for one in values):
        distinct = False
    if distinct:
        values = [replace(one, loose=one.loose or one.type.loose) for one in values]
    if draw(st.integers(0, 5)) == 0:
        values = [*values, *draw(_sets(source.values))]
    listed, columns = _output(draw, values)
    where = f" WHERE {draw(_wheres(source))}" if draw(st.booleans()) else ""
    return Query(f"SELECT {'DISTINCT ' if distinct else ''}{listed} FROM {source.text}{where}", columns)


@st.composite
def _sets(draw: st.DrawFn, values: list[Value]) -> list[Value]:
    """Expressions of the select list that make any number of rows."""
    made = [Value("generate_series(1, 2)", INT)]
    made += [Value(f"generate_series(1, least({one.sql}, 2)) + 1", INT) for one in values if one.type is INT]
    made += [Value(f"unnest({one.sql})", INT) for one in values if one.type is ARRAY]
    return draw(st.lists(st.sampled_from(made), min_size=1, max_size=2))


@st.composite
def _ordered(draw: st.DrawFn, source: From, certain: list[Value], shape: str) -> Query:
    """What depends on the order of rows, in which only rows that look the same are peers."""
    shown = draw(st.lists(_values(certain).filter(lambda one: not one.loose), min_size=1, max_size=3))
    before, values, after = draw(windowed(shown, certain) if shape == "windowed" else first(shown, certain))
    listed, columns = _output(draw, values)
    where = f" WHERE {draw(_conditions(source.values))}" if draw(st.integers(0, 2)) == 0 else ""
    return Query(f"SELECT {before}{listed} FROM {source.text}{where}{after}", columns)


@st.composite
def _aggregates(draw: st.DrawFn, values: list[Value]) -> Value:
    one = draw(st.sampled_from(values))
    choices = [Value("count(*)", COUNT), Value(f"count({one.sql})", COUNT)]
    if one.type.summable:
        choices += [Value(f"sum({one.sql})", NUMBER, True)] * 2
        choices += [Value(f"avg({one.sql})", NUMBER, True)]
    if one.type.exact:
        choices += [Value(f"stddev({one.sql})", NUMBER, True), Value(f"coalesce(sum({one.sql}), -1) / 2", NUMBER, True)]
    if one.type.comparable and one.type is not BOOL and one.type.name not in {"boolean", "jsonb"}:
        choices += [
            Value(f"min({one.sql})", one.type, one.type.loose),
            Value(f"max({one.sql})", one.type, one.type.loose),
        ]
    if one.type.comparable:
        choices += [Value(f"count(DISTINCT {one.sql})", COUNT)]
    if one.type is BOOL:
        choices += [
            Value(f"bool_and({one.sql})", BOOL),
            Value(f"bool_or({one.sql})", BOOL),
            Value(f"every({one.sql})", BOOL),
        ]
    if one.type is TEXT:
        choices += [Value(f"string_agg({one.sql}, ',' ORDER BY {one.sql} DESC)", TEXT)]
    if one.type is INT:
        choices += [
            Value(f"array_agg({one.sql} ORDER BY {one.sql})::text", TEXT),
            Value(f"sum(DISTINCT {one.sql})", NUMBER),
            Value(f"var_pop({one.sql})", NUMBER, True),
            Value(f"bit_xor({one.sql})", INT),
            Value(f"bit_or({one.sql})", INT),
        ]
        choices += [Value(f"sum(CASE WHEN {one.sql} > 0 THEN {one.sql} ELSE 0 END)", NUMBER)]
        choices += [Value(f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {one.sql})", INT)]
    chosen = draw(st.sampled_from(choices))
    if chosen.sql.endswith(")") and " / " not in chosen.sql and draw(st.integers(0, 3)) == 0:
        return replace(chosen, sql=f"{chosen.sql} FILTER (WHERE {draw(_conditions(values))})")
    return chosen


@st.composite
def _grouped(draw: st.DrawFn, source: From) -> Query:
    usable = [one for one in source.values if one.type.comparable]
    keys = draw(st.lists(_values(usable), max_size=2, unique_by=lambda one: one.sql)) if usable else []
    keys = [replace(one, loose=one.loose or one.type.loose) for one in keys if one.type.comparable]
    aggregates = draw(st.lists(_aggregates(source.values), min_size=1, max_size=3))
    if source.integers and draw(st.integers(0, 3)) == 0:
        text, of, loose = draw(subqueries.values(source.integers, source.relations))
        aggregates.append(Value(f"max(({text})::text)", TEXT) if not loose else Value(f"sum({text})", of, True))
    integers = [one.sql for one in keys if one.sql in source.integers]
    if integers and draw(st.integers(0, 2)) == 0:
        aggregates.append(Value(*draw(subqueries.values(integers, source.relations))))
    shown = [one for one in keys if draw(st.integers(0, 4))]
    listed, columns = _output(draw, [*shown, *aggregates])
    where = f" WHERE {draw(_wheres(source))}" if draw(st.integers(0, 2)) == 0 else ""
    group = f" GROUP BY {_sets_of(draw, [one.sql for one in keys])}" if keys else ""
    having = f" HAVING {draw(st.sampled_from(HAVING))}" if draw(st.integers(0, 3)) == 0 else ""
    if integers and draw(st.integers(0, 3)) == 0:
        having = f" HAVING {draw(subqueries.conditions(integers, source.relations))}"
    return Query(f"SELECT {listed} FROM {source.text}{where}{group}{having}", columns)


def _sets_of(draw: st.DrawFn, keys: list[str]) -> str:
    listed = ", ".join(keys)
    if draw(st.integers(0, 3)):
        return listed
    choices = [f"ROLLUP ({listed})", f"CUBE ({listed})", f"GROUPING SETS (({listed}), ({keys[-1]}), ())"]
    choices += [
        f"{keys[0]}, CUBE ({keys[-1]})",
        f"GROUPING SETS (({keys[0]}), ({listed}))",
        f"DISTINCT CUBE ({listed})",
    ]
    return draw(st.sampled_from(choices))


HAVING = ("count(*) > 1", "count(*) <> 2 OR count(*) IS NULL", "count(*) > 1 AND count(*) < 4")


@st.composite
def _unions(draw: st.DrawFn, relations: tuple[Relation, ...], depth: int) -> Query:
    # The types of branches inside a branch may be too much for the compiler.
    plain = queries(relations, max(depth - 1, 0)).filter(
        lambda made: not any(f" {one} " in made.sql for one in ("UNION", "INTERSECT", "EXCEPT"))
    )
    one, other = draw(plain), draw(plain)
    how = draw(st.sampled_from(["UNION ALL", "UNION", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"]))
    every = how == "UNION ALL"
    pairs = [
        (x, y) for x in one.columns for y in other.columns
        if x.type.name == y.type.name and (every or x.type.comparable)
    ][:2]  # fmt: skip
    if not pairs:
        return one
    names = ["k", "c1"]
    columns = tuple(
        Column(name, x.type, x.loose or y.loose or (not every and x.type.loose))
        for name, (x, y) in zip(names, pairs, strict=False)
    )
    left = ", ".join(f"u.{x.sql} AS {quoted(name)}" for name, (x, _) in zip(names, pairs, strict=False))
    right = ", ".join(f"u.{y.sql}" for _, y in pairs)
    sql = f"SELECT {left} FROM ({one.sql}) AS u {how} SELECT {right} FROM ({other.sql}) AS u"
    return Query(sql, columns)
