"""Conditions that follow from an OR: what each of its arms demands of one and the same table.

Where ``(a.x = 1 AND b.x = 2) OR (a.x = 2 AND b.x = 1)`` is true, so is ``a.x = 1 OR a.x = 2``, which can be asked
before the tables are joined.  PostgreSQL finds the same when it reads tables; here it is found for changes as
well, and for the order of joins.
"""

from __future__ import annotations

from collections.abc import Iterator

from postgast.pg_query_pb2 import AND_EXPR, OR_EXPR, Node

from pg_trickle.parse.moments import reads_time
from pg_trickle.parse.tree import combined, conjuncts, has_subquery, kind, nodes, printed


def with_implied(conditions: tuple[Node, ...]) -> tuple[Node, ...]:
    """The conditions and, for each OR among them, what it demands of single tables: nothing that isn't true anyway."""
    known = {printed(one) for one in conditions}
    more = {printed(one): one for condition in conditions for one in _implied(condition)}
    return (*conditions, *(one for text, one in more.items() if text not in known))


def _implied(condition: Node) -> Iterator[Node]:
    if kind(condition) != "bool_expr" or condition.bool_expr.boolop != OR_EXPR:
        return
    arms = [_by_table(arm) for arm in condition.bool_expr.args]
    tables = list(dict.fromkeys(table for arm in arms for table in arm))
    for table in tables if len(tables) > 1 else ():
        if all(table in arm for arm in arms):
            yield combined(OR_EXPR, [combined(AND_EXPR, arm[table]) for arm in arms])


def _by_table(arm: Node) -> dict[str, list[Node]]:
    """The conditions of an arm that are about one table each."""
    found: dict[str, list[Node]] = {}
    for part in conjuncts(arm):
        tables = {_table(one) for one in nodes(part) if kind(one) == "column_ref"}
        if len(tables) == 1 and (table := tables.pop()) and not has_subquery(part) and not reads_time(part):
            found.setdefault(table, []).append(part)
    return found


def _table(reference: Node) -> str:
    """What a reference is qualified by; nothing if it isn't."""
    fields = reference.column_ref.fields
    return fields[0].string.sval if len(fields) == 2 else ""
