"""Scalar parts of random queries: conditions, values, aggregates."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.refresh.workload import subqueries
from tests.refresh.workload.tables import Column, quoted
from tests.refresh.workload.types import ARRAY, BOOL, CITEXT, COUNT, FLOAT, INT, JSONB, NUMBER, PAIR, RANGE, TEXT
from tests.refresh.workload.values import From, Value

_WITHOUT_EXTREMES = {BOOL, JSONB, PAIR, RANGE}


@st.composite
def conditions(draw: st.DrawFn, values: list[Value]) -> str:
    """A condition on one of the values."""
    one = draw(st.sampled_from(values))
    choices = [f"{one.sql} IS NOT NULL", f"{one.sql} IS NULL"]
    if one.type.comparable and one.type.values and not one.type.moves:
        literal = one.type.literal(draw(st.sampled_from(one.type.values)))
        choices += [f"{one.sql} = {literal}", f"{one.sql} <> {literal}", f"({one.sql} = {literal}) IS NOT TRUE"]
        choices += [f"{one.sql} IN ({literal})"]
        # Which equality that is, PostgreSQL's own printer doesn't say.
        choices += [f"{one.sql} IS DISTINCT FROM {literal}"] if one.type != CITEXT else []
    if one.type.number:
        choices += [f"{one.sql} > 0", f"{one.sql} BETWEEN 0 AND 2", f"NOT {one.sql} > 1"]
    if one.type is BOOL:
        choices += [one.sql, f"NOT {one.sql}"]
    return draw(st.sampled_from(choices))


@st.composite
def wheres(draw: st.DrawFn, source: From) -> str:
    """A condition on the rows of FROM, with a subquery or without."""
    if draw(st.booleans()) and source.integers:
        return draw(subqueries.conditions(source.integers, source.relations))
    if draw(st.booleans()) and subqueries.alike(source.values, source.relations):
        return draw(subqueries.memberships(source.values, source.relations))
    return draw(conditions(source.values))


@st.composite
def values(draw: st.DrawFn, some: list[Value]) -> Value:
    """A column, or something computed from columns of which no two equal values differ."""
    one = draw(st.sampled_from(some))
    choices = [one, one]
    if one.type is INT:
        choices += [Value(f"coalesce({one.sql}, 0) + 1", INT), Value(f"{one.sql} * 2 - {one.sql}", INT)]
        choices += [Value(f"{one.sql} / 2.0", NUMBER, True), Value(f"({one.sql} > 1 OR {one.sql} IS NULL)", BOOL)]
        choices += [Value(f"CASE WHEN {one.sql} > 1 THEN {one.sql} WHEN {one.sql} IS NULL THEN 7 END", INT)]
        choices += [Value(f"nullif({one.sql}, 1)", INT), Value(f"greatest({one.sql}, 1)", INT)]
    if one.type is TEXT:
        choices += [Value(f"upper({one.sql}) || '!'", TEXT), Value(f"length({one.sql})", INT)]
    if one.type.telling:
        choices += [Value(one.type.told(one.sql), TEXT)] * 2
    if not one.loose:
        choices += [Value(f"coalesce({one.type.text(one.sql)}, 'none')", TEXT)]
    return draw(st.sampled_from(choices))


def listing(draw: st.DrawFn, some: list[Value], again: list[Value] | None = None) -> tuple[str, tuple[Column, ...]]:
    """The select list of the values, of which one (of ``again``) may come twice, and its columns."""
    if draw(st.integers(0, 9)) == 9:
        some = [*some, draw(st.sampled_from(again or some))]
    names = ["k"] + [f"c{place}" for place in range(1, len(some))]
    if draw(st.booleans()) and some[0].type is not INT:
        names[0] = "c0"
    columns = tuple(Column(name, one.type, one.loose) for name, one in zip(names, some, strict=True))
    return ", ".join(f"{one.sql} AS {quoted(name)}" for name, one in zip(names, some, strict=True)), columns


@st.composite
def sets(draw: st.DrawFn, some: list[Value]) -> list[Value]:
    """Expressions of the select list that make any number of rows."""
    made = [Value("generate_series(1, 2)", INT)]
    made += [Value(f"generate_series(1, least({one.sql}, 2)) + 1", INT) for one in some if one.type is INT]
    made += [Value(f"unnest({one.sql})", INT) for one in some if one.type is ARRAY]
    return draw(st.lists(st.sampled_from(made), min_size=1, max_size=2))


@st.composite
def aggregates(draw: st.DrawFn, some: list[Value]) -> Value:
    """An aggregate of one of the values."""
    chosen = draw(st.sampled_from(_aggregates_of(draw(st.sampled_from(some)))))
    if draw(st.integers(0, 19)) == 0:
        pair = ", ".join(one.sql for one in draw(st.lists(st.sampled_from(some), min_size=1, max_size=3)))
        chosen = Value(f"count(DISTINCT ROW({pair}))", COUNT) if all(one.type.comparable for one in some) else chosen
    if chosen.sql.endswith(")") and " / " not in chosen.sql and draw(st.integers(0, 3)) == 0:
        return replace(chosen, sql=f"{chosen.sql} FILTER (WHERE {draw(conditions(some))})")
    return chosen


def _aggregates_of(one: Value) -> list[Value]:
    of, text = one.type, one.sql
    choices = [Value("count(*)", COUNT), Value(f"count({text})", COUNT)]
    if of.summable:
        choices += [Value(f"sum({text})", NUMBER, True)] * 2 + [Value(f"avg({text})", NUMBER, True)]
    if of.exact:
        choices += [Value(f"stddev({text})", NUMBER, True), Value(f"coalesce(sum({text}), -1) / 2", NUMBER, True)]
    if of.comparable and of not in _WITHOUT_EXTREMES:
        choices += [Value(f"{name}({text})", of, of.loose) for name in ("min", "max")]
    if of.comparable:
        choices += [Value(f"count(DISTINCT {text})", COUNT)]
    if of is BOOL:
        choices += [Value(f"{name}({text})", BOOL) for name in ("bool_and", "bool_or", "every")]
    if of is TEXT:
        choices += [Value(f"string_agg({text}, ',' ORDER BY {text} DESC)", TEXT)]
        choices += [Value(f"mode() WITHIN GROUP (ORDER BY {text})", TEXT)]
    return choices + (_of_integers(text) if of is INT else [])


def _of_integers(text: str) -> list[Value]:
    return [
        Value(f"array_agg({text} ORDER BY {text})::text", TEXT),
        Value(f"sum(DISTINCT {text})", NUMBER),
        Value(f"var_pop({text})", NUMBER, True),
        Value(f"bit_xor({text})", INT),
        Value(f"bit_or({text})", INT),
        Value(f"sum(CASE WHEN {text} > 0 THEN {text} ELSE 0 END)", NUMBER),
        Value(f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {text})", INT),
        Value(f"percentile_cont(0.5) WITHIN GROUP (ORDER BY {text})", FLOAT),
        Value(f"mode() WITHIN GROUP (ORDER BY {text} DESC)", INT),
        Value(f"rank(1) WITHIN GROUP (ORDER BY {text})", COUNT),
        Value(f"dense_rank(2) WITHIN GROUP (ORDER BY {text} DESC)", COUNT),
        Value(f"regr_count({text}, {text} - 1)", COUNT),
    ]
