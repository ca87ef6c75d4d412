"""Expressions that read the transaction's time, ``now()`` and its like: as of now and of the last refresh."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node

from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.source import Opaque
from pg_trickle.algebra.timed import Timed, TimedColumn, TimedFilter
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.inverse import CONTAINS, Parsed
from pg_trickle.parse.moments import before, is_long, reads_time
from pg_trickle.parse.near import COMPARISONS, near
from pg_trickle.parse.tree import kind, strings
from pg_trickle.scalar import Scalar

_TIME = re.compile(r"\b(now|transaction_timestamp)\(\)|\b(CURRENT_(DATE|TIME)|LOCALTIME)", re.IGNORECASE)
HINT = "Show the moment that you compare with, and subtract it from now() where you read the stream table."


def check_timeless(plan: Plan) -> None:
    """Make sure that nothing in a plan but its conditions on time, and what is run at each refresh, reads the time."""
    for node in distinct(plan):
        if isinstance(node, Recompute) and node.is_always_run:
            continue
        if not isinstance(node, TimedFilter | TimedColumn) and any(map(_TIME.search, _texts(node))):
            raise UnsupportedQuery("time outside a condition", "no rule maintains it here.", hint=HINT)


def _texts(value: object) -> Iterator[str]:
    """The expressions in an operator itself, not in those below it."""
    if isinstance(value, Scalar | Opaque | Recompute):
        yield value.text
    elif isinstance(value, tuple):
        for part in value:
            yield from _texts(part)
    elif is_dataclass(value):
        parts = (getattr(value, field.name) for field in fields(value))
        yield from (text for part in parts if not isinstance(part, Plan) for text in _texts(part))


def is_moved(node: Node) -> bool:
    """Whether time moves the value of an expression for few rows, or seldom: a condition, or a day, a month …

    Such a part of an expression is a column by itself (``TimedColumn``).
    """
    return reads_time(node) and (_is_condition(node) or is_long(node))


def _is_condition(node: Node) -> bool:
    match kind(node):
        case "bool_expr" | "boolean_test" | "null_test":
            return True
        case "a_expr":
            name = strings(list(node.a_expr.name))
            if node.a_expr.kind in {kinds.AEXPR_DISTINCT, kinds.AEXPR_NOT_DISTINCT}:
                return True
            return node.a_expr.kind == kinds.AEXPR_OP and len(name) == 1 and name[0] in COMPARISONS | CONTAINS
        case _:
            return False


def timed(node: Node, parse: Parsed) -> Timed:
    """An expression that reads the time; ``parse`` makes a scalar of a node."""
    return Timed(parse(node), parse(before(node)), near(node, parse))
