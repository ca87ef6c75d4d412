"""Rows of a table as values: ``to_jsonb(o)``, ``row_to_json(o)``, ``count(o)``, ``SELECT o``.

``o.*`` as a value is ``ROW(o.a, o.b, …)`` of the table's row type.  Not where an outer join may have padded it: such a
row is NULL as a whole, and ``ROW(NULL, NULL)`` isn't.  Nor of a derived table, whose row type has no name.
"""

from __future__ import annotations

from collections.abc import Iterator

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node, RangeVar, SelectStmt

from pg_trickle.catalog.model import RelationFact
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import kind, nodes, rebuilt, strings


def with_rows(statement: SelectStmt, context: Context) -> SelectStmt:
    """The statement with its tables' whole-row references spelled out."""
    if not any(_is_row(part) for part in nodes(statement)):
        return statement
    known = {alias: fact for item in statement.from_clause for alias, fact in _tables(item, context)}
    whole = Node()
    whole.select_stmt.CopyFrom(statement)
    return rebuilt(whole, lambda part: _spelled(part, known) if _is_row(part) else None).select_stmt


def _is_row(part: Node) -> bool:
    if kind(part) != "column_ref":
        return False
    *qualifier, last = part.column_ref.fields
    return len(qualifier) == 1 and kind(last) == "a_star"


def _tables(item: Node, context: Context) -> Iterator[tuple[str, RelationFact]]:
    """The tables of an item of FROM, by alias, whose rows are certainly there."""
    match kind(item):
        case "range_var":
            fact = _fact(item.range_var, context)
            if fact is not None and not item.range_var.alias.colnames:
                yield item.range_var.alias.aliasname or fact.name, fact
        case "join_expr":
            join = item.join_expr
            if join.jointype in {kinds.JOIN_INNER, kinds.JOIN_LEFT}:
                yield from _tables(join.larg, context)
            if join.jointype in {kinds.JOIN_INNER, kinds.JOIN_RIGHT}:
                yield from _tables(join.rarg, context)


def _fact(named: RangeVar, context: Context) -> RelationFact | None:
    facts = context.request.relations
    return next((one for one in facts if (one.schema, one.name) == (named.schemaname, named.relname)), None)


def _spelled(part: Node, known: dict[str, RelationFact]) -> Node | None:
    (alias,) = strings(list(part.column_ref.fields)[:1])
    fact = known.get(alias)
    if fact is None:
        return None
    made = Node()
    cast = made.type_cast
    cast.location = part.column_ref.location
    for name in (fact.schema, fact.name):
        cast.type_name.names.add().string.sval = name
    cast.type_name.typemod = -1
    cast.arg.row_expr.row_format = kinds.COERCE_EXPLICIT_CALL
    for one in fact.columns:
        reference = cast.arg.row_expr.args.add().column_ref
        for name in (alias, one.name):
            reference.fields.add().string.sval = name
    return made
