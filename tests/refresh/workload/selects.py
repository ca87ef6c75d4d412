"""SELECTs over a given FROM, one for each operator that stands on top of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.refresh.workload import subqueries
from tests.refresh.workload.expressions import aggregates, conditions, listing, sets, values, wheres
from tests.refresh.workload.ordered import distinct_on, first, gathered, windowed
from tests.refresh.workload.types import BOOL, COUNT, INT, NUMBER, TEXT
from tests.refresh.workload.values import Built, From, Query, Value

HAVING = ("count(*) > 1", "count(*) <> 2 OR count(*) IS NULL", "count(*) > 1 AND count(*) < 4")
# PostgreSQL may sort rows into groups otherwise: an operator for sessions in which it doesn't.
GATHERED_IN_GROUPS = "gathered in groups"
_OVER_GROUPS = (
    Value("sum(count(*)) OVER ()", NUMBER, True),
    Value("rank() OVER (ORDER BY count(*) DESC)", COUNT),
    Value("max(count(*)) OVER (PARTITION BY count(*) > 1)", COUNT),
    Value("max(count(*)) OVER (ORDER BY count(*) RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)", COUNT),
)


@st.composite
def plain(draw: st.DrawFn, source: From) -> Query:
    """Expressions of the rows, perhaps of some of them."""
    return draw(_plain(source, "plain", draw(wheres(source)) if draw(st.booleans()) else ""))


@st.composite
def distinct(draw: st.DrawFn, source: From) -> Query:
    """The different rows."""
    if not any(one.type.comparable for one in source.values):
        return draw(plain(source))
    return draw(_plain(source, "distinct", draw(wheres(source)) if draw(st.booleans()) else ""))


@st.composite
def _plain(draw: st.DrawFn, source: From, operator: str, where: str) -> Query:
    once = operator == "distinct"
    some: list[Value] = draw(st.lists(values(_comparable(source) if once else source.values), min_size=1, max_size=4))
    if source.integers and draw(st.integers(0, 3)) == 0:
        some.append(Value(*draw(subqueries.values(source.integers, source.relations))))
    if once:
        some = [replace(one, loose=one.loose or one.type.loose) for one in some]
    if draw(st.integers(0, 5)) == 0:
        some = [*some, *draw(sets(source.values))]
    listed, columns = listing(draw, some)
    text = f"SELECT {'DISTINCT ' if once else ''}{listed} FROM {source.text}{where and f' WHERE {where}'}"
    return Query(text, columns, Built(operator, (source.built,)))


@st.composite
def decided(draw: st.DrawFn, source: From, inner: Query | None, operator: str) -> Query:
    """Rows that a subquery decides on, or has a value for; ``inner`` is what it reads, if not one of the tables."""
    relations = source.relations if inner is None else (inner.relation,)
    ours = source.named_integers
    if not ours or not any(one.type is INT for relation in relations for one in relation.columns):
        return draw(plain(source))
    over = (source.built, *([inner.built] if inner else []))
    if operator == "value of subquery":
        shown = [*draw(st.lists(values(source.values), min_size=1, max_size=2))]
        shown.append(Value(*draw(subqueries.values(ours, relations))))
        listed, columns = listing(draw, shown)
        return Query(f"SELECT {listed} FROM {source.text}", columns, Built(operator, over))
    condition = draw(subqueries.conditions(ours, relations, operator))
    return replace(draw(_plain(source, operator, condition)), built=Built(operator, over))


@st.composite
def timed(draw: st.DrawFn, source: From) -> Query:
    """Rows by a condition on the time, or whether they satisfy one."""
    moments = [one.sql for one in source.values if one.type.moves]
    if not moments:
        return draw(plain(source))
    one = draw(st.sampled_from(moments))
    other = draw(conditions(source.values))
    choices = [
        f"{one} > now() - interval '30 ms'",
        f"{one} <= now()",
        f"{one} BETWEEN now() - interval '60 ms' AND now() + interval '30 ms'",
        f"NOT {one} > CURRENT_TIMESTAMP",
        f"({one} > now()) IS NOT TRUE",
        f"({one} <= now() OR {other})",
        f"{one} > now() AND {other}",
        f"now() - {one} < interval '20 ms'",
        f"{one} + interval '20 ms' > now()",
        f"{one} > (SELECT now() - interval '10 ms')",
        f"(extract(epoch FROM now() - {one}) * 1000)::int BETWEEN 0 AND 40",
        f"{one}::timestamp < now() AND age(now(), {one}) < interval '1 day'",
        f"{one}::date = CURRENT_DATE AND {one} - now() < interval '10 ms'",
    ]
    condition = draw(st.sampled_from(choices))
    makes = [_filtered, _told, _plain_timed, _having_lately, _joined_lately]
    return draw(draw(st.sampled_from(makes))(source, condition))


def _plain_timed(source: From, condition: str) -> st.SearchStrategy[Query]:
    return _plain(source, "timed", condition)


@st.composite
def _told(draw: st.DrawFn, source: From, condition: str) -> Query:
    """Whether rows satisfy a condition on the time: shown, or grouped by and summed up."""
    told = Value(f"CASE WHEN {condition} THEN 1 ELSE 0 END", INT)
    truth = Value(f"coalesce({condition}, false)", BOOL)
    if draw(st.booleans()):
        listed, columns = listing(draw, [*draw(st.lists(values(source.values), min_size=1, max_size=2)), told, truth])
        return Query(f"SELECT {listed} FROM {source.text}", columns, Built("timed", (source.built,)))
    key = draw(st.sampled_from([told, truth]))
    some = [Value(f"sum({told.sql})", COUNT), Value(f"array_agg({told.sql}) FILTER (WHERE {condition})::text", TEXT)]
    listed, columns = listing(draw, [key, *some, *draw(st.lists(aggregates(source.values), max_size=2))])
    text = f"SELECT {listed} FROM {source.text} GROUP BY {key.sql}"
    return Query(text, columns, Built("timed", (source.built,)))


@st.composite
def _filtered(draw: st.DrawFn, source: From, condition: str) -> Query:
    """Groups, of which some aggregates only see the rows that satisfy a condition on the time."""
    usable = _comparable(source)
    keys = draw(st.lists(values(usable), max_size=2, unique_by=lambda one: one.sql)) if usable else []
    keys = [replace(one, loose=one.loose or one.type.loose) for one in keys if one.type.comparable]
    seen = [f"count({text})" for text in ("*", *(f"DISTINCT {one.sql}" for one in usable))]
    some = [Value(f"{draw(st.sampled_from(seen))} FILTER (WHERE {condition})", COUNT)]
    some += draw(st.lists(aggregates(source.values), max_size=2))
    listed, columns = listing(draw, [*keys, *some])
    by = ", ".join(one.sql for one in keys)
    return Query(
        f"SELECT {listed} FROM {source.text}{by and f' GROUP BY {by}'}", columns, Built("timed", (source.built,))
    )


@st.composite
def _having_lately(draw: st.DrawFn, source: From, condition: str) -> Query:
    """Groups by their rows that satisfy a condition on the time."""
    keys = draw(st.lists(values(_comparable(source)), max_size=2, unique_by=lambda one: one.sql))
    keys = [replace(one, loose=one.loose or one.type.loose) for one in keys if one.type.comparable]
    moment = draw(st.sampled_from([one.sql for one in source.values if one.type.moves]))
    choices = [f"bool_or({condition})", f"count(*) FILTER (WHERE {condition}) <> 1", f"NOT max({moment}) > now()"]
    listed, columns = listing(draw, [*keys, *draw(st.lists(aggregates(source.values), min_size=1, max_size=2))])
    by = ", ".join(one.sql for one in keys)
    having = draw(st.sampled_from([*choices, f"min({moment}) > now() - interval '20 ms' OR count(*) > 2"]))
    text = f"SELECT {listed} FROM {source.text}{by and f' GROUP BY {by}'} HAVING {having}"
    return Query(text, columns, Built("timed", (source.built,)))


@st.composite
def _joined_lately(draw: st.DrawFn, source: From, condition: str) -> Query:
    """Rows beside those of a table, joined by a condition on the time."""
    if len(source.qualified) < len(source.values) or not source.integers:
        return draw(_plain_timed(source, condition))
    beside = draw(st.sampled_from(source.relations))
    more = [Value(f"beside.{one.sql}", one.type, one.loose) for one in beside.columns]
    integers = [one.sql for one in more if one.type is INT]
    if not integers:
        return draw(_plain_timed(source, condition))
    on = f"{draw(st.sampled_from(integers))} = {draw(st.sampled_from(source.integers))}"
    listed, columns = listing(draw, draw(st.lists(values([*source.values, *more]), min_size=1, max_size=3)))
    how = draw(st.sampled_from(["JOIN", "LEFT JOIN", "RIGHT JOIN"]))
    text = f"SELECT {listed} FROM {source.text} {how} {beside.name} AS beside ON {on} AND {condition}"
    return Query(text, columns, Built("timed", (source.built,)))


@st.composite
def ordered(draw: st.DrawFn, source: From, operator: str) -> Query:
    """What depends on the order of rows, in which only rows that look the same are peers."""
    certain = [one for one in source.values if not one.loose]
    keys = [one for one in certain if one.type.comparable]
    if not certain or (operator == "distinct on" and not keys):
        return draw(plain(source))
    shown = draw(st.lists(values(certain).filter(lambda one: not one.loose), min_size=1, max_size=3))
    makes = {"windowed": windowed, "first": first, "distinct on": distinct_on}
    before, some, after = draw(makes[operator](shown, certain))
    listed, columns = listing(draw, some)
    where = f" WHERE {draw(conditions(source.values))}" if draw(st.integers(0, 2)) == 0 else ""
    text = f"SELECT {before}{listed} FROM {source.text}{where}{after}"
    return Query(text, columns, Built(operator, (source.built,)))


@st.composite
def from_sorted(draw: st.DrawFn, source: From, operator: str) -> Query:
    """What is gathered from a sorted subquery; rows that look the same are peers."""
    certain = [one for one in source.values if not one.loose]
    integers = [one for one in certain if one.type is INT]
    if not certain or (operator == GATHERED_IN_GROUPS and not integers):
        return draw(plain(source))
    shown = draw(st.lists(values(certain).filter(lambda one: not one.loose), min_size=1, max_size=3))
    key = draw(st.sampled_from(integers)) if operator == GATHERED_IN_GROUPS else None
    where = f" WHERE {draw(conditions(source.values))}" if draw(st.integers(0, 2)) == 0 else ""
    below, some, after = draw(gathered(shown, certain, f"{source.text}{where}", key))
    listed, columns = listing(draw, some)
    return Query(f"SELECT {listed} FROM {below}{after}", columns, Built(operator, (source.built,)))


@st.composite
def grouped(draw: st.DrawFn, source: From, operator: str) -> Query:
    """Aggregates of groups: plain, of grouping sets, or with windows over them."""
    usable = _comparable(source)
    few = 1 if operator == "grouping sets" else 0
    keys = draw(st.lists(values(usable), min_size=few, max_size=2, unique_by=lambda one: one.sql)) if usable else []
    keys = [replace(one, loose=one.loose or one.type.loose) for one in keys if one.type.comparable]
    some = draw(st.lists(aggregates(source.values), min_size=1, max_size=3))
    some += [Value(one.type.told(one.sql), TEXT) for one in keys if one.type.telling and draw(st.booleans())]
    some += draw(_with_subqueries(source, [one.sql for one in keys if one.sql in source.integers]))
    if operator == "grouping sets":
        # Outputs that read alike as keys are refused: what PostgreSQL prints doesn't tell which of them is meant.
        some = [one for one in some if one.sql not in {key.sql for key in keys}]
        if draw(st.booleans()) and keys:
            told = draw(st.lists(st.sampled_from([one.sql for one in keys]), min_size=1, unique=True))
            some.append(Value(f"GROUPING({', '.join(told)})", INT))
    if operator == "window over groups":
        some.append(draw(st.sampled_from(_OVER_GROUPS)))
    again = some if operator == "grouping sets" else None
    listed, columns = listing(draw, [*(one for one in keys if draw(st.integers(0, 4))), *some], again)
    where = f" WHERE {draw(wheres(source))}" if draw(st.integers(0, 2)) == 0 else ""
    by = ", ".join(one.sql for one in keys)
    if operator == "grouping sets" and keys:
        by = _sets_of(draw, [one.sql for one in keys])
    text = f"SELECT {listed} FROM {source.text}{where}{by and f' GROUP BY {by}'}{draw(_having(source, keys))}"
    real = "grouped" if operator == "grouping sets" and not keys else operator
    return Query(text, columns, Built(real, (source.built,)))


@st.composite
def _with_subqueries(draw: st.DrawFn, source: From, integers: list[str]) -> list[Value]:
    """Aggregates of subqueries, and subqueries about the integer keys of a group."""
    made = []
    if source.integers and draw(st.integers(0, 4)) == 0:
        text, of, loose = draw(subqueries.values(source.integers, source.relations))
        made.append(Value(f"max(({text})::text)", TEXT) if not loose else Value(f"sum({text})", of, True))
    if integers and draw(st.integers(0, 3)) == 0:
        made.append(Value(*draw(subqueries.values(integers, source.relations))))
    return made


@st.composite
def _having(draw: st.DrawFn, source: From, keys: list[Value]) -> str:
    integers = [one.sql for one in keys if one.sql in source.integers]
    if integers and draw(st.integers(0, 3)) == 0:
        return f" HAVING {draw(subqueries.conditions(integers, source.relations))}"
    return f" HAVING {draw(st.sampled_from(HAVING))}" if draw(st.integers(0, 3)) == 0 else ""


def _sets_of(draw: st.DrawFn, keys: list[str]) -> str:
    listed = ", ".join(keys)
    choices = [
        f"ROLLUP ({listed})",
        f"CUBE ({listed})",
        f"GROUPING SETS (({listed}), ({keys[-1]}), ())",
        f"{keys[0]}, CUBE ({keys[-1]})",
        f"GROUPING SETS (({keys[0]}), ({listed}))",
        f"DISTINCT CUBE ({listed})",
    ]
    return draw(st.sampled_from(choices))


def _comparable(source: From) -> list[Value]:
    return [one for one in source.values if one.type.comparable]
