"""Small pieces of SQL that every template needs."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from pg_trickle.scalar import Column, Identity, Scalar, are_compared_as_row, as_text

WEIGHT = sql.Identifier("__pgt_w")
CHANGES_SCHEMA = "pgtrickle_changes"


def listed(parts: Iterable[sql.Composable]) -> sql.Composed:
    """The parts with commas between."""
    return sql.SQL(", ").join(parts)


def names(columns: Iterable[str], of: str | None = None) -> sql.Composed:
    """Quoted names with commas between, each qualified by ``of``."""
    return listed(sql.Identifier(of, name) if of else sql.Identifier(name) for name in columns)


def leading(columns: Iterable[str], of: str | None = None) -> sql.Composed:
    """The same, with a comma behind each: for a list that something always follows."""
    parts = (sql.Identifier(of, name) if of else sql.Identifier(name) for name in columns)
    return sql.Composed([sql.SQL("{name}, ").format(name=part) for part in parts])


def assignments(columns: Iterable[str], of: str) -> sql.Composed:
    """``a = of.a, …``"""
    return listed(
        sql.SQL("{c} = {value}").format(c=sql.Identifier(name), value=sql.Identifier(of, name)) for name in columns
    )


def every(conditions: Iterable[sql.Composable]) -> sql.Composable:
    """The conjunction; TRUE when there is nothing to join."""
    parts = list(conditions)
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("TRUE")


def conjunction(predicates: tuple[Scalar, ...]) -> sql.Composable:
    """Predicates joined by AND, each in parentheses."""
    return every(sql.SQL("({predicate})").format(predicate=predicate.sql()) for predicate in predicates)


def matches(columns: Iterable[tuple[Column, str, str]], left: str, right: str) -> sql.Composable:
    """Null-safe equality of columns, given as (column, its name left, its name right)."""
    return every(_match(of, sql.Identifier(left, one), sql.Identifier(right, other)) for of, one, other in columns)


def _match(of: Column, left: sql.Composable, right: sql.Composable) -> sql.Composable:
    """Equality of two values in a form that the planner can use (ALGEBRA.md §6).

    An operator of a type outside pg_catalog can't be found by name under the pinned search_path;
    comparison of records finds it by type, and takes NULLs as equal.
    """
    if of.type.identity is Identity.NONE:
        template = sql.SQL('{left}::text COLLATE "C" IS NOT DISTINCT FROM {right}::text COLLATE "C"')
    elif of.type.name is None:
        template = sql.SQL("ROW({left})::record = ROW({right})::record")
    elif of.not_null:
        template = sql.SQL("{left} = {right}")
    else:
        template = sql.SQL("({left} = {right} OR ({left} IS NULL AND {right} IS NULL))")
    return template.format(left=left, right=right)


def touching(columns: Iterable[tuple[Column, str, str]], left: str, right: str) -> sql.Composable:
    """The same for a join with a table that may have an index on the columns or not: it can always be hashed."""
    pairs = list(columns)
    match = matches(pairs, left, right)
    if not are_compared_as_row(of for of, _, _ in pairs):
        return match
    hashed = sql.SQL("{left} = {right}").format(
        left=row_hash((one for _, one, _ in pairs), left), right=row_hash((other for _, _, other in pairs), right)
    )
    return every([match, hashed])


def distinct_keys(columns: Iterable[Column], rows: sql.Composable) -> sql.Composable:
    """Each combination of values once, by the equality that ``matches`` goes by."""
    keys = list(columns)
    told_apart = [
        sql.SQL("ROW({c})::record").format(c=sql.Identifier(one.name))
        if one.type.name is None
        else sql.Identifier(one.name)
        for one in keys
    ]
    return sql.SQL("SELECT DISTINCT ON ({told}) {keys} FROM ({rows}) AS d").format(
        told=listed(told_apart), keys=names(one.name for one in keys), rows=rows
    )


def identity_keys(of: Column, value: sql.Composable) -> tuple[sql.Composable, ...]:
    """What to group by so that only identical values fall together (ALGEBRA.md §8, trap 8)."""
    if of.type.is_identity:
        return (value,)
    match of.type.identity:
        case Identity.SCALE:
            return (value, sql.SQL("scale({value})").format(value=value))
        case Identity.TEXT if not of.type.is_row:
            return (value, sql.SQL('{text} COLLATE "C"').format(text=as_text(of.type, value)))
        case _:
            return (sql.SQL('{text} COLLATE "C"').format(text=as_text(of.type, value)),)


def index_order(columns: Iterable[Column]) -> sql.Composable:
    """ORDER BY for what will be looked up in an index: neighbours there are often neighbours on disk, and in the cache.

    Nothing where sorting takes longer than that saves.
    """
    keys = list(columns)
    if not all(one.type.sorts_quickly for one in keys):
        return sql.SQL("")
    return sql.SQL(" ORDER BY {keys}").format(keys=names(one.name for one in keys))


def differ(
    columns: Iterable[tuple[Column, str, str]], left: str | None = None, right: str | None = None
) -> sql.Composable:
    """Whether any of the values, given as (column, its name left, its name right), is not identical to the other.

    Where equality tells, it is asked for: that costs a third of comparing images.
    """
    plain: list[sql.Composable] = []
    images: list[tuple[sql.Composable, sql.Composable]] = []
    for of, one, other in columns:
        pair = _named(one, left), _named(other, right)
        if of.type.has_one_image:
            plain.append(sql.SQL("{one} IS DISTINCT FROM {other}").format(one=pair[0], other=pair[1]))
        else:
            images.append(pair)
    if images:
        ours, theirs = (listed(side) for side in zip(*images, strict=True))
        plain.append(sql.SQL("ROW({ours})::record *<> ROW({theirs})::record").format(ours=ours, theirs=theirs))
    return sql.SQL("({tests})").format(tests=sql.SQL(" OR ").join(plain)) if plain else sql.SQL("FALSE")


def _named(name: str, of: str | None) -> sql.Identifier:
    return sql.Identifier(of, name) if of else sql.Identifier(name)


def row_hash(columns: Iterable[str], of: str | None = None) -> sql.Composable:
    """A hash of the values by their types' own hash functions: equal rows, NULLs alike, hash alike."""
    return sql.SQL("hash_record_extended(ROW({columns}), 0)").format(columns=names(columns, of))
