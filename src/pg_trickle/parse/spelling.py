"""Where the spelling of a number matters: equal numerics may differ in their decimals, 3.0 and 3.00.

A sum of numerics has as many decimals as the longest of them, and no subtraction tells when that one left.  As a value
the counters' sum is right all the same; but casts to text show the decimals, and a division rounds by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from postgast.pg_query_pb2 import (
    AEXPR_BETWEEN,
    AEXPR_DISTINCT,
    AEXPR_IN,
    AEXPR_NOT_BETWEEN,
    AEXPR_NOT_DISTINCT,
    AEXPR_OP,
    Node,
)

from pg_trickle.parse.tree import below, kind, strings
from pg_trickle.parse.types import declared

# Their result is the same whatever the decimals, so nothing around them can tell.
_COMPARING = {AEXPR_BETWEEN, AEXPR_DISTINCT, AEXPR_IN, AEXPR_NOT_BETWEEN, AEXPR_NOT_DISTINCT}
_COMPARISONS = {"=", "<>", "<", ">", "<=", ">="}
_ROUNDING = {"round", "trunc", "ceil", "ceiling", "floor", "sign", "trim_scale"}
_BY_VALUE = {"int2", "int4", "int8", "float4", "float8"}
# Their result is equal for equal numbers, and has decimals of its own.
_EXACT = {"+", "-", "*", "%"}
_WHOLE = {
    *("millennium", "century", "decade", "year", "isoyear", "quarter", "month", "week", "day"),
    *("dow", "isodow", "doy", "hour", "minute"),
}
_PASSING = {"bool_expr", "coalesce_expr", "min_max_expr", "case_expr", "case_when"}


def spelled(node: Node, is_sought: Callable[[Node], bool], *, by_value: bool) -> Iterator[Node]:
    """The sought parts whose decimals an expression tells; ``by_value``: of its results, equal ones will do."""
    if is_sought(node):
        if not by_value:
            yield node
        return
    inside = _is_blind(node) or (by_value and _is_exact(node))
    # Of a subquery, what it is compared with.
    for part in [node.sub_link.testexpr] if kind(node) == "sub_link" else below(node):
        yield from spelled(part, is_sought, by_value=inside)


def by_value_within(call: Node) -> list[Node]:
    """What decides an aggregate's or a window function's result by value: arguments of PostgreSQL's own, but for those
    that write text; which rows are gathered, and in what order, goes by value in any.
    """
    name = _function(call) if kind(call) == "func_call" else ""
    if not name or name.startswith(("json_", "xml")):
        return [call]
    held = call.func_call
    return [*held.args, *([held.agg_filter] if held.HasField("agg_filter") else [])]


def decimals(node: Node) -> int | None:
    """How many decimals every numeric has that it yields: parts of a time but its seconds, and what is rounded."""
    name = _function(node) if kind(node) == "func_call" else ""
    args = node.func_call.args
    if name == "extract":
        return 0 if kind(args[0]) == "a_const" and args[0].a_const.sval.sval.lower() in _WHOLE else None
    if name not in _ROUNDING - {"trim_scale"}:
        return None
    if len(args) == 1:
        return 0
    places = args[1].a_const.ival.ival if kind(args[1]) == "a_const" and args[1].a_const.HasField("ival") else -1
    return places if places >= 0 else None


def _is_blind(node: Node) -> bool:
    match kind(node):
        case "null_test" | "boolean_test":
            return True
        case "a_expr":
            names = strings(list(node.a_expr.name))
            return node.a_expr.kind in _COMPARING or (
                node.a_expr.kind == AEXPR_OP and len(names) == 1 and names[0] in _COMPARISONS
            )
        case "func_call":
            return _function(node) in _ROUNDING
        case "type_cast":
            to = declared(node.type_cast.type_name)
            return to.name in _BY_VALUE or (to.name == "numeric" and to.scale is not None)
        case _:
            return False


def _is_exact(node: Node) -> bool:
    match kind(node):
        case "a_expr":
            names = strings(list(node.a_expr.name))
            return node.a_expr.kind == AEXPR_OP and len(names) == 1 and names[0] in _EXACT
        case "func_call":
            return _function(node) == "abs"
        case "type_cast":
            return declared(node.type_cast.type_name).name == "numeric"
        case _:
            return kind(node) in _PASSING


def _function(node: Node) -> str:
    """The name of a built-in; a function of somebody else's is written with its schema."""
    names = strings(list(node.func_call.funcname))
    return names[-1] if len(names) == 1 or names[0] == "pg_catalog" else ""
