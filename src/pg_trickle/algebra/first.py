"""The first rows of each group, where a subquery with LIMIT has first rows for each outer row."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from pg_trickle.algebra.linear import Filter, Item, Project
from pg_trickle.algebra.order import DistinctOn, Order, TopK
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.algebra.window import Window
from pg_trickle.scalar import BOOL, INT8, Column, Scalar, column, composed


def first_of_each(plan: TopK, below: Plan, keys: tuple[str, ...], fresh: Callable[[str], str]) -> Plan:
    """The rows of ``below`` that ``plan`` would choose among those of each combination of ``keys``."""
    if plan.limit is not None and plan.limit.text == "1" and plan.offset is None and not plan.ties:
        return by_keys(DistinctOn(below, (), names(below), plan.order), below, keys)
    place, rank = (Column(fresh(name), INT8, not_null=True) for name in ("place", "rank"))
    over = _window(keys, plan.order)
    calls = (
        Item(place, composed(sql.SQL("row_number() {over}").format(over=over), _read(keys, plan), INT8)),
        Item(rank, composed(sql.SQL("rank() {over}").format(over=over), _read(keys, plan), INT8)),
    )
    numbered = Filter(Window(below, keys, names(below), calls), _chosen(plan, place, rank if plan.ties else place))
    return Project(numbered, tuple(Item(one, column(one)) for one in below.columns))


def by_keys(plan: DistinctOn, below: Plan, keys: tuple[str, ...]) -> DistinctOn:
    """The first rows of ``below`` by more keys.  The order must begin with all of them."""
    more = tuple(name for name in keys if name not in plan.keys)
    order = (*(Order(name, is_ascending=True, nulls_first=False) for name in more), *plan.order)
    return DistinctOn(below, plan.keys + more, names(below), order)


def _read(keys: tuple[str, ...], plan: TopK) -> frozenset[str]:
    return frozenset(keys) | {one.column for one in plan.order}


def _window(keys: tuple[str, ...], order: tuple[Order, ...]) -> sql.Composable:
    items = [
        sql.SQL("{column} {direction} {nulls}").format(
            column=sql.Identifier(one.column),
            direction=sql.SQL("ASC") if one.is_ascending else sql.SQL("DESC"),
            nulls=sql.SQL("NULLS FIRST") if one.nulls_first else sql.SQL("NULLS LAST"),
        )
        for one in order
    ]
    return sql.SQL("OVER (PARTITION BY {keys}{order})").format(
        keys=sql.SQL(", ").join(map(sql.Identifier, keys)),
        order=sql.SQL(" ORDER BY {items}").format(items=sql.SQL(", ").join(items)) if items else sql.SQL(""),
    )


def _chosen(plan: TopK, place: Column, last: Column) -> tuple[Scalar, ...]:
    """From the offset on, as many as the limit; no limit, or NULL, is none."""
    skipped = sql.SQL("0") if plan.offset is None else sql.SQL("coalesce(({n})::bigint, 0)").format(n=plan.offset.sql())
    found = [sql.SQL("{place} > {skipped}").format(place=sql.Identifier(place.name), skipped=skipped)]
    columns = [place]
    if plan.limit is not None:
        through = sql.SQL("({last} <= {skipped} + ({limit})::bigint) IS NOT FALSE")
        found.append(through.format(last=sql.Identifier(last.name), skipped=skipped, limit=plan.limit.sql()))
        columns.append(last)
    return tuple(composed(text, frozenset((one.name,)), BOOL) for text, one in zip(found, columns, strict=True))
