"""Conditions on the transaction's time: ``now()``, ``CURRENT_DATE`` and their like, as of now and of the last refresh.

A program's $4 is what ``now()`` was at the last refresh (docs/internals.md §1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node
from psycopg import sql

from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.source import Opaque
from pg_trickle.algebra.timed import Timed, TimedColumn, TimedFilter
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.tree import below, kind, outside_subqueries, rebuilt, strings
from pg_trickle.scalar import BOOL, Scalar, composed

Parsed = Callable[[Node], Scalar]

# PostgreSQL computes each of them from the time at which the transaction began; the type is that of the value.
_VALUES = {
    kinds.SVFOP_CURRENT_DATE: "date",
    kinds.SVFOP_CURRENT_TIME: "timetz",
    kinds.SVFOP_CURRENT_TIME_N: "timetz",
    kinds.SVFOP_CURRENT_TIMESTAMP: "timestamptz",
    kinds.SVFOP_CURRENT_TIMESTAMP_N: "timestamptz",
    kinds.SVFOP_LOCALTIME: "time",
    kinds.SVFOP_LOCALTIME_N: "time",
    kinds.SVFOP_LOCALTIMESTAMP: "timestamp",
    kinds.SVFOP_LOCALTIMESTAMP_N: "timestamp",
}
_TIME = re.compile(r"\b(now|transaction_timestamp)\(\)|\b(CURRENT_(DATE|TIME)|LOCALTIME)", re.IGNORECASE)
HINT = "Show the moment that you compare with, and subtract it from now() where you read the stream table."
FUNCTIONS = frozenset({"now", "transaction_timestamp"})
_STRICT = FUNCTIONS | {"date_trunc", "timezone"}
_COMPARISONS = {"<", "<=", "=", ">=", ">", "<>"}
_CONTAINS = {"@>", "<@"}
_LONG = {"hour", "day", "week", "month", "quarter", "year", "decade", "century", "millennium"}


def is_time(node: Node) -> bool:
    """Whether the node is the time at which the transaction began, in any of its forms."""
    if kind(node) == "sqlvalue_function":
        return node.sqlvalue_function.op in _VALUES
    return kind(node) == "func_call" and _called(node) in FUNCTIONS


def reads_time(node: Node) -> bool:
    """Whether an expression, subqueries apart, depends on that time."""
    return any(map(is_time, outside_subqueries(node)))


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
    return reads_time(node) and (_is_condition(node) or _is_long(node))


def _is_condition(node: Node) -> bool:
    match kind(node):
        case "bool_expr" | "boolean_test" | "null_test":
            return True
        case "a_expr":
            name = strings(list(node.a_expr.name))
            if node.a_expr.kind in {kinds.AEXPR_DISTINCT, kinds.AEXPR_NOT_DISTINCT}:
                return True
            return node.a_expr.kind == kinds.AEXPR_OP and len(name) == 1 and name[0] in _COMPARISONS | _CONTAINS
        case _:
            return False


def _is_long(node: Node) -> bool:
    """Whether it is a moment that stays what it is for an hour or more."""
    if not _is_moment(node):
        return False
    match kind(node):
        case "sqlvalue_function":
            return bool(node.sqlvalue_function.op == kinds.SVFOP_CURRENT_DATE)
        case "type_cast" if strings(list(node.type_cast.type_name.names))[-1] == "date":
            return True
        case "func_call" if _called(node) == "date_trunc":
            unit = _unshielded(node.func_call.args[0])
            return kind(unit) == "a_const" and str(unit.a_const.sval.sval).lower() in _LONG
        case "func_call" if is_time(node):
            return False
        case _:
            return all(_is_long(part) for part in below(node) if reads_time(part))


def _unshielded(node: Node) -> Node:
    """What is cast, as PostgreSQL writes constants."""
    return _unshielded(node.type_cast.arg) if kind(node) == "type_cast" else node


def timed(node: Node, parse: Parsed) -> Timed:
    """An expression that reads the time; ``parse`` makes a scalar of a node."""
    ranges = _ranges(node, parse)
    return Timed(parse(node), parse(_before(node)), _any(ranges) if ranges else _turning(node, parse))


def _any(ranges: list[Scalar]) -> Scalar:
    text = sql.SQL(" OR ").join(sql.SQL("({r})").format(r=one.sql()) for one in ranges)
    return composed(text, frozenset(name for one in ranges for name in one.columns), BOOL)


def _turning(node: Node, parse: Parsed) -> Scalar | None:
    """Whether one of the days, months … that an expression reads is another now; None if it reads moments, too."""
    moments = list(_long_moments(node))
    if None in moments:
        return None
    return _any(
        [
            composed(
                sql.SQL("{now} IS DISTINCT FROM {was}").format(now=parse(one).sql(), was=parse(_before(one)).sql()),
                frozenset(),
                BOOL,
            )
            for one in moments
            if one is not None
        ]
    )


def _long_moments(node: Node) -> Iterator[Node | None]:
    """The longest-standing parts that read the time; None for one that moves all the time."""
    if _is_long(node):
        yield node
    elif is_time(node):
        yield None
    else:
        for part in below(node):
            if reads_time(part):
                yield from _long_moments(part)


def _before(node: Node) -> Node:
    """The expression as of the last refresh."""
    return rebuilt(node, _moved)


def _moved(part: Node) -> Node | None:
    return _at_frontier(part) if is_time(part) else None


def _at_frontier(node: Node) -> Node:
    moment = Node()
    moment.param_ref.number = 4
    moment = _cast(moment, "timestamptz")
    if kind(node) == "func_call":
        return moment
    value = node.sqlvalue_function
    return _cast(moment, _VALUES[value.op], value.typmod)


def _cast(node: Node, to: str, digits: int = -1) -> Node:
    made = Node()
    made.type_cast.arg.CopyFrom(node)
    for name in ("pg_catalog", to):
        made.type_cast.type_name.names.add().string.sval = name
    made.type_cast.type_name.typemod = -1
    if digits >= 0:
        made.type_cast.type_name.typmods.add().a_const.ival.ival = digits
    return made


def _ranges(node: Node, parse: Parsed) -> list[Scalar] | None:
    """Ranges of columns outside which time changes nothing; None if it has parts of which none is known."""
    if not reads_time(node):
        return []
    if kind(node) == "bool_expr":
        found = [_ranges(part, parse) for part in node.bool_expr.args]
        return None if None in found else [one for ranges in found if ranges for one in ranges]
    if kind(node) != "a_expr" or node.a_expr.kind != kinds.AEXPR_OP:
        return None
    name = strings(list(node.a_expr.name))
    left, right = node.a_expr.lexpr, node.a_expr.rexpr
    if len(name) != 1 or name[0] not in _COMPARISONS:
        return None
    sides = [(left, right)] if kind(left) == "column_ref" else [(right, left)] if kind(right) == "column_ref" else []
    return [_range(parse(one), bound, parse) for one, bound in sides if _is_bound(parse(one), bound)] or None


def _range(value: Scalar, bound: Node, parse: Parsed) -> Scalar:
    """The values between the bound as it was and as it is."""
    text = sql.SQL("{c} >= LEAST({was}, {now}) AND {c} <= GREATEST({was}, {now})").format(
        c=value.sql(), was=parse(_before(bound)).sql(), now=parse(bound).sql()
    )
    return composed(text, value.columns, BOOL)


def _is_bound(value: Scalar, bound: Node) -> bool:
    """Whether the bound is a moment, never NULL, in whose order an index on the column is.

    A timestamp without time zone is none beside one with: the clocks are changed twice a year.
    """
    if not _is_moment(bound):
        return False
    return value.type.name in {"date", "timestamptz"} or (value.type.name == "timestamp" and _is_local(bound))


def _is_moment(node: Node) -> bool:
    match kind(node):
        case "a_const":
            return not node.a_const.isnull
        case "type_cast":
            return _is_moment(node.type_cast.arg)
        case "a_expr":
            operation = node.a_expr
            plain = operation.kind == kinds.AEXPR_OP and strings(list(operation.name))[-1] in {"+", "-", "*"}
            return plain and operation.HasField("lexpr") and all(map(_is_moment, (operation.lexpr, operation.rexpr)))
        case "func_call":
            return _called(node) in _STRICT and all(map(_is_moment, node.func_call.args))
        case _:
            return is_time(node)


def _is_local(node: Node) -> bool:
    """Whether a moment certainly has no time zone."""
    match kind(node):
        case "sqlvalue_function":
            return _VALUES[node.sqlvalue_function.op] in {"date", "timestamp"}
        case "type_cast":
            return strings(list(node.type_cast.type_name.names))[-1] in {"date", "timestamp"}
        case "a_expr":
            return _is_local(node.a_expr.lexpr)
        case "func_call" if _called(node) == "timezone":
            return not _is_local(node.func_call.args[-1])
        case "func_call" if _called(node) == "date_trunc":
            return _is_local(node.func_call.args[1])
        case _:
            return False


def _called(node: Node) -> str | None:
    """The name of the built-in function that is called."""
    name = strings(list(node.func_call.funcname))
    return name[-1] if len(name) == 1 or name[0] == "pg_catalog" else None
