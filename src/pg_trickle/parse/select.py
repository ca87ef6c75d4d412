"""SELECT, as a whole: the entry point of parsing."""

from __future__ import annotations

from dataclasses import replace

from postgast.pg_query_pb2 import SETOP_NONE, Node, SelectStmt

from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.plan import Plan
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import QueryTooComplex, UnsupportedQuery
from pg_trickle.parse import fallback
from pg_trickle.parse.built_rows import with_built_rows
from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.common_tables import common_tables
from pg_trickle.parse.expressions import SpellingTold, returns_set
from pg_trickle.parse.from_clause import from_clause
from pg_trickle.parse.grouped import grouped
from pg_trickle.parse.implied import with_implied
from pg_trickle.parse.laterals import sets, values
from pg_trickle.parse.length import check_length, most_leaves
from pg_trickle.parse.limits import chooses_rows, chosen
from pg_trickle.parse.presorted import with_choice, with_presorted
from pg_trickle.parse.query import Query
from pg_trickle.parse.rows import with_rows
from pg_trickle.parse.scope import Context, Expected, Namer
from pg_trickle.parse.set_operations import distinct, set_operation
from pg_trickle.parse.subqueries import Lowering
from pg_trickle.parse.told_moments import with_moments
from pg_trickle.parse.tree import (
    conjuncts,
    kind,
    located,
    location,
    nodes,
    only,
    outside_subqueries,
    printed,
)
from pg_trickle.parse.undecided import locked
from pg_trickle.parse.windows import is_windowed, windowed
from pg_trickle.scalar import Column, Scalar

MAX_NODES = 20_000

_SELECT = frozenset({
    "distinct_clause", "target_list", "from_clause", "where_clause", "group_clause", "group_distinct", "having_clause",
    "sort_clause", "with_clause", "limit_option", "op",
})  # fmt: skip
_VALUES = frozenset({"values_lists", "sort_clause", "limit_option", "op"})


def parse(request: CompileRequest) -> Query:
    """The defining query as algebra; raises UnsupportedQuery for what has no delta rule."""
    statement = parse_select(request.query)
    if sum(1 for _ in nodes(statement)) > MAX_NODES:
        raise QueryTooComplex("defining query too complex", detail=f"It has more than {MAX_NODES} parts.")
    views = (parse_select(one) for one in request.texts[1:])
    context = Context(request, Namer(), most_leaves=most_leaves((statement, *views)))
    try:
        return _whole(statement, context)
    except SpellingTold:
        return _whole(statement, replace(context, namer=Namer(), parsed={}, borrowed={}, spelt=True))


def _whole(statement: SelectStmt, context: Context) -> Query:
    query = _query(statement, context, context.request.columns)
    with located(statement):
        check_length(query.plan, context.most_leaves)
    return replace(query, borrowed=tuple(context.borrowed))


def _query(statement: SelectStmt, context: Context, expected: Expected = None) -> Query:
    with located(statement):
        spelled = with_rows(with_built_rows(statement, context), context)
        return _located_query(with_moments(spelled, context), context, expected)


def _located_query(statement: SelectStmt, context: Context, expected: Expected) -> Query:
    context = replace(context, ctes=common_tables(statement, context))
    statement = with_presorted(with_choice(statement, context), context)
    if chooses_rows(statement):
        return chosen(statement, context, expected, _query)
    if statement.locking_clause:
        raise locked(statement)
    if statement.values_lists:
        only(statement, _VALUES, "VALUES")
        constant, scope = values(statement, context, _nested)
        return Query(constant, scope.entries[0].columns)
    if statement.op != SETOP_NONE:
        return set_operation(statement, context, expected, _query)
    only(statement, _SELECT, "SELECT")
    return _plain(statement, context, expected)


def _nested(statement: SelectStmt, context: Context) -> Query:
    try:
        return _query(statement, context)
    except UnsupportedQuery as refusal:
        if context.outer is not None:
            # It may refer to the query around it, whose rows its text by itself doesn't know.
            raise
        return fallback.part(statement, context, refusal)


