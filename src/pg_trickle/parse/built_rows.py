"""Rows that a subquery builds of what is around it: ``(SELECT e FROM (SELECT x.a AS id, y.n AS n) AS e)``.

So Hasura writes the documents that it asks for.  It reads nothing, so it is an expression: a row with these names
(``tree.named_row``), ``CASE WHEN … THEN`` it ``END`` where it has a condition.  Left a subquery, it would be joined by
the values that it takes from around it, and a json has no equality.
"""

from __future__ import annotations

from postgast.pg_query_pb2 import AND_EXPR, EXPR_SUBLINK, LIMIT_OPTION_DEFAULT, SETOP_NONE, Node, SelectStmt

from pg_trickle.parse.expressions import returns_set
from pg_trickle.parse.fallback import output_names
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import has_subquery, kind, named_row, nodes, outside_subqueries, rebuilt

_READS_NOTHING = frozenset({"target_list", "where_clause", "limit_option", "op"})


def with_built_rows(statement: SelectStmt, context: Context) -> SelectStmt:
    """The statement, subqueries in it that only build a row of what is around them made expressions."""
    if all(_derived(part) is None for part in nodes(statement)):
        return statement
    whole = Node()
    whole.select_stmt.CopyFrom(statement)
    return _spelled(whole, context).select_stmt


def _spelled(node: Node, context: Context) -> Node:
    return rebuilt(node, lambda part: _built(part, context))


def _built(part: Node, context: Context) -> Node | None:
    """The expression that a subquery is; None if it is more, or doesn't read its row as a whole."""
    derived = _derived(part)
    if derived is None:
        return None
    around = part.sub_link.subselect.select_stmt
    target, alias = around.target_list[0].res_target.val, around.from_clause[0].range_subselect.alias.aliasname
    fields = [one.res_target.val for one in derived.target_list]
    asked = [one.where_clause for one in (derived, around) if one.HasField("where_clause")]
    if (
        has_subquery(target)
        or _counts_rows(target, context)
        or any(map(context.aggregates, outside_subqueries(target)))
    ):
        return None
    if any(_counts_rows(one, context) for one in (*fields, *asked)) or any(_names(one, alias) for one in _all(asked)):
        return None
    if any(_names(one, alias) and not _is_whole(one) for one in nodes(target)):
        return None
    row = named_row(tuple(zip(output_names(derived), (_spelled(one, context) for one in fields), strict=True)))
    made = rebuilt(target, lambda one: row if _names(one, alias) else None)
    return _where([_spelled(one, context) for one in asked], made) if asked else made


def _all(parts: list[Node]) -> list[Node]:
    return [one for part in parts for one in nodes(part)]


def _where(conditions: list[Node], value: Node) -> Node:
    """The value where all conditions hold: a subquery without rows is NULL."""
    made = Node()
    when = made.case_expr.args.add().case_when
    when.expr.bool_expr.boolop = AND_EXPR
    when.expr.bool_expr.args.extend(conditions)
    when.result.CopyFrom(value)
    return made


def _derived(part: Node) -> SelectStmt | None:
    """The SELECT without FROM that is all that a scalar subquery reads; None if it reads more, or by other names."""
    if kind(part) != "sub_link" or part.sub_link.sub_link_type != EXPR_SUBLINK:
        return None
    around = part.sub_link.subselect.select_stmt
    if not _has_only(around, _READS_NOTHING | {"from_clause"}) or len(around.from_clause) != 1:
        return None
    item = around.from_clause[0]
    if len(around.target_list) != 1 or kind(item) != "range_subselect" or item.range_subselect.alias.colnames:
        return None
    derived = item.range_subselect.subquery.select_stmt
    return derived if _has_only(derived, _READS_NOTHING) else None


def _has_only(statement: SelectStmt, clauses: frozenset[str]) -> bool:
    if statement.op != SETOP_NONE or statement.limit_option != LIMIT_OPTION_DEFAULT:
        return False
    return all(field.name in clauses for field, _ in statement.ListFields())


def _counts_rows(node: Node, context: Context) -> bool:
    """Whether it depends on there being a query: aggregates and windows of its one row, and sets, which make others.

    An aggregate of what is around belongs to a query there.
    """
    parts = list(outside_subqueries(node))
    is_window = any(kind(one) == "func_call" and one.func_call.HasField("over") for one in parts)
    own = (one for one in parts if context.aggregates(one))
    return is_window or returns_set(node, context) or any(not any(map(_is_reference, nodes(one))) for one in own)


def _is_reference(part: Node) -> bool:
    return kind(part) == "column_ref"


def _names(part: Node, alias: str) -> bool:
    """Whether it is a reference to a row of this name, or to a column of it."""
    return kind(part) == "column_ref" and part.column_ref.fields[0].string.sval == alias


def _is_whole(reference: Node) -> bool:
    return kind(reference.column_ref.fields[-1]) == "a_star"
