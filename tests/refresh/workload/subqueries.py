"""Subqueries for random queries: conditions and values that read other rows, correlated or not."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.refresh.workload.tables import Column, Relation
from tests.refresh.workload.types import BOOL, CITEXT, COUNT, INT, NUMBER, TEXT, Type
from tests.refresh.workload.values import Value

_CORRELATIONS = (
    "{inner} = {outer}",
    "{inner} = {outer}",
    "{inner} = {outer}",
    "{inner} < {outer}",
    "{outer} = {inner} AND {inner} > 0",
    "{inner} = {outer} AND {other} <> {outer}",
    "coalesce({inner}, 0) = coalesce({outer}, 1)",
    "({inner} > 1 OR {outer} = 1)",
    "{inner} IS NOT DISTINCT FROM {outer}",
    "{inner} > 0",
    "true",
)


@dataclass(frozen=True)
class Inner:
    """FROM and WHERE of a subquery, and two of its columns."""

    text: str
    one: str
    other: str


def _integers(relation: Relation) -> list[Column]:
    return [one for one in relation.columns if one.type is INT]


@st.composite
def _inners(draw: st.DrawFn, outer: str, relations: tuple[Relation, ...]) -> Inner:
    usable = [one for one in relations if _integers(one)]
    relation = draw(st.sampled_from(usable))
    columns = [f"i.{one.sql}" for one in _integers(relation)]
    text = f"{relation.name} AS i"
    if draw(st.integers(0, 3)) == 0:
        joined = draw(st.sampled_from(usable))
        more = [f"j.{one.sql}" for one in _integers(joined)]
        how = draw(st.sampled_from(["JOIN", "LEFT JOIN"]))
        text += f" {how} {joined.name} AS j ON {draw(st.sampled_from(columns))} = {draw(st.sampled_from(more))}"
        columns += more
    one, other = draw(st.sampled_from(columns)), draw(st.sampled_from(columns))
    where = draw(st.sampled_from(_CORRELATIONS)).format(inner=draw(st.sampled_from(columns)), outer=outer, other=other)
    if draw(st.integers(0, 5)) == 0:
        again = draw(st.sampled_from(usable))
        third = draw(st.sampled_from(_integers(again))).sql
        where += (
            f" AND EXISTS (SELECT 1 FROM {again.name} AS m WHERE m.{third} = {draw(st.sampled_from([one, outer]))})"
        )
    return Inner(f"{text} WHERE {where}", one, other)


@st.composite
def conditions(draw: st.DrawFn, columns: list[str], relations: tuple[Relation, ...], kind: str = "") -> str:
    """A condition on integer columns, given as SQL, that a subquery over one of the relations decides.

    ``kind``: exists, not exists or compared with subquery; else any of them.
    """
    outer, second = draw(st.sampled_from(columns)), draw(st.sampled_from(columns))
    inner = draw(_inners(outer, relations))
    operator = draw(st.sampled_from(["=", "<>", "<", ">="]))
    choices = {
        "exists": [
            f"EXISTS (SELECT 1 FROM {inner.text})",
            f"EXISTS (SELECT {inner.one} FROM {inner.text} GROUP BY {inner.one} HAVING count(*) > 1)",
            f"EXISTS (SELECT 1 FROM {inner.text} LIMIT 1)",
            f"EXISTS (SELECT {inner.one} FROM {inner.text} OFFSET 1)",
            f"{second} IN (SELECT {inner.one} FROM {inner.text})",
            f"{second} IN (SELECT DISTINCT {inner.one} FROM {inner.text}"
            f" UNION ALL SELECT {inner.other} FROM {inner.text})",
            f"({second}, {outer}) IN (SELECT {inner.one}, {inner.other} FROM {inner.text})",
        ],
        "not exists": [
            f"NOT EXISTS (SELECT 1 FROM {inner.text})",
            f"NOT EXISTS (SELECT {inner.one} FROM {inner.text} LIMIT 2 OFFSET 1)",
            f"{second} NOT IN (SELECT {inner.one} FROM {inner.text})",
            f"({second}, {outer}) NOT IN (SELECT {inner.one}, {inner.other} FROM {inner.text})",
        ],
        "compared with subquery": [
            f"{second} {operator} ANY (SELECT {inner.one} FROM {inner.text})",
            f"{second} {operator} ALL (SELECT {inner.one} FROM {inner.text})",
            f"NOT {second} {operator} ALL (SELECT {inner.one} FROM {inner.text})",
            f"{second} {operator} (SELECT max({inner.one}) FROM {inner.text})",
            f"(SELECT count(*) FROM {inner.text}) {operator} {second}",
            f"(SELECT sum({inner.one}) FROM {inner.text} HAVING count(*) > 1) IS NULL",
        ],
    }
    chosen = draw(st.sampled_from(choices.get(kind) or [one for some in choices.values() for one in some]))
    if draw(st.integers(0, 4)) == 0:
        return f"({chosen} OR {second} = 1)"
    return chosen


def alike(outer: list[Value], relations: tuple[Relation, ...]) -> list[tuple[str, Relation, Column]]:
    """The values with the columns, of whatever type, that they can be compared with."""
    return [
        (one.sql, relation, column)
        for one in outer
        for relation in relations
        for column in relation.columns
        if one.type.comparable and one.type.name == column.type.name and "." in one.sql
    ]


@st.composite
def memberships(draw: st.DrawFn, outer: list[Value], relations: tuple[Relation, ...]) -> str:
    """Whether a relation has a value."""
    one, relation, column = draw(st.sampled_from(alike(outer, relations)))
    rows = f"SELECT i.{column.sql} FROM {relation.name} AS i"
    choices = [
        f"{one} IN ({rows})",
        f"{one} NOT IN ({rows})",
        f"({one} IN ({rows})) IS NULL",
        f"{one} <> ALL ({rows} WHERE i.{column.sql} IS NOT NULL)",
        f"EXISTS ({rows} WHERE i.{column.sql} = {one})",
        f"NOT EXISTS ({rows} WHERE i.{column.sql} = {one})",
        f"(SELECT count(i.{column.sql}) FROM {relation.name} AS i WHERE i.{column.sql} = {one}) > 1",
        f"EXISTS ({rows} WHERE i.{column.sql} IS NOT DISTINCT FROM {one})" if column.type != CITEXT else "true",
    ]
    return draw(st.sampled_from(choices))


@st.composite
def values(draw: st.DrawFn, columns: list[str], relations: tuple[Relation, ...]) -> tuple[str, Type, bool]:
    """An expression with a subquery, its type, and whether equal results may differ in what they show."""
    outer = draw(st.sampled_from(columns))
    inner = draw(_inners(outer, relations))
    condition = draw(conditions(columns, relations))
    choices: list[tuple[str, Type, bool]] = [
        (f"({condition})", BOOL, False),
        (f"CASE WHEN {condition} THEN {outer} END", INT, False),
        (f"(SELECT count(*) FROM {inner.text})", COUNT, False),
        (f"(SELECT count({inner.one}) + {outer} FROM {inner.text})", COUNT, False),
        (f"(SELECT sum({inner.one}) FROM {inner.text})", NUMBER, True),
        (f"coalesce((SELECT min({inner.one}) FROM {inner.text}), {outer})", INT, False),
        (f"(SELECT max({inner.one}) FROM {inner.text} HAVING count(*) > 1)", INT, False),
        (f"(SELECT m FROM (SELECT max({inner.one}) AS m FROM {inner.text}) AS d)", INT, False),
        (f"(SELECT string_agg({inner.one}::text, ',' ORDER BY {inner.one}) FROM {inner.text})", TEXT, False),
        (f"ARRAY(SELECT {inner.one} FROM {inner.text} ORDER BY {inner.one} DESC)::text", TEXT, False),
    ]
    return draw(st.sampled_from(choices))
