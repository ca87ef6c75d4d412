"""Items of FROM that read no table: functions, VALUES, JSON_TABLE, XMLTABLE, LATERAL subqueries over constants.

Whatever stands in them, PostgreSQL evaluates it row by row.  So they are kept as text in which only
the references to the row's columns are replaced (ALGEBRA.md §2).
"""

from __future__ import annotations

from collections.abc import Iterator

import postgast
from google.protobuf.message import Message
from postgast.pg_query_pb2 import JTC_FOR_ORDINALITY, JTC_REGULAR, Alias, Node, ParseResult, SelectStmt
from psycopg import sql

from pg_trickle.algebra.lateral import ITEM, ROW, Lateral
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Unit
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.moments import is_time
from pg_trickle.parse.query import ParseQuery
from pg_trickle.parse.scope import LOWERED, Context, Entry, Scope
from pg_trickle.parse.subqueries import Lowering
from pg_trickle.parse.tree import (
    column_reference,
    inner,
    is_risky,
    kind,
    location,
    messages,
    nodes,
    outside_subqueries,
    placeless,
    rebuilt,
    shielded,
    strings,
    written,
)
from pg_trickle.parse.types import Types, declared, named
from pg_trickle.parse.undecided import leaves_rows_out, unordered
from pg_trickle.scalar import INT4, INT8, TEXT, UNKNOWN, Column, Scalar, Type, column, composed

FUNCTIONS = frozenset({"range_function", "json_table", "range_table_func"})
# Functions whose result has several columns, of types that the query doesn't tell.
_RECORDS = {
    "json_each_text": (TEXT, TEXT),
    "jsonb_each_text": (TEXT, TEXT),
    "json_each": (TEXT, UNKNOWN),
    "jsonb_each": (TEXT, named("jsonb")),
}


def is_lateral(node: Node) -> bool:
    """Whether an item of FROM depends on nothing but the row to its left."""
    if kind(node) == "range_subselect":
        return node.range_subselect.lateral and not reads_tables(node)
    return kind(node) in FUNCTIONS and not reads_tables(node)


def reads_tables(message: Message) -> bool:
    """Whether a part of the query names a table, a view, or a WITH query from outside of it."""
    parts = list(nodes(message))
    own = {part.common_table_expr.ctename for part in parts if kind(part) == "common_table_expr"}
    tables = (part.range_var for part in parts if kind(part) == "range_var")
    return any(table.schemaname or table.relname not in own for table in tables)


def refers(node: Node, scope: Scope) -> bool:
    """Whether an item of FROM names what stands to its left."""
    if kind(node) == "range_subselect" and not node.range_subselect.lateral:
        return False
    return any(_is_outer(part, node, scope) for part in nodes(node))


def lateral(node: Node, plan: Plan, scope: Scope, context: Context) -> tuple[Lateral, Scope]:
    """The plan beside an item that reads nothing but its rows; and the names that the item brings."""
    _check(node)
    _check_aggregates(node, scope, context)
    bound, used = _bound(_with_names(node), scope)
    types = Types(context.request.functions, lambda name: used[name[-1]])
    described = list(_described(bound, types))
    made = tuple(Column(context.namer.fresh(name), of) for name, of in described)
    alias = _alias(bound).aliasname
    _rename(bound, [one.name for one in made])
    numbered = kind(node) == "range_function" and node.range_function.ordinality
    item = Scalar(_printed(bound), frozenset(used), UNKNOWN)
    names = tuple((name, one) for (name, _), one in zip(described, made, strict=True))
    beside = Lateral(plan, item, made, ordinal=made[-1].name if numbered else None)
    return beside, Scope((Entry(alias, names),))


def over_subqueries(node: Node, plan: Plan, scope: Scope, context: Context, parse: ParseQuery) -> tuple[Lateral, Scope]:
    """The same of an item whose arguments contain subqueries: those are columns of the plan that it stands beside."""
    lowering = Lowering(plan, scope, context, parse)
    item = lowering.value(node)
    return lateral(item, lowering.plan, lowering.scope, context)


def values(statement: SelectStmt, context: Context, parse: ParseQuery) -> tuple[Lateral, Scope]:
    """VALUES as a query of its own: rows that are made of those of a query around, of subqueries, or never change."""
    node = Node()
    node.range_subselect.lateral = True
    node.range_subselect.subquery.select_stmt.CopyFrom(statement)
    del node.range_subselect.subquery.select_stmt.sort_clause[:]
    return over_subqueries(node, Unit(), Scope(outer=context.outer), context, parse)


