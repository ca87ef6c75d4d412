"""A delta put into a table: by key where there is one, else by content (ALGEBRA.md §7).

Every statement yields one number: the rows it wrote, or NULL when the table didn't hold what the delta
takes away.  Then something else has written to the table and it must be recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from pg_trickle.render.parts import (
    WEIGHT,
    assignments,
    every,
    identity_keys,
    index_order,
    listed,
    matches,
    names,
    row_hash,
)
from pg_trickle.render.select import CommonTables
from pg_trickle.scalar import Column, Identity


@dataclass(frozen=True, slots=True)
class Target:
    """A table that holds a Z-set: its name, its columns, and the unique key if it has one.

    ``columns`` pairs each column's name in the table with the plan's column that fills it.
    """

    table: sql.Identifier
    columns: tuple[tuple[str, Column], ...]
    key: tuple[str, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    @property
    def hashed(self) -> tuple[str, ...]:
        """The columns of the content index: those whose types can be hashed."""
        return tuple(name for name, column in self.columns if column.type.hashable)

    @property
    def written(self) -> tuple[str, ...]:
        """What an update writes: all but the key, and of the key what may differ in equal values."""
        key = self.key or ()
        return tuple(name for name, column in self.columns if name not in key or not column.type.is_identity)

    @property
    def keyed_by_hash(self) -> bool:
        """Whether the key alone gives no index lookup for the rows to delete: several columns, some nullable."""
        keyed = [column for name, column in self.columns if self.key and name in self.key]
        loose = len(keyed) > 1 and any(not column.not_null for column in keyed)
        foreign = any(column.type.name is None for column in keyed)
        return (loose or foreign) and all(column.type.hashable for column in keyed)

    @property
    def content_index(self) -> tuple[str, ...] | None:
        """The columns of the hash index that lookups use, None when they use the key."""
        if self.key is None:
            return self.hashed or None
        return self.key if self.keyed_by_hash else None


def apply(target: Target, delta: sql.Composable, common: CommonTables, prefix: str = "") -> sql.Composable:
    """Add the WITH queries that put a consolidated delta into the target; the SELECT that counts what they wrote.

    The delta has the target's columns by name, and the weight.  ``prefix`` is for what a statement writes beside
    the stream table.
    """
    common.add(f"{prefix}f", delta)
    return _by_key(target, common, prefix) if target.key is not None else _by_content(target, common, prefix)


def _by_key(target: Target, common: CommonTables, prefix: str) -> sql.Composable:
    assert target.key is not None
    rows = sql.Identifier(f"{prefix}f")
    keys = common.add(
        f"{prefix}k",
        sql.SQL("SELECT {key}, bool_or({w} > 0) AS __pgt_stays FROM {f} GROUP BY {key}{order}").format(
            key=names(target.key),
            w=WEIGHT,
            f=rows,
            order=index_order(replace(column, name=name) for name, column in target.columns if name in target.key),
        ),
    )
    common.add_writing(
        f"{prefix}x",
        sql.SQL("DELETE FROM {table} AS t USING {k} AS k WHERE NOT k.__pgt_stays AND {match} RETURNING 1").format(
            table=target.table, k=keys, match=located(target, "t", "k", {name: name for name in target.key})
        ),
    )
    common.add_writing(
        f"{prefix}y",
        sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {f} WHERE {w} > 0 ORDER BY {key}"
            " ON CONFLICT ({key}) {action} RETURNING 1"
        ).format(
            table=target.table,
            f=rows,
            columns=names(target.names),
            w=WEIGHT,
            key=names(target.key),
            action=upsert_action(target),
        ),
    )
    return counted(sql.SQL("(SELECT count(*) FROM {k} WHERE NOT __pgt_stays)").format(k=keys), prefix)


def located(target: Target, table: str, rows: str, columns: dict[str, str]) -> sql.Composable:
    """Which rows of the target have the keys of others: an index lookup.  ``columns`` names the others' keys."""
    assert target.key is not None
    keyed = [(column, name, columns[name]) for name, column in target.columns if name in target.key]
    match = matches(keyed, table, rows)
    if not target.keyed_by_hash:
        return match
    same_hash = sql.SQL("{t} = {k}").format(
        t=row_hash(target.key, table), k=row_hash((columns[name] for name in target.key), rows)
    )
    return every([same_hash, match])


