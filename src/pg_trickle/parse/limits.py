"""DISTINCT ON, and ORDER BY with LIMIT: the SELECT without them, and the choice of rows over it."""

from __future__ import annotations

from collections.abc import Callable

from postgast.pg_query_pb2 import (
    LIMIT_OPTION_COUNT,
    LIMIT_OPTION_WITH_TIES,
    SETOP_NONE,
    SORTBY_DESC,
    SORTBY_NULLS_DEFAULT,
    SORTBY_NULLS_FIRST,
    SORTBY_USING,
    Node,
    SelectStmt,
    SortBy,
)
from psycopg import sql

from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.order import DistinctOn, Order, TopK
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.expressions import scalar
from pg_trickle.parse.query import Query
from pg_trickle.parse.scope import Context, Expected, Scope
from pg_trickle.parse.tree import fields, kind, location, printed
from pg_trickle.parse.undecided import is_null, is_some, is_zero, leaves_rows_out, unordered
from pg_trickle.scalar import INT8, Scalar, column, composed
from pg_trickle.uniqueness import is_single

ParseWhole = Callable[[SelectStmt, Context, Expected], Query]


def chooses_rows(statement: SelectStmt) -> bool:
    """Whether the SELECT shows only some of its rows, by their order."""
    return statement.HasField("limit_count") or statement.HasField("limit_offset") or _is_distinct_on(statement)


def _is_distinct_on(statement: SelectStmt) -> bool:
    return any(kind(node) for node in statement.distinct_clause)


def chosen(statement: SelectStmt, context: Context, expected: Expected, parse: ParseWhole) -> Query:
    """The SELECT's query; ``parse`` parses what is left without the clauses that choose rows."""
    inner = SelectStmt()
    inner.CopyFrom(statement)
    for name in ("sort_clause", "limit_count", "limit_offset", "with_clause"):
        inner.ClearField(name)
    inner.limit_option = LIMIT_OPTION_COUNT
    if _is_distinct_on(statement):
        inner.ClearField("distinct_clause")
    shown = _width(statement)
    order = [(_place(node, inner), sort) for item in statement.sort_clause for node, sort in _by_fields(item.sort_by)]
    on = [_place(node, inner) for item in statement.distinct_clause for node in fields(item) if kind(item)]
    query = parse(inner, context, expected)
    by_place = [made.name for _, made in query.outputs]
    plan = query.plan
    ordered = tuple(_order(by_place[place], item) for place, item in order)
    if on:
        plan = DistinctOn(plan, tuple(dict.fromkeys(by_place[place] for place in on)), names(plan), ordered)
    plan = _limited(statement, plan, ordered, context)
    outputs = query.outputs if shown is None else query.outputs[:shown]
    if len(outputs) < len(query.outputs):
        plan = Project(plan, tuple(Item(made, column(made)) for _, made in outputs))
    return Query(plan, outputs)


def _width(statement: SelectStmt) -> int | None:
    """How many columns a plain SELECT shows; a set operation shows all it has."""
    return len(statement.target_list) if statement.op == SETOP_NONE else None


def _by_fields(item: SortBy) -> list[tuple[Node, SortBy]]:
    """What an item of ORDER BY orders by: fields, where it is a row, which no table stores.

    A row that is written down is never NULL, and among fields, NULL is the largest value.
    """
    parts = fields(item.node)
    if parts == [item.node]:
        return [(item.node, item)]
    made = SortBy()
    made.CopyFrom(item)
    made.sortby_nulls = SORTBY_NULLS_DEFAULT
    return [(field, made) for field in parts]


def _place(node: Node, inner: SelectStmt) -> int:
    """Which output an item of ORDER BY or DISTINCT ON means; one more of the inner SELECT's if it isn't shown."""
    if kind(node) == "a_const" and node.a_const.WhichOneof("val") == "ival":
        return int(node.a_const.ival.ival) - 1
    targets = [target.res_target for target in _first_branch(inner).target_list]
    if kind(node) == "column_ref" and len(node.column_ref.fields) == 1:
        name = node.column_ref.fields[0].string.sval
        for place, target in enumerate(targets):
            if name == (target.name or _own_name(target.val)):
                return place
    text = printed(node)
    for place, target in enumerate(targets):
        if printed(target.val) == text:
            return place
    if inner.op != SETOP_NONE or inner.distinct_clause:
        raise UnsupportedQuery("ORDER BY", "it names no output of the query.", position=location(node))
    made = inner.target_list.add().res_target
    made.name = "sort"
    made.val.CopyFrom(node)
    return len(targets)


def _first_branch(statement: SelectStmt) -> SelectStmt:
    return statement if statement.op == SETOP_NONE else _first_branch(statement.larg)


def _own_name(node: Node) -> str:
    return node.column_ref.fields[-1].string.sval if kind(node) == "column_ref" else ""


def _order(name: str, item: SortBy) -> Order:
    if item.sortby_dir == SORTBY_USING:
        raise UnsupportedQuery("ORDER BY … USING", "its operator says nothing about where NULLs go.")
    ascending = item.sortby_dir != SORTBY_DESC
    nulls_first = (
        not ascending if item.sortby_nulls == SORTBY_NULLS_DEFAULT else item.sortby_nulls == SORTBY_NULLS_FIRST
    )
    return Order(name, ascending, nulls_first)


def _limited(statement: SelectStmt, plan: Plan, order: tuple[Order, ...], context: Context) -> Plan:
    if not leaves_rows_out(statement):
        return plan
    limit = _number(statement.limit_count, context) if statement.HasField("limit_count") else None
    single = is_single(plan)
    skips = statement.HasField("limit_offset") and not is_zero(statement.limit_offset)
    offset = _number(statement.limit_offset, context) if skips else None
    if single and offset is None and limit is not None and is_some(statement.limit_count):
        return plan
    if not order and not single:
        raise unordered(statement)
    ties = statement.limit_option == LIMIT_OPTION_WITH_TIES
    if limit is None or offset is None:
        return TopK(plan, order, limit, offset, ties)
    template = sql.SQL("({limit})::bigint + coalesce(({offset})::bigint, 0)")
    through = composed(template.format(limit=limit.sql(), offset=offset.sql()), frozenset(), INT8)
    return TopK(TopK(plan, order, through, None, ties), order, limit, offset, ties)


def _number(node: Node, context: Context) -> Scalar | None:
    """A number of rows, None for LIMIT ALL."""
    return None if is_null(node) else scalar(node, Scope(), context)