def sets(plan: Plan, items: list[tuple[str, Scalar]], context: Context) -> tuple[Lateral, list[Scalar]]:
    """Expressions that return sets, in lock step and shorter ones padded, as a subquery over the row alone has them.

    ``items`` pairs each with a name for its column.
    """
    made = tuple(Column(context.namer.fresh(name), value.type) for name, value in items)
    text = sql.SQL("LATERAL (SELECT {values}) AS {item}({names})").format(
        values=sql.SQL(", ").join(value.sql() for _, value in items),
        item=sql.Identifier(ITEM),
        names=sql.SQL(", ").join(sql.Identifier(one.name) for one in made),
    )
    used = frozenset(name for _, value in items for name in value.columns)
    return Lateral(plan, composed(text, used, UNKNOWN), made), [column(one) for one in made]


def _check(node: Node) -> None:
    for part in nodes(node):
        if kind(part) == "sqlvalue_function" or is_time(part):
            raise UnsupportedQuery(
                "time or session value",
                "it changes without any row changing.",
                hint="Leave it out, and compute with it where you read the stream table.",
                position=location(part),
            )
    for statement in _statements(node):
        if leaves_rows_out(statement) and not statement.sort_clause:
            raise unordered(statement)


def _check_aggregates(node: Node, scope: Scope, context: Context) -> None:
    """Refuse aggregates that only read what is outside of the item: a query around computes them.

    What a subquery in one reads of the item may be of the subquery alone, and say nothing about whose the aggregate is.
    """
    for part in nodes(node):
        if not context.aggregates(part):
            continue
        near, read = (
            [one for one in where(part) if kind(one) == "column_ref"] for where in (outside_subqueries, nodes)
        )
        if any(_is_outer(one, node, scope) for one in read) and all(_is_outer(one, node, scope) for one in near):
            raise UnsupportedQuery(
                "aggregate of a query around", "all that it reads is of that query.", position=location(part)
            )


def _statements(message: Message) -> Iterator[SelectStmt]:
    """Every SELECT at or below a message, also the branches of set operations."""
    for part in nodes(message):
        if kind(part) == "select_stmt":
            pending = [part.select_stmt]
            while pending:
                statement = pending.pop()
                yield statement
                pending += [getattr(statement, side) for side in ("larg", "rarg") if statement.HasField(side)]


def _is_outer(part: Node, item: Node, scope: Scope) -> bool:
    """Whether a reference means a column to the item's left.

    PostgreSQL's printer qualifies every name below the outermost FROM, and never uses an alias twice;
    only columns merged by USING go without one.
    """
    if kind(part) != "column_ref":
        return False
    name = strings(list(part.column_ref.fields))
    if len(name) > 1:
        return name[0] == LOWERED or any(level.knows(name[0]) for level in scope.levels)
    if any(known == name[0] for known, _ in scope.merged):
        return not any(kind(other) == "join_expr" for other in nodes(item))
    is_nested = any(kind(other) in {"range_subselect", "sub_link"} for other in nodes(item))
    return not is_nested and any(True for entry in scope.entries for _ in entry.find(name[0]))


def _bound(node: Node, scope: Scope) -> tuple[Node, dict[str, Column]]:
    """The item with every reference to its left replaced by the plan's column; and those columns by name."""
    used: dict[str, Column] = {}

    def replace(part: Node) -> Node | None:
        if not _is_outer(part, node, scope):
            return None
        found = scope.resolve(strings(list(part.column_ref.fields)))
        used[found.name] = found
        return column_reference(ROW, found.name)

    return rebuilt(node, replace), used


def _alias(node: Node) -> Alias:
    alias: Alias = inner(node).alias  # type: ignore[attr-defined]
    return alias


def _rename(node: Node, names: list[str]) -> None:
    """Give the item the plan's names.

    Those in a column definition list stay: jsonb_to_record() and its like look for values by them.
    """
    alias = _alias(node)
    alias.aliasname = ITEM
    del alias.colnames[:]
    if kind(node) == "range_function" and node.range_function.coldeflist:
        function = node.range_function
        function.functions[0].list.items[1].list.items.extend(function.coldeflist)
        del function.coldeflist[:]
        function.is_rowsfrom = True
    for name in names:
        alias.colnames.add().string.sval = name


