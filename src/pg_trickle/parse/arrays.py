"""ARRAY(subquery): an array_agg of what the subquery selects, in its order."""

from __future__ import annotations

from collections.abc import Callable

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node, SelectStmt, SortBy
from psycopg import sql

from pg_trickle.algebra.aggregate import Call, Rule
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.limits import chooses_rows
from pg_trickle.parse.presorted import sorted_as_below
from pg_trickle.parse.query import Query
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import kind, printed
from pg_trickle.scalar import UNKNOWN, Column, composed

_DIRECTIONS = {
    kinds.SORTBY_DEFAULT: sql.SQL(""),
    kinds.SORTBY_ASC: sql.SQL(""),
    kinds.SORTBY_DESC: sql.SQL(" DESC"),
}
_NULLS = {
    kinds.SORTBY_NULLS_DEFAULT: sql.SQL(""),
    kinds.SORTBY_NULLS_FIRST: sql.SQL(" NULLS FIRST"),
    kinds.SORTBY_NULLS_LAST: sql.SQL(" NULLS LAST"),
}


def array_of(statement: SelectStmt, parse: Callable[[SelectStmt], Query], context: Context) -> tuple[Query, Call]:
    """The subquery with what it is sorted by among its outputs, and the aggregate that makes the array."""
    statement = sorted_as_below(statement, context)
    listed, places = _sorted_outputs(statement)
    query = parse(listed)
    columns = [one.name for _, one in query.outputs]
    order = [_key(columns[place], node.sort_by) for place, node in zip(places, statement.sort_clause, strict=True)]
    text = sql.SQL("pg_catalog.array_agg({value}{order})").format(
        value=sql.Identifier(columns[0]),
        order=sql.SQL(" ORDER BY {keys}").format(keys=sql.SQL(", ").join(order)) if order else sql.SQL(""),
    )
    read = frozenset(columns[place] for place in (0, *places))
    value = composed(text, read, UNKNOWN)
    return query, Call(Column(context.namer.fresh("array"), UNKNOWN), Rule.RECOMPUTE, value)


def _sorted_outputs(statement: SelectStmt) -> tuple[SelectStmt, list[int]]:
    """The statement that selects its sort keys too, and the places of those; ordered only to choose rows."""
    listed = SelectStmt()
    listed.CopyFrom(statement)
    if not chooses_rows(statement):
        listed.ClearField("sort_clause")
    places = []
    for node in statement.sort_clause:
        key = node.sort_by.node
        place = _listed_at(key, listed)
        if place is None:
            if statement.op != kinds.SETOP_NONE or statement.distinct_clause:
                raise UnsupportedQuery("ARRAY(subquery) in this order", "it is not sorted by what it selects.")
            listed.target_list.add().res_target.val.CopyFrom(key)
            place = len(listed.target_list) - 1
        places.append(place)
    return listed, places


def _listed_at(key: Node, statement: SelectStmt) -> int | None:
    """Where an ORDER BY key stands in the select list: by number, by name or as the same expression."""
    if kind(key) == "a_const" and key.a_const.WhichOneof("val") == "ival":
        return int(key.a_const.ival.ival) - 1
    targets = [node.res_target for node in statement.target_list]
    if kind(key) == "column_ref" and len(key.column_ref.fields) == 1:
        name = key.column_ref.fields[0].string.sval
        named = [place for place, target in enumerate(targets) if target.name == name]
        if named:
            return named[0]
    texts = [printed(target.val) for target in targets]
    return texts.index(printed(key)) if printed(key) in texts else None


def _key(name: str, sort: SortBy) -> sql.Composable:
    if sort.sortby_dir not in _DIRECTIONS:
        raise UnsupportedQuery("ARRAY(subquery) with ORDER BY … USING", "no rule knows this order.")
    return sql.SQL("{name}{direction}{nulls}").format(
        name=sql.Identifier(name), direction=_DIRECTIONS[sort.sortby_dir], nulls=_NULLS[sort.sortby_nulls]
    )
