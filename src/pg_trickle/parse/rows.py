"""Rows of a table as values: ``to_jsonb(o)``, ``row_to_json(o)``, ``count(o)``, ``SELECT o``.

``o.*`` as a value is ``ROW(o.a, o.b, …)`` of the table's row type.  Where an outer join may have padded it, such a row
is NULL as a whole, and ``ROW(NULL, NULL)`` isn't; a column that is NOT NULL tells which it is.  Not of a derived table,
whose row type has no name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node, RangeVar, SelectStmt

from pg_trickle.catalog.model import RelationFact
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import column_reference, kind, nodes, rebuilt, strings


def with_rows(statement: SelectStmt, context: Context) -> SelectStmt:
    """The statement with its tables' whole-row references spelled out."""
    if not any(_is_row(part) for part in nodes(statement)):
        return statement
    known = {one.alias: one for item in statement.from_clause for one in _tables(item, context, padded=False)}
    whole = Node()
    whole.select_stmt.CopyFrom(statement)
    return rebuilt(whole, lambda part: _spelled(part, known) if _is_row(part) else None).select_stmt


def _is_row(part: Node) -> bool:
    if kind(part) != "column_ref":
        return False
    *qualifier, last = part.column_ref.fields
    return len(qualifier) == 1 and kind(last) == "a_star"


@dataclass(frozen=True, slots=True)
class _Table:
    """A table in FROM; if an outer join may have ``padded`` its rows, some column tells where it has."""

    alias: str
    fact: RelationFact
    padded: bool

    @property
    def certain(self) -> str | None:
        """A column that isn't NULL in any row of the table."""
        if self.fact.kind not in {"table", "partitioned"}:
            return None
        return next((one.name for one in self.fact.columns if one.not_null), None)


def _tables(item: Node, context: Context, *, padded: bool) -> Iterator[_Table]:
    """The tables of an item of FROM whose rows are certainly there, or tell where they aren't."""
    match kind(item):
        case "range_var":
            fact = _fact(item.range_var, context)
            if fact is not None and not item.range_var.alias.colnames:
                table = _Table(item.range_var.alias.aliasname or fact.name, fact, padded)
                if not padded or table.certain is not None:
                    yield table
        case "join_expr":
            join = item.join_expr
            left = join.jointype in {kinds.JOIN_RIGHT, kinds.JOIN_FULL}
            right = join.jointype in {kinds.JOIN_LEFT, kinds.JOIN_FULL}
            yield from _tables(join.larg, context, padded=padded or left)
            yield from _tables(join.rarg, context, padded=padded or right)


def _fact(named: RangeVar, context: Context) -> RelationFact | None:
    facts = context.request.relations
    return next((one for one in facts if (one.schema, one.name) == (named.schemaname, named.relname)), None)


def _spelled(part: Node, known: dict[str, _Table]) -> Node | None:
    (alias,) = strings(list(part.column_ref.fields)[:1])
    table = known.get(alias)
    if table is None:
        return None
    row = _row(part, alias, table.fact)
    if not table.padded or table.certain is None:
        return row
    made = Node()
    when = made.case_expr.args.add().case_when
    when.expr.null_test.arg.CopyFrom(column_reference(alias, table.certain))
    when.expr.null_test.nulltesttype = kinds.IS_NOT_NULL
    when.result.CopyFrom(row)
    return made


def _row(part: Node, alias: str, fact: RelationFact) -> Node:
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