def _printed(node: Node) -> str:
    """The item as SQL; what the printer would spoil is refused."""
    match kind(node):
        case "json_table":
            # It is so without saying.
            node.json_table.lateral = False
        case "range_table_func" if kind(node.range_table_func.docexpr) not in {"column_ref", "a_const"}:
            # The printer leaves out the parentheses that any other expression needs.
            document = Node()
            document.coalesce_expr.args.add().CopyFrom(node.range_table_func.docexpr)
            node.range_table_func.docexpr.CopyFrom(document)
    node = written(node)
    if any(map(is_risky, nodes(node))):
        node = shielded(node)
    statement = ParseResult()
    statement.stmts.add().stmt.select_stmt.from_clause.add().CopyFrom(node)
    text = str(postgast.deparse(statement))
    try:
        again = postgast.parse(text).stmts[0].stmt.select_stmt.from_clause[0]
    except postgast.PgQueryError:
        again = Node()
    if placeless(again) != placeless(node):
        raise UnsupportedQuery(kind(node).replace("_", " ").upper(), "its text can't be printed faithfully.")
    return text.removeprefix("SELECT").removeprefix(" ").removeprefix("FROM ")


def _with_names(node: Node) -> Node:
    """The item, the names of all outputs in it written out: what they refer to will be called otherwise."""
    made = Node()
    made.CopyFrom(node)
    for statement in [part for part in messages(made) if isinstance(part, SelectStmt)]:
        for target in statement.target_list:
            target.res_target.name = _name(target)
    return made


def _described(node: Node, types: Types) -> Iterator[tuple[str, Type]]:
    """Names and types of the columns that an item makes."""
    aliases = strings(list(_alias(node).colnames))
    match kind(node):
        case "range_function":
            found = _of_functions(node, aliases, types)
        case "json_table":
            found = _of_paths(list(node.json_table.columns))
        case "range_table_func":
            found = [_of_xml(part) for part in node.range_table_func.columns]
        case _:
            found = _of_subquery(node.range_subselect.subquery.select_stmt, types)
    names = (*aliases, *(name for name, _ in found[len(aliases) :]))
    yield from ((name, of) for name, (_, of) in zip(names, found, strict=True))


def _of_functions(node: Node, aliases: tuple[str, ...], types: Types) -> list[tuple[str, Type]]:
    item = node.range_function
    if item.coldeflist:
        return [(part.column_def.colname, declared(part.column_def.type_name)) for part in item.coldeflist]
    calls = [function.list.items[0] for function in item.functions]
    defined = any(kind(function.list.items[1]) for function in item.functions)
    width = len(aliases) - (1 if item.ordinality else 0)
    found = [types.of(call) for call in calls]
    if len(calls) == 1 and kind(calls[0]) == "func_call":
        name = strings(list(calls[0].func_call.funcname))
        found = list(_RECORDS.get(name[-1], found)) if len(name) == 1 or name[0] == "pg_catalog" else found
    certain = not defined and len(found) == width and (len(calls) == 1 or all(of.name for of in found))
    shown = [*(found if certain else [UNKNOWN] * width), *([INT8] if item.ordinality else [])]
    return list(zip(aliases, shown, strict=True))


def _of_paths(columns: list[Node]) -> list[tuple[str, Type]]:
    found: list[tuple[str, Type]] = []
    for part in columns:
        one = part.json_table_column
        if one.columns:
            found += _of_paths(list(one.columns))
        elif one.coltype == JTC_FOR_ORDINALITY:
            found.append((one.name, INT4))
        else:
            found.append((one.name, declared(one.type_name) if one.coltype == JTC_REGULAR else UNKNOWN))
    return found


def _of_xml(part: Node) -> tuple[str, Type]:
    one = part.range_table_func_col
    return one.colname, INT4 if one.for_ordinality else declared(one.type_name)


def _of_subquery(statement: SelectStmt, types: Types) -> list[tuple[str, Type]]:
    if statement.values_lists:
        rows = [row.list.items for row in statement.values_lists]
        return [(f"column{place}", types.common(list(parts))) for place, parts in enumerate(zip(*rows, strict=True), 1)]
    statement = _first_branch(statement)
    if statement.values_lists:
        return [(f"column{place}", UNKNOWN) for place, _ in enumerate(statement.values_lists[0].list.items, 1)]
    # What a name inside means is PostgreSQL's business, so nothing is certain about the types.
    return [(_name(target), UNKNOWN) for target in statement.target_list]


def _first_branch(statement: SelectStmt) -> SelectStmt:
    return _first_branch(statement.larg) if statement.HasField("larg") else statement


def _name(target: Node) -> str:
    value = target.res_target.val
    implied = value.column_ref.fields[-1].string.sval if kind(value) == "column_ref" else "?column?"
    return target.res_target.name or implied
