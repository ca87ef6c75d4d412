"""Moments that a query gives a name: ``WITH t AS (SELECT now() - '1 h' AS since) … WHERE ts > t.since``.

A SELECT without FROM has one row, so what stands beside it may as well say the moment itself; and a condition that says
``now()`` is one that time moves (``timed.py``).  A moment that is shown, grouped or sorted by stays a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import SETOP_NONE, Node, SelectStmt

from pg_trickle.parse.moments import is_moment, reads_time
from pg_trickle.parse.scope import Context
from pg_trickle.parse.tree import kind, nodes, rebuilt, strings

_CONDITIONS = ("where_clause", "having_clause")
_PLAIN = frozenset({"target_list", "limit_option", "op"})


def with_moments(statement: SelectStmt, context: Context) -> SelectStmt:
    """The SELECT with moments in place of their names in its conditions, and FROM without the items that name them."""
    if statement.op != SETOP_NONE or not statement.from_clause:
        return statement
    items = [part for item in statement.from_clause for part in _crossed(item)]
    named = {alias: found for item in items for alias, found in _named(item, statement, context)}
    named = {alias: found for alias, found in named.items() if _stands_in_conditions(statement, alias, found)}
    # Something must be left that has rows.
    named = named if len(named) < len(items) else {}
    if not named and not any(map(_is_moment, nodes(statement))):
        return statement
    made = SelectStmt()
    made.CopyFrom(statement)
    del made.from_clause[:]
    made.from_clause.extend(_replaced(item, named) for item in items if _alias(item) not in named)
    for name in _CONDITIONS:
        if made.HasField(name):
            getattr(made, name).CopyFrom(_spelt(getattr(statement, name), named))
    return made


def _crossed(item: Node) -> list[Node]:
    """What a CROSS JOIN lists, which may as well stand in FROM by itself."""
    join = item.join_expr
    if kind(item) != "join_expr" or join.jointype != kinds.JOIN_INNER or join.HasField("alias") or join.is_natural:
        return [item]
    if join.HasField("quals") or join.using_clause:
        return [item]
    return [*_crossed(join.larg), *_crossed(join.rarg)]


def _is_moment(part: Node) -> bool:
    """Whether it is a subquery that is but a moment."""
    if kind(part) != "sub_link" or part.sub_link.sub_link_type != kinds.EXPR_SUBLINK:
        return False
    found = _moments(part.sub_link.subselect.select_stmt, ("value",))
    return found is not None and len(found) == 1


def _named(item: Node, statement: SelectStmt, context: Context) -> Iterator[tuple[str, dict[str, Node]]]:
    """The alias of an item that has one row of moments, and those by name."""
    if kind(item) == "range_subselect":
        found = _moments(item.range_subselect.subquery.select_stmt, strings(list(item.range_subselect.alias.colnames)))
    elif kind(item) == "range_var" and not item.range_var.schemaname:
        found = _of_with(item.range_var.relname, statement, context, strings(list(item.range_var.alias.colnames)))
    else:
        found = None
    if found is not None:
        yield _alias(item), found


def _alias(item: Node) -> str:
    if kind(item) == "range_var":
        return str(item.range_var.alias.aliasname or item.range_var.relname)
    return str(item.range_subselect.alias.aliasname) if kind(item) == "range_subselect" else ""


def _of_with(name: str, statement: SelectStmt, context: Context, aliases: tuple[str, ...]) -> dict[str, Node] | None:
    for node in statement.with_clause.ctes if statement.HasField("with_clause") else ():
        common = node.common_table_expr
        if common.ctename == name:
            names = aliases or strings(list(common.aliascolnames))
            return _moments(common.ctequery.select_stmt, names) if kind(common.ctequery) == "select_stmt" else None
    around = context.ctes.get(name)
    return _moments(around.statement, aliases or around.aliases) if around and around.found is None else None


def _moments(statement: SelectStmt, aliases: tuple[str, ...]) -> dict[str, Node] | None:
    """The outputs of a SELECT of nothing but moments, by name."""
    if any(field.name not in _PLAIN for field, _ in statement.ListFields()) or statement.op != SETOP_NONE:
        return None
    targets = [node.res_target for node in statement.target_list]
    names = (*aliases, *(one.name for one in targets[len(aliases) :]))
    values = [one.val for one in targets]
    if not all(map(is_moment, values)) or not any(map(reads_time, values)) or not all(names):
        return None
    return dict(zip(names, values, strict=True))


def _stands_in_conditions(statement: SelectStmt, alias: str, found: Mapping[str, Node]) -> bool:
    """Whether the item's columns, and no others of it, are read by conditions alone."""
    everywhere = [one for one in nodes(statement) if _is_of(one, alias)]
    inside = [part for name in _CONDITIONS if statement.HasField(name) for part in nodes(getattr(statement, name))]
    inside += [part for item in statement.from_clause for part in nodes(item)]
    read = [one for one in inside if _is_of(one, alias)]
    return len(read) == len(everywhere) and all(_name(one) in found for one in read)


def _is_of(node: Node, alias: str) -> bool:
    return kind(node) == "column_ref" and len(node.column_ref.fields) > 1 and _first(node) == alias


def _first(node: Node) -> str:
    return str(node.column_ref.fields[0].string.sval)


def _name(node: Node) -> str:
    return str(node.column_ref.fields[-1].string.sval) if len(node.column_ref.fields) == 1 + 1 else ""


def _replaced(item: Node, named: Mapping[str, Mapping[str, Node]]) -> Node:
    """An item of FROM that says the moments itself."""

    def replace(part: Node) -> Node | None:
        return named[_first(part)][_name(part)] if kind(part) == "column_ref" and _first(part) in named else None

    made = rebuilt(item, replace)
    pending = [made]
    while pending:
        part = pending.pop()
        if kind(part) == "join_expr":
            pending += [part.join_expr.larg, part.join_expr.rarg]
            if part.join_expr.HasField("quals"):
                part.join_expr.quals.CopyFrom(_spelt(part.join_expr.quals, {}))
    return made


def _spelt(condition: Node, named: Mapping[str, Mapping[str, Node]]) -> Node:
    """A condition that says the moments itself, those of subqueries without FROM too."""

    def replace(part: Node) -> Node | None:
        if kind(part) == "column_ref":
            return named[_first(part)][_name(part)] if _first(part) in named else None
        return part.sub_link.subselect.select_stmt.target_list[0].res_target.val if _is_moment(part) else None

    return rebuilt(condition, replace)
