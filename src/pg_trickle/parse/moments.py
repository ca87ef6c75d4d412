"""What parts of a query mean as times: the time of the transaction, moments computed from it, and how long they stand.

A program's $4 is what ``now()`` was at the last refresh (docs/internals.md §1).
"""

from __future__ import annotations

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node

from pg_trickle.parse.tree import below, kind, outside_subqueries, rebuilt, strings

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
FUNCTIONS = frozenset({"now", "transaction_timestamp"})
_STRICT = FUNCTIONS | {"date_trunc", "timezone", "make_interval"}
_LONG = {"hour", "day", "week", "month", "quarter", "year", "decade", "century", "millennium"}


def is_time(node: Node) -> bool:
    """Whether the node is the time at which the transaction began, in any of its forms."""
    if kind(node) == "sqlvalue_function":
        return node.sqlvalue_function.op in _VALUES
    return kind(node) == "func_call" and called(node) in FUNCTIONS


def reads_time(node: Node) -> bool:
    """Whether an expression, subqueries apart, depends on that time."""
    return any(map(is_time, outside_subqueries(node)))


def is_long(node: Node) -> bool:
    """Whether it is a moment that stays what it is for an hour or more."""
    if not is_moment(node):
        return False
    match kind(node):
        case "sqlvalue_function":
            return bool(node.sqlvalue_function.op == kinds.SVFOP_CURRENT_DATE)
        case "type_cast" if strings(list(node.type_cast.type_name.names))[-1] == "date":
            return True
        case "func_call" if called(node) == "date_trunc":
            unit = unshielded(node.func_call.args[0])
            return kind(unit) == "a_const" and str(unit.a_const.sval.sval).lower() in _LONG
        case "func_call" if is_time(node):
            return False
        case _:
            return all(is_long(part) for part in below(node) if reads_time(part))


def unshielded(node: Node) -> Node:
    """What is cast, as PostgreSQL writes constants."""
    return unshielded(node.type_cast.arg) if kind(node) == "type_cast" else node


def before(node: Node) -> Node:
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


def is_moment(node: Node) -> bool:
    """Whether it is computed from the time and constants alone, and never NULL."""
    match kind(node):
        case "a_const":
            return not node.a_const.isnull
        case "type_cast":
            return is_moment(node.type_cast.arg)
        case "a_expr":
            operation = node.a_expr
            plain = operation.kind == kinds.AEXPR_OP and strings(list(operation.name))[-1] in {"+", "-", "*"}
            return plain and operation.HasField("lexpr") and all(map(is_moment, (operation.lexpr, operation.rexpr)))
        case "named_arg_expr":
            return is_moment(node.named_arg_expr.arg)
        case "func_call":
            return called(node) in _STRICT and all(map(is_moment, node.func_call.args))
        case _:
            return is_time(node)


def called(node: Node) -> str | None:
    """The name of the built-in function that is called."""
    name = strings(list(node.func_call.funcname))
    return name[-1] if len(name) == 1 or name[0] == "pg_catalog" else None


def cast_to(node: Node) -> str:
    """The name of the type that a node is cast to, if it is built in; else nothing."""
    name = strings(list(node.type_cast.type_name.names)) if kind(node) == "type_cast" else ()
    return name[-1] if len(name) == 1 or name[:1] == ("pg_catalog",) else ""


def has_zone(node: Node) -> bool | None:
    """Whether a moment has a time zone; None if that isn't known."""
    match kind(node):
        case "sqlvalue_function":
            return _VALUES[node.sqlvalue_function.op] == "timestamptz"
        case "type_cast":
            return {"timestamptz": True, "timestamp": False, "date": False}.get(cast_to(node))
        case "a_expr":
            return has_zone(node.a_expr.lexpr)
        case "func_call" if is_time(node):
            return True
        case "func_call" if called(node) == "timezone":
            within = has_zone(node.func_call.args[-1])
            return None if within is None else not within
        case "func_call" if called(node) == "date_trunc":
            return has_zone(node.func_call.args[1])
        case _:
            return None


def is_interval(node: Node) -> bool:
    """Whether a constant is certainly an interval."""
    match kind(node):
        case "a_expr":
            sides = (node.a_expr.lexpr, node.a_expr.rexpr)
            return strings(list(node.a_expr.name)) in {("*",), ("+",), ("-",)} and any(map(is_interval, sides))
        case "func_call":
            return called(node) == "make_interval"
        case _:
            return cast_to(node) == "interval"


def is_date(node: Node) -> bool:
    """Whether a value is certainly a date."""
    match kind(node):
        case "sqlvalue_function":
            return _VALUES[node.sqlvalue_function.op] == "date"
        case "a_expr":
            by = unshielded(node.a_expr.rexpr)
            return is_date(node.a_expr.lexpr) and kind(by) == "a_const" and by.a_const.WhichOneof("val") == "ival"
        case _:
            return cast_to(node) == "date"
