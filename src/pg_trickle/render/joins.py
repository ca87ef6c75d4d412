"""Rows beside those of another side: the pairs of a join, and whether a row has a match."""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.kinds import is_bag
from pg_trickle.algebra.mark import Mark, absent
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.render.parts import WEIGHT, conjunction, leading
from pg_trickle.scalar import Column, Scalar
from pg_trickle.scalar import column as column_value


def sought(side: Plan, on: tuple[Scalar, ...]) -> tuple[str, ...]:
    """The columns of one side whose values are looked up in the other, and that are worth sorting."""
    here = {one.name for one in side.columns if one.type.sorts_quickly}
    pairs = (predicate.equates for predicate in on if predicate.equates)
    return tuple(name for pair in pairs for name in pair if name in here)


def joined(join: Join, left: sql.Composable, right: sql.Composable) -> sql.Composable:
    """The pairs of an inner join; each weighs the product of its halves' weights."""
    if is_bag(join.right):
        weight = sql.SQL("l.{w}")
    elif is_bag(join.left):
        weight = sql.SQL("r.{w}")
    else:
        weight = sql.SQL("l.{w}::bigint * r.{w} AS {w}")
    return sql.SQL("SELECT {columns}{weight} FROM ({left}) AS l JOIN ({right}) AS r ON {condition}").format(
        columns=leading(names_of(join)),
        weight=weight.format(w=WEIGHT),
        left=left,
        right=right,
        condition=conjunction(join.on),
    )


def marked(mark: Mark, left: sql.Composable, right: sql.Composable) -> sql.Composable:
    """The rows of the left side, each with whether it has a match."""
    return sql.SQL("SELECT {columns}{met} AS {mark}, {w} FROM ({left}) AS l").format(
        columns=leading(names_of(mark.left)),
        met=_met(mark, right),
        mark=sql.Identifier(mark.column.name),
        w=WEIGHT,
        left=left,
    )


def is_tested_alone(mark: Column, predicates: tuple[Scalar, ...]) -> bool:
    """Whether predicates test a mark by itself and no other way."""
    tests = [one.text for one in predicates if mark.name in one.columns]
    return len(tests) == 1 and tests[0] in {column_value(mark).text, absent(mark).text}


def semi_joined(
    mark: Mark, predicates: tuple[Scalar, ...], left: sql.Composable, right: sql.Composable
) -> sql.Composable:
    """A filter by a mark in the form that PostgreSQL plans as a semi- or anti-join."""
    is_anti = absent(mark.column).text in {one.text for one in predicates}
    template = (
        sql.SQL("SELECT {columns}FALSE AS {mark}, {w} FROM ({left}) AS l WHERE {rest} AND NOT {met}")
        if is_anti
        else sql.SQL("SELECT {columns}TRUE AS {mark}, {w} FROM ({left}) AS l WHERE {rest} AND {met}")
    )
    return template.format(
        columns=leading(names_of(mark.left)),
        mark=sql.Identifier(mark.column.name),
        w=WEIGHT,
        left=left,
        rest=conjunction(tuple(one for one in predicates if mark.column.name not in one.columns)),
        met=_met(mark, right),
    )


def _met(mark: Mark, right: sql.Composable) -> sql.Composable:
    """Whether a row has a match; names of columns are unique in a plan, so its own are seen from inside.

    Where nothing ties a match to the row, whether there is any is asked once, and not of each row beside each of them.
    """
    own = frozenset(names_of(mark.left))
    here = tuple(one for one in mark.on if one.columns and one.columns <= own)
    there = tuple(one for one in mark.on if one not in here)
    hole = {"right": right, "here": conjunction(here), "there": conjunction(there)}
    if not here or any(one.columns & own for one in there):
        return sql.SQL("EXISTS (SELECT FROM ({right}) AS r WHERE {on})").format(**hole, on=conjunction(mark.on))
    return sql.SQL(
        "CASE WHEN EXISTS (SELECT FROM ({right}) AS r WHERE {there}) THEN ({here}) IS TRUE ELSE FALSE END"
    ).format(**hole)