def upsert_action(target: Target) -> sql.Composable:
    """What to do with a row whose key is there."""
    if not target.written:
        return sql.SQL("DO NOTHING")
    return sql.SQL("DO UPDATE SET {assignments}").format(assignments=assignments(target.written, "excluded"))


def counted(expected: sql.Composable, prefix: str) -> sql.Composable:
    """The number of rows written, NULL when not as many were deleted as expected."""
    return sql.SQL(
        "SELECT CASE WHEN (SELECT count(*) FROM {x}) = {expected}"
        " THEN (SELECT count(*) FROM {x}) + (SELECT count(*) FROM {y}) END"
    ).format(expected=expected, x=sql.Identifier(f"{prefix}x"), y=sql.Identifier(f"{prefix}y"))


def _by_content(target: Target, common: CommonTables, prefix: str) -> sql.Composable:
    rows = sql.Identifier(f"{prefix}f")
    own = {name: name for name in target.names}
    gone = common.add(
        f"{prefix}v",
        sql.SQL(
            "SELECT c.ctid FROM {f} AS f CROSS JOIN LATERAL"
            " (SELECT t.ctid FROM {table} AS t WHERE {match} LIMIT -f.{w}) AS c WHERE f.{w} < 0"
        ).format(f=rows, table=target.table, match=same_row(target, "t", "f", own), w=WEIGHT),
    )
    common.add_writing(
        f"{prefix}x",
        sql.SQL("DELETE FROM {table} AS t USING {v} AS v WHERE t.ctid = v.ctid RETURNING 1").format(
            table=target.table, v=gone
        ),
    )
    common.add_writing(
        f"{prefix}y",
        sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {values} FROM {f} AS f CROSS JOIN generate_series(1, f.{w})"
            " WHERE f.{w} > 0 RETURNING 1"
        ).format(table=target.table, columns=names(target.names), values=names(target.names, "f"), w=WEIGHT, f=rows),
    )
    expected = sql.SQL("(SELECT coalesce(sum(-{w}), 0) FROM {f} WHERE {w} < 0)").format(w=WEIGHT, f=rows)
    return counted(expected, prefix)


def same_row(target: Target, table: str, rows: str, columns: dict[str, str]) -> sql.Composable:
    """Which rows of the target are identical to others, by an index if there is one; ``columns`` names the others'."""
    conditions: list[sql.Composable] = []
    if target.hashed:
        theirs = row_hash((columns[name] for name in target.hashed), rows)
        conditions.append(sql.SQL("{t} = {f}").format(t=row_hash(target.hashed, table), f=theirs))
    for name, column in target.columns:
        if column.type.identity is not Identity.NONE:
            conditions.append(matches([(column, name, columns[name])], table, rows))
        if not column.type.is_identity:
            one = identity_keys(column, sql.Identifier(table, name))[-1]
            other = identity_keys(column, sql.Identifier(rows, columns[name]))[-1]
            conditions.append(sql.SQL("{t} IS NOT DISTINCT FROM {f}").format(t=one, f=other))
    return every(conditions)


def insert_all(target: Target, rows: sql.Composable) -> sql.Composable:
    """Fill an empty table; yields the number of rows."""
    return sql.SQL(
        "WITH y AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM ({rows}) AS f RETURNING 1)"
        " SELECT count(*) FROM y"
    ).format(table=target.table, columns=names(target.names), rows=rows)


def renamed(target: Target, rows: sql.Composable) -> sql.Composable:
    """A plan's rows under the target's names, with the weight."""
    columns = listed(
        sql.SQL("{plan} AS {name}").format(plan=sql.Identifier(column.name), name=sql.Identifier(name))
        for name, column in target.columns
    )
    separator = sql.SQL(", ") if target.columns else sql.SQL("")
    return sql.SQL("SELECT {columns}{separator}{w} FROM ({rows}) AS o").format(
        columns=columns, separator=separator, w=WEIGHT, rows=rows
    )