def _plain(statement: SelectStmt, context: Context, expected: Expected = None) -> Query:
    targets = [node.res_target for node in statement.target_list]
    if is_windowed(statement):
        plan, outputs = windowed(statement, context, expected, _plain)
    else:
        plan, outputs = _unwindowed(statement, context, by_value=expected is not None)
    names = tuple(target.name or _implied_name(target.val) for target in targets)
    _check_order(statement, context)
    query = _projected(*_without_sets(plan, names, outputs, context), context.namer)
    if not statement.distinct_clause:
        return query
    if any(kind(target.val) == "row_expr" for target in targets):
        raise UnsupportedQuery("DISTINCT of rows", "no column can store a row without a type.")
    plan = distinct(query.plan, context.namer, by_value=expected is not None or not context.spelt)
    shown = zip(query.outputs, plan.columns, strict=True)
    return Query(plan, tuple((name, _of_group(one, made)) for (name, one), made in shown))


def _of_group(below: Column, made: Column) -> Column:
    """What DISTINCT shows of a column: one of several equal values, or as it reads in a row that is there."""
    return replace(below, type=below.type.of_group) if made.name == below.name else made


def _check_order(statement: SelectStmt, context: Context) -> None:
    """ORDER BY may make rows: a set-returning expression that isn't in the select list multiplies them."""
    listed = [printed(target.res_target.val) for target in statement.target_list]
    for node in statement.sort_clause:
        key = node.sort_by.node
        if returns_set(key, context) and printed(key) not in listed:
            raise UnsupportedQuery(
                "set-returning ORDER BY", "it makes rows that the select list doesn't show.", position=location(key)
            )


def _without_sets(
    plan: Plan, names: tuple[str, ...], values: tuple[Scalar, ...], context: Context
) -> tuple[Plan, tuple[str, ...], tuple[Scalar, ...]]:
    """The set-returning outputs made below, so that what is left has a row a row."""
    places = [place for place, value in enumerate(values) if value.returns_set]
    if not places:
        return plan, names, values
    beside, made = sets(plan, [(names[place], values[place]) for place in places], context)
    shown = dict(zip(places, made, strict=True))
    return beside, names, tuple(shown.get(place, value) for place, value in enumerate(values))


def _unwindowed(statement: SelectStmt, context: Context, *, by_value: bool) -> tuple[Plan, tuple[Scalar, ...]]:
    """The plan before the outputs are computed, and the outputs over it; ``by_value``: nothing reads them any more."""
    plan, scope = from_clause(list(statement.from_clause), context, _nested)
    lowering = Lowering(plan, replace(scope, outer=context.outer), context, _nested)
    conditions = conjuncts(statement.where_clause) if statement.HasField("where_clause") else ()
    lowering.keep(with_implied(conditions))
    listed = [node.res_target.val for node in statement.target_list]
    if _is_grouped(statement, context):
        lowering, listed = grouped(statement, lowering, by_value=by_value)
    outputs = tuple(map(lowering.scalar, listed))
    return lowering.plan, outputs


def _is_grouped(statement: SelectStmt, context: Context) -> bool:
    if statement.group_clause or statement.HasField("having_clause"):
        return True
    return any(context.aggregates(node) for target in statement.target_list for node in outside_subqueries(target))


def _implied_name(node: Node) -> str:
    return node.column_ref.fields[-1].string.sval if kind(node) == "column_ref" else "?column?"


def _projected(plan: Plan, names: tuple[str, ...], values: tuple[Scalar, ...], namer: Namer) -> Query:
    items = []
    taken: set[str] = set()
    known = {one.name for one in plan.columns}
    for name, value in zip(names, values, strict=True):
        # A column passed through keeps its name, unless it is passed through twice or comes from a query around.
        own = next(iter(value.columns)) if value.is_column else ""
        made = own if own in known and own not in taken else namer.fresh(name)
        taken.add(made)
        items.append(Item(Column(made, value.type, value.not_null), value))
    outputs = tuple((name, item.column) for name, item in zip(names, items, strict=True))
    return Query(Project(plan, tuple(items)), outputs)
