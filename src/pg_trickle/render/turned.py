"""The rows whose mark a change turned (``Flipped``), found from the change.

What equalities tie to the change is looked up by key: which keys turned doesn't depend on the rows that have them.
Any other condition is judged row by row: of the rows that have the key or, where there is none, of all; but where
that is a single comparison, of those between the least and the greatest value that came or went.  What an equality of
expressions ties to the change is found by hashes.

Whether what a change touched has turned is told by a look at its matches, which ends at the first too many; or, where
no index leads to them and more than a few were touched, by counting the matches of all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from psycopg import sql

from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.origins import is_indexed
from pg_trickle.algebra.plan import names as names_of
from pg_trickle.render.parts import WEIGHT, conjunction, every, index_order, leading, names
from pg_trickle.scalar import Column, Scalar
from pg_trickle.uniqueness import is_looked_up

Add = Callable[[sql.Composable], sql.Identifier]
FEW = sql.Literal(10)


def turned(
    plan: Flipped,
    rows: sql.Composable,
    right: sql.Composable,
    change: sql.Composable,
    add: Add,
    *,
    are_few: bool,
    is_netted: bool,
) -> sql.Composable:
    """The SELECT of a row as it is now and, negated, as it was; ``add`` makes a WITH query.

    ``are_few``: the rows are a change themselves.  ``is_netted``: the change has no row twice.
    """
    hole = {
        "columns": leading(names_of(plan.input)),
        "mark": sql.Identifier(plan.column.name),
        "w": WEIGHT,
        "rows": rows,
        "right": right,
        "change": change,
        "on": conjunction(plan.on),
    }
    split = _split(plan)
    if split.mixed:
        hashed = frozenset[str]().union(*(_hashed(plan, one) for one in split.mixed))
        if not split.pairs and not hashed:
            return _one_by_one(plan, split, hole, add)
        sought = [other for _, other in split.pairs] or hashed
        is_found = any(is_indexed(plan.right, name) for name in sought)
        return _by_row(_touched(split, hole) if split.pairs else _met(hole, add), hole, add, at_once=not is_found)
    rest = tuple(one for one in plan.on if one not in split.right)
    hole["on"] = conjunction(rest)
    if not split.pairs:
        return _at_once(split, hole, add)
    rows_first = are_few or is_looked_up(plan.input, plan.on)
    # Where nothing is read but the key, as of a column that refers to another table, each key is there once.
    is_key = {other for _, other in split.pairs} == set(names_of(plan.right))
    is_told_apart = is_netted and is_key and all(one.type.is_identity for one in plan.right.columns)
    split = replace(split, comes_once=is_told_apart, order=sql.SQL("") if are_few else split.order)
    if not any(is_indexed(plan.right, other) for _, other in split.pairs):
        return _by_all_keys(split, hole, add, rows_first=rows_first)
    return _by_key(split, hole, rows_first=rows_first)


def found_by_range(mark: Mark) -> Column | None:
    """The column on the left by a range of which the rows are found that a change on the right turns."""
    flipped = Flipped(mark.left, mark.right, mark.right, mark.on, mark.column)
    sides = _compared(flipped, _split(flipped))
    return sides and sides[0]


@dataclass(frozen=True, slots=True)
class _Split:
    """Conditions by what they are about; ``pairs`` are columns that must be equal, left and right.

    ``order`` is that in which keys are looked up, and ``comes_once``: the change has each key once.
    """

    pairs: tuple[tuple[str, str], ...]
    right: tuple[Scalar, ...]
    mixed: tuple[Scalar, ...]
    order: sql.Composable
    comes_once: bool = False


def _split(plan: Flipped) -> _Split:
    left = {one.name for one in plan.input.columns}
    types = {one.name: one.type for one in plan.right.columns}
    pairs, right, mixed = [], [], []
    for one in plan.on:
        both = one.equates and (one.equates if one.equates[0] in left else one.equates[::-1])
        if one.columns <= left:
            continue
        if one.columns <= types.keys():
            right.append(one)
        # Only of a built-in type is it known that grouping goes by the same equality.
        elif both and both[0] in left and both[1] in types and types[both[1]].name is not None:
            pairs.append(both)
        else:
            mixed.append(one)
    keys = {other for _, other in pairs}
    order = index_order(one for one in plan.right.columns if one.name in keys) if keys else sql.SQL("")
    return _Split(tuple(pairs), tuple(right), tuple(mixed), order)


def _at_once(split: _Split, hole: dict[str, sql.Composable], add: Add) -> sql.Composable:
    """Nothing ties a row to the change: the marks of all turn, or those of none, and then the rows aren't read.

    That is told by an EXISTS of its own: planned as a join alone, all rows may be read to be joined with nothing.
    """
    hole |= {"where": conjunction(split.right)}
    turn = add(
        sql.SQL(
            "SELECT k.__pgt_d FROM (SELECT sum({w}) AS __pgt_d FROM ({change}) AS c WHERE {where}) AS k"
            " WHERE k.__pgt_d <> 0"
            " AND NOT EXISTS (SELECT FROM ({right}) AS r WHERE {where} OFFSET greatest(k.__pgt_d, 0))"
        ).format(**hole)
    )
    return sql.SQL(
        "SELECT {columns}(k.__pgt_d > 0) = (v.__pgt_s > 0) AS {mark}, x.{w}::bigint * v.__pgt_s AS {w} FROM {turn} AS k"
        " JOIN ({rows}) AS x ON {on} CROSS JOIN (VALUES (1), (-1)) AS v(__pgt_s) WHERE EXISTS (SELECT FROM {turn})"
    ).format(**hole, turn=turn)


def _by_key(split: _Split, hole: dict[str, sql.Composable], *, rows_first: bool) -> sql.Composable:
    """Of each key that turned its rows; or, where they are fewer, of the rows with a key those whose key turned."""
    hole |= _keyed(split, hole)
    if rows_first:
        return sql.SQL(
            "SELECT {columns}(k.__pgt_d > 0) = (v.__pgt_s > 0) AS {mark}, k.{w}::bigint * v.__pgt_s AS {w} FROM"
            " (SELECT {columns}{keys}x.{w}, k.__pgt_d FROM ({changed}) AS k JOIN ({rows}) AS x ON {on} OFFSET 0) AS k"
            " CROSS JOIN (VALUES (1), (-1)) AS v(__pgt_s)"
            " WHERE NOT EXISTS (SELECT FROM ({right}) AS r WHERE {same} AND {where} OFFSET greatest(k.__pgt_d, 0))"
        ).format(**hole)
    return sql.SQL(
        "SELECT {columns}(k.__pgt_d > 0) = (v.__pgt_s > 0) AS {mark}, x.{w}::bigint * v.__pgt_s AS {w} FROM"
        " (SELECT {keys}k.__pgt_d FROM ({changed}) AS k"
        " WHERE NOT EXISTS (SELECT FROM ({right}) AS r WHERE {same} AND {where} OFFSET greatest(k.__pgt_d, 0))) AS k"
        " JOIN ({rows}) AS x ON {on} CROSS JOIN (VALUES (1), (-1)) AS v(__pgt_s)"
    ).format(**hole)


def _keyed(split: _Split, hole: dict[str, sql.Composable]) -> dict[str, sql.Composable]:
    """The keys that the change touched, by how much, and what else stands in a statement about them."""
    keys = tuple(dict.fromkeys(other for _, other in split.pairs))
    made = {"keys": leading(keys), "where": conjunction(split.right), "same": _same(keys, "r", "k")}
    template = (
        sql.SQL("SELECT {keys}{w} AS __pgt_d FROM ({change}) AS c WHERE {where}{order}")
        if split.comes_once
        else sql.SQL(
            "SELECT {keys}sum({w}) AS __pgt_d FROM ({change}) AS c WHERE {where} GROUP BY {grouped}"
            " HAVING sum({w}) <> 0{order}"
        )
    )
    changed = template.format(**hole, **made, grouped=names(keys), order=split.order)
    return {**made, "changed": changed}


def _same(keys: tuple[str, ...], left: str, right: str) -> sql.Composable:
    return every(sql.SQL("{l} = {r}").format(l=sql.Identifier(left, key), r=sql.Identifier(right, key)) for key in keys)


def _by_all_keys(split: _Split, hole: dict[str, sql.Composable], add: Add, *, rows_first: bool) -> sql.Composable:
    """The same where no index leads to the matches of a key."""
    hole |= _keyed(split, hole)
    keys = tuple(dict.fromkeys(other for _, other in split.pairs))
    others = sql.SQL("SELECT {names} FROM ({right}) AS r WHERE {where}").format(**hole, names=names(keys))
    if rows_first:
        found = sql.SQL(
            "SELECT {columns}{keys}x.{w}, k.__pgt_d FROM ({changed}) AS k JOIN ({rows}) AS x ON {on} OFFSET 0"
        ).format(**hole)
        touched = add(found)
        once = sql.SQL("SELECT DISTINCT {keys}__pgt_d FROM {touched}").format(**hole, touched=touched)
        return sql.SQL(
            "SELECT {columns}(k.__pgt_d > 0) = (v.__pgt_s > 0) AS {mark}, k.{w}::bigint * v.__pgt_s AS {w}"
            " FROM ({turned}) AS k CROSS JOIN (VALUES (1), (-1)) AS v(__pgt_s)"
        ).format(**hole, turned=_turned(touched, once, keys, others, hole["same"]))
    touched = add(hole["changed"])
    once = sql.SQL("SELECT {keys}__pgt_d FROM {touched}").format(**hole, touched=touched)
    return sql.SQL(
        "SELECT {columns}(k.__pgt_d > 0) = (v.__pgt_s > 0) AS {mark}, x.{w}::bigint * v.__pgt_s AS {w}"
        " FROM ({turned}) AS k JOIN ({rows}) AS x ON {on} CROSS JOIN (VALUES (1), (-1)) AS v(__pgt_s)"
    ).format(**hole, turned=_turned(touched, once, keys, others, hole["same"]))


def _turned(
    touched: sql.Identifier, once: sql.Composable, keys: tuple[str, ...], others: sql.Composable, on: sql.Composable
) -> sql.Composable:
    """Those of what the change touched that turned: a look for each of a few, or a count of what all of them meet.

    ``once`` is what differs of them, told apart by ``keys``.
    """
    return sql.SQL(
        "SELECT k.* FROM {touched} AS k WHERE NOT EXISTS (SELECT FROM {touched} OFFSET {few})"
        " AND NOT EXISTS (SELECT FROM ({others}) AS r WHERE {on} OFFSET greatest(k.__pgt_d, 0))"
        " UNION ALL SELECT k.* FROM {touched} AS k WHERE EXISTS (SELECT FROM {touched} OFFSET {few})"
        " AND NOT EXISTS (SELECT FROM (SELECT {keys} FROM ({once}) AS k JOIN ({others}) AS r ON {on}"
        " GROUP BY {keys}, k.__pgt_d HAVING count(*) > greatest(k.__pgt_d, 0)) AS m WHERE {same})"
    ).format(
        touched=touched, few=FEW, once=once, others=others, on=on, keys=names(keys, "k"), same=_same(keys, "m", "k")
    )


def _hashed(plan: Flipped, condition: Scalar) -> frozenset[str]:
    """The columns on the right, where the condition is an equality of what is made of one side each; else none."""
    left, right = (frozenset(names_of(side)) for side in (plan.input, plan.right))
    for one, other in (condition.sides, condition.sides[::-1]) if condition.sides else ():
        if one and other and one <= left and other <= right:
            return other
    return frozenset()


def _one_by_one(plan: Flipped, split: _Split, hole: dict[str, sql.Composable], add: Add) -> sql.Composable:
    """No key leads from the change to rows: each is judged by all of it, in one pass."""
    changed = add(sql.SQL("SELECT * FROM ({change}) AS c").format(**hole))
    hole |= {"rows": _near(plan, split, hole["rows"], changed, add)}
    return sql.SQL(
        "SELECT {columns}(t.__pgt_d > 0) = (v.__pgt_s > 0) AS {mark}, t.{w}::bigint * v.__pgt_s AS {w} FROM"
        " (SELECT {columns}x.{w}, d.__pgt_d FROM ({rows}) AS x CROSS JOIN LATERAL"
        " (SELECT sum(c.{w}) AS __pgt_d FROM {changed} AS c WHERE {on}) AS d WHERE d.__pgt_d <> 0 OFFSET 0) AS t"
        " CROSS JOIN (VALUES (1), (-1)) AS v(__pgt_s)"
        " WHERE NOT EXISTS (SELECT FROM ({right}) AS r WHERE {on} OFFSET greatest(t.__pgt_d, 0))"
    ).format(**hole, changed=changed)


# What no value of a type comes before, and what none comes after.
ENDS = {
    **dict.fromkeys(("numeric", "float4", "float8"), ("-Infinity", "NaN")),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), ("-infinity", "infinity")),
    "int2": ("-32768", "32767"),
    "int4": ("-2147483648", "2147483647"),
    "int8": ("-9223372036854775808", "9223372036854775807"),
}


def _compared(plan: Flipped, split: _Split) -> tuple[Column, Column] | None:
    """The columns, left and right, of the only condition that ties both sides, if it is a comparison of such values."""
    if len(split.mixed) != 1 or split.pairs or split.mixed[0].compares is None:
        return None
    left, right = ({one.name: one for one in side.columns} for side in (plan.input, plan.right))
    first, second = split.mixed[0].compares
    if first in right:
        first, second = second, first
    if first not in left or second not in right:
        return None
    mine, theirs = left[first], right[second]
    return (mine, theirs) if {mine.type.name, theirs.type.name} <= ENDS.keys() else None


def _near(plan: Flipped, split: _Split, rows: sql.Composable, changed: sql.Identifier, add: Add) -> sql.Composable:
    """The rows that the change may turn.

    A value before all that came or went, or behind them all, compares alike with each of them: as many matches came as
    went, unless more values came than went.  Then the range has no ends.
    """
    sides = _compared(plan, split)
    if sides is None:
        return rows
    mine, theirs = sides
    lowest, highest = ENDS[theirs.type.name or ""]
    hole = {
        "v": sql.Identifier(theirs.name),
        "x": sql.Identifier("x", mine.name),
        "w": WEIGHT,
        "type": sql.Identifier("pg_catalog", theirs.type.name or ""),
        "lowest": sql.Literal(lowest),
        "highest": sql.Literal(highest),
        "changed": changed,
        "where": conjunction(split.right),
        "rows": rows,
    }
    template = sql.SQL(
        "SELECT CASE WHEN __pgt_even THEN __pgt_low ELSE {lowest}::{type} END AS __pgt_low,"
        " CASE WHEN __pgt_even THEN __pgt_high ELSE {highest}::{type} END AS __pgt_high"
        " FROM (SELECT coalesce(sum({w}) FILTER (WHERE {v} IS NOT NULL), 0) = 0 AS __pgt_even,"
        " min({v}) AS __pgt_low, max({v}) AS __pgt_high FROM {changed} AS c WHERE {where}) AS b"
    )
    ends = add(template.format(**hole))
    return sql.SQL(
        "SELECT * FROM ({rows}) AS x"
        " WHERE {x} BETWEEN (SELECT __pgt_low FROM {ends}) AND (SELECT __pgt_high FROM {ends})"
    ).format(**hole, ends=ends)


def _by_row(touched: sql.Composable, hole: dict[str, sql.Composable], add: Add, *, at_once: bool) -> sql.Composable:
    """Rows are numbered, for they may be alike; ``t`` are those that meet the change, ``d`` by how much."""
    numbered = add(
        sql.SQL("SELECT {columns}{w}, row_number() OVER () AS __pgt_i FROM ({touched}) AS x").format(
            **hole, touched=touched
        )
    )
    weighed = sql.SQL(
        "SELECT {columns}t.{w}, __pgt_i, d.__pgt_d FROM {t} AS t"
        " JOIN (SELECT __pgt_i, sum(c.{w}) AS __pgt_d FROM {t} AS t JOIN ({change}) AS c ON {on} GROUP BY __pgt_i"
        " HAVING sum(c.{w}) <> 0) AS d USING (__pgt_i)"
    ).format(**hole, t=numbered)
    if at_once:
        found = add(weighed)
        once = sql.SQL("SELECT * FROM {found}").format(found=found)
        turned_rows = _turned(found, once, ("__pgt_i",), hole["right"], hole["on"])
    else:
        turned_rows = sql.SQL(
            "SELECT * FROM ({weighed}) AS k"
            " WHERE NOT EXISTS (SELECT FROM ({right}) AS r WHERE {on} OFFSET greatest(k.__pgt_d, 0))"
        ).format(**hole, weighed=weighed)
    return sql.SQL(
        "SELECT {columns}(k.__pgt_d > 0) = (v.__pgt_s > 0) AS {mark}, k.{w}::bigint * v.__pgt_s AS {w}"
        " FROM ({turned}) AS k CROSS JOIN (VALUES (1), (-1)) AS v(__pgt_s)"
    ).format(**hole, turned=turned_rows)


def _met(hole: dict[str, sql.Composable], add: Add) -> sql.Composable:
    """Of all rows those that meet any of the change, which is computed once."""
    hole["change"] = sql.SQL("SELECT * FROM {changed}").format(
        changed=add(sql.SQL("SELECT * FROM ({change}) AS c").format(**hole))
    )
    return sql.SQL(
        "SELECT {columns}x.{w} FROM ({rows}) AS x WHERE EXISTS (SELECT FROM ({change}) AS c WHERE {on})"
    ).format(**hole)


def _touched(split: _Split, hole: dict[str, sql.Composable]) -> sql.Composable:
    keys = tuple(dict.fromkeys(other for _, other in split.pairs))
    same = every(
        sql.SQL("{x} = {k}").format(x=sql.Identifier("x", one), k=sql.Identifier("k", other))
        for one, other in split.pairs
    )
    return sql.SQL(
        "SELECT {columns}x.{w} FROM (SELECT DISTINCT {keys} FROM ({change}) AS c) AS k JOIN ({rows}) AS x ON {same}"
    ).format(**hole, keys=names(keys), same=same)
