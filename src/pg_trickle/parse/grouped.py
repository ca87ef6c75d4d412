"""A SELECT with GROUP BY, aggregates or HAVING: subqueries below the groups, the groups, subqueries over them."""

from __future__ import annotations

from collections.abc import Iterable

from postgast.pg_query_pb2 import Node, SelectStmt

from pg_trickle.algebra.correlation import free, tells
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.grouping import Grouping
from pg_trickle.parse.grouping_sets import as_outputs, expanded
from pg_trickle.parse.scope import Scope
from pg_trickle.parse.subqueries import Lowering
from pg_trickle.parse.timed import is_moved
from pg_trickle.parse.tree import (
    conjuncts,
    has_subquery,
    is_expression,
    kind,
    location,
    nodes,
    outside_subqueries,
    printed,
    rebuilt,
    strings,
)


def grouped(statement: SelectStmt, below: Lowering, *, by_value: bool) -> tuple[Lowering, list[Node]]:
    """The groups that satisfy HAVING, and the select list to be taken over them; ``by_value``: equal ones will do."""
    keys = [as_outputs(below.value(node)) for node in statement.group_clause]
    written = frozenset(
        printed(key) for each in expanded(list(statement.group_clause)) for key in each if has_subquery(key)
    )
    targets = [_prepared(node.res_target.val, below, written) for node in statement.target_list]
    conditions = conjuncts(statement.having_clause) if statement.HasField("having_clause") else ()
    having = [_prepared(node, below, written) for node in conditions]
    grouping = Grouping(below.scope, below.context)
    grouping.expect(keys, targets, having, by_value=by_value)
    grouping.add_keys(keys, is_distinct=statement.group_distinct)
    for node in (*targets, *having):
        grouping.add_expression(node, is_timed=node in having)
    for name, is_told in _read((*targets, *having), below).items():
        grouping.require(below.scope.column(name), is_told=is_told)
    above = Lowering(grouping.plan(below.plan), below.scope, below.context, below.parse, grouping.grouped)
    above.keep(having)
    return above, targets


def _prepared(node: Node, below: Lowering, keys: frozenset[str]) -> Node:
    """The expression with the subqueries lowered that belong below the groups: grouped by, or in an aggregate."""

    def replace(part: Node) -> Node | None:
        if (kind(part) == "sub_link" or is_moved(part)) and (printed(part),) in below.values:
            return below.value(part)
        if has_subquery(part) and is_expression(part) and printed(part) in keys:
            return below.value(part)
        if below.context.aggregates(part):
            _check_direct(part)
            _check_own(part, below.scope)
            return below.value(part)
        return part if kind(part) == "sub_link" else None

    return rebuilt(node, replace)


def _check_own(call: Node, scope: Scope) -> None:
    """Refuse an aggregate that reads nothing of its query, but of one around, be it in subqueries alone: it is of that.

    PostgreSQL's printer qualifies names in subqueries, but for columns merged by USING, which may be of any query.
    """
    own = set(scope.columns)
    near = [_name(part) for part in outside_subqueries(call) if kind(part) == "column_ref"]
    within = [_name(part) for part in nodes(call) if kind(part) == "column_ref"]
    if any(scope.resolve(name) in own for name in near) or any(scope.knows(name[0]) for name in within if name[1:]):
        return
    if near or any(not name[1:] or any(level.knows(name[0]) for level in scope.levels) for name in within):
        raise UnsupportedQuery(
            "aggregate of a query around", "all that it reads is of that query.", position=location(call)
        )


def _name(reference: Node) -> tuple[str, ...]:
    return strings(list(reference.column_ref.fields))


def _check_direct(call: Node) -> None:
    """Refuse subqueries in what WITHIN GROUP must know of a whole group, not of each row."""
    if kind(call) == "func_call" and call.func_call.agg_within_group and any(map(has_subquery, call.func_call.args)):
        raise UnsupportedQuery(
            "ordered-set aggregate with a subquery", "its argument must be the group's.", position=location(call)
        )


def _read(expressions: Iterable[Node], below: Lowering) -> dict[str, bool]:
    """The columns below the groups that subqueries over the groups read, and whether one does more than compare it."""
    own = {one.name for one in below.scope.columns}
    found: dict[str, bool] = {}
    for node in expressions:
        for part in outside_subqueries(node):
            if kind(part) == "sub_link":
                plan = below.subplan(part)
                for name in sorted(free(plan) & own):
                    found[name] = found.get(name, False) or tells(plan, name)
    return found
