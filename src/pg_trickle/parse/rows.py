"""Rows of FROM as values: ``to_jsonb(o)``, ``row_to_json(o)``, ``count(o)``, ``SELECT o``.

``o.*`` as a value is ``ROW(o.a, o.b, …)`` of the table's row type.  That of a derived table, or of a WITH query, has no
name, but its fields have: it is a row with these (``tree.named_row``).  Where an outer join may have padded it, such a
row is NULL as a whole, and ``ROW(NULL, NULL)`` isn't.  A table's column that is NOT NULL tells which it is; what has
none is made a derived table that has, ``(SELECT o.a, o.b, …, true AS there FROM … AS o) AS o``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import CommonTableExpr, Node, RangeVar, SelectStmt

from pg_trickle.catalog.model import RelationFact
from pg_trickle.parse.fallback import output_names
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import column_reference, kind, named_row, nodes, rebuilt, strings

_THERE = "__pgt_there"


def with_rows(statement: SelectStmt, context: Context) -> SelectStmt:
    """The statement with its whole-row references spelled out, where that is possible."""
    meant = {part.column_ref.fields[0].string.sval for part in nodes(statement) if _is_row(part)}
    if not meant:
        return statement
    common = {name: one.expression for name, one in context.ctes.items()}
    common |= {one.common_table_expr.ctename: one.common_table_expr for one in statement.with_clause.ctes}
    items = [one for item in statement.from_clause for one in _items(item, padded=False)]
    rows = [(item, _rows(item, common, context, padded=padded)) for item, padded in items]
    known = {one.alias: one for _, one in rows if one and one.alias in meant}
    whole = Node()
    whole.select_stmt.CopyFrom(statement)
    spelled = rebuilt(whole, lambda part: _spelled(part, known) if _is_row(part) else None)
    for item in spelled.select_stmt.from_clause:
        for part, _ in _items(item, padded=False):
            one = known.get(_alias(part))
            if one and one.there == _THERE:
                part.CopyFrom(_marked(part, one))
    return spelled.select_stmt


def _is_row(part: Node) -> bool:
    if kind(part) != "column_ref":
        return False
    *qualifier, last = part.column_ref.fields
    return len(qualifier) == 1 and kind(last) == "a_star"


@dataclass(frozen=True, slots=True)
class _Rows:
    """What in FROM has rows: their columns, and the relation that their type is of, if it has a name.

    If an outer join may have padded them, the column ``there`` is NULL just where it has.
    """

    alias: str
    columns: tuple[str, ...]
    fact: RelationFact | None
    there: str | None


def _items(item: Node, *, padded: bool) -> Iterator[tuple[Node, bool]]:
    """What an item of FROM joins, and whether an outer join may have padded its rows."""
    if kind(item) != "join_expr":
        yield item, padded
        return
    join = item.join_expr
    left = join.jointype in {kinds.JOIN_RIGHT, kinds.JOIN_FULL}
    right = join.jointype in {kinds.JOIN_LEFT, kinds.JOIN_FULL}
    yield from _items(join.larg, padded=padded or left)
    yield from _items(join.rarg, padded=padded or right)


def _alias(item: Node) -> str:
    if kind(item) == "range_subselect":
        return str(item.range_subselect.alias.aliasname)
    return str(item.range_var.alias.aliasname or item.range_var.relname) if kind(item) == "range_var" else ""


def _rows(item: Node, common: dict[str, CommonTableExpr | None], context: Context, *, padded: bool) -> _Rows | None:
    there = _THERE if padded else None
    if kind(item) == "range_subselect":
        derived = item.range_subselect
        return _derived(_alias(item), derived.subquery.select_stmt, list(derived.alias.colnames), there)
    if kind(item) != "range_var":
        return None
    renamed = list(item.range_var.alias.colnames)
    if not item.range_var.schemaname and item.range_var.relname in common:
        query = common[item.range_var.relname]
        if query is None or query.HasField("search_clause") or query.HasField("cycle_clause"):
            return None
        renamed += list(query.aliascolnames)[len(renamed) :]
        return _derived(_alias(item), query.ctequery.select_stmt, renamed, there)
    fact = _fact(item.range_var, context)
    if fact is None or renamed:
        return None
    never_null = (one.name for one in fact.columns if one.not_null) if fact.kind in {"table", "partitioned"} else ()
    names = tuple(one.name for one in fact.columns)
    return _Rows(_alias(item), names, fact, there and next(iter(never_null), there))


def _derived(alias: str, statement: SelectStmt, renamed: list[Node], there: str | None) -> _Rows | None:
    names = output_names(statement)
    columns = (*strings(renamed), *names[len(renamed) :])
    return _Rows(alias, columns, None, there) if len(set(columns)) == len(columns) else None


def _marked(item: Node, rows: _Rows) -> Node:
    """The item as a derived table with one more column."""
    made = Node()
    derived = made.range_subselect
    derived.lateral = item.range_subselect.lateral
    derived.alias.aliasname = rows.alias
    query = derived.subquery.select_stmt
    query.op, query.limit_option = kinds.SETOP_NONE, kinds.LIMIT_OPTION_DEFAULT
    query.from_clause.add().CopyFrom(item)
    for name in rows.columns:
        target = query.target_list.add().res_target
        target.name = name
        target.val.CopyFrom(column_reference(rows.alias, name))
    target = query.target_list.add().res_target
    target.name = _THERE
    target.val.a_const.boolval.boolval = True
    return made


def _fact(named: RangeVar, context: Context) -> RelationFact | None:
    facts = context.request.relations
    return next((one for one in facts if (one.schema, one.name) == (named.schemaname, named.relname)), None)


def _spelled(part: Node, known: dict[str, _Rows]) -> Node | None:
    (alias,) = strings(list(part.column_ref.fields)[:1])
    rows = known.get(alias)
    if rows is None:
        return None
    if rows.fact is not None:
        row = _row(part, alias, rows.fact)
    else:
        row = named_row(tuple((name, column_reference(alias, name)) for name in rows.columns))
    if rows.there is None:
        return row
    made = Node()
    when = made.case_expr.args.add().case_when
    when.expr.null_test.arg.CopyFrom(column_reference(alias, rows.there))
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
