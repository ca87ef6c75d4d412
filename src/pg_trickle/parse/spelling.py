"""Where the spelling of a value matters: equal ones may read differently, 3.0 and 3.00, '1 day' and '24:00:00'.

A group shows one of its equal keys, and nothing tells when the row that it came from left.  A sum of numerics has as
many decimals as the longest of them, which aren't counted unless somebody tells them.  As values they are right all the
same; but casts to text show the spelling, and a division rounds by the decimals.
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
_PASSING = {"bool_expr", "coalesce_expr", "min_max_expr", "case_expr", "case_when"}


def spelled(
    node: Node, is_sought: Callable[[Node], bool], *, by_value: bool, of_numbers: bool = True
) -> Iterator[Node]:
    """The sought parts whose spelling an expression tells; ``by_value``: of its results, equal ones will do.

    ``of_numbers``: what is sought are numerics, of which more is known than of other types.
    """
    if is_sought(node):
        if not by_value:
            yield node
        return
    blind, exact = (_is_blind_to_decimals, _is_exact) if of_numbers else (_is_blind, _is_passing)
    inside = blind(node) or (by_value and exact(node))
    # Of a subquery, what it is compared with.
    for part in [node.sub_link.testexpr] if kind(node) == "sub_link" else below(node):
        yield from spelled(part, is_sought, by_value=inside, of_numbers=of_numbers)


def by_value_within(call: Node) -> list[Node]:
    """What decides an aggregate's or a window function's result by value: arguments of PostgreSQL's own, but for those
    that write text; which rows are gathered, and in what order, goes by value in any.
    """
    name = _function(call) if kind(call) == "func_call" else ""
    if not name or name.startswith(("json_", "xml")):
        return [call]
    held = call.func_call
    return [*held.args, *([held.agg_filter] if held.HasField("agg_filter") else [])]


def has_fixed_decimals(node: Node) -> bool:
    """Whether every numeric that it yields has as many decimals: what is rounded has."""
    if kind(node) != "func_call" or _function(node) not in _ROUNDING - {"trim_scale"}:
        return False
    args = node.func_call.args
    return len(args) == 1 or (kind(args[1]) == "a_const" and args[1].a_const.HasField("ival"))


def _is_blind(node: Node) -> bool:
    match kind(node):
        case "null_test" | "boolean_test":
            return True
        case "a_expr":
            names = strings(list(node.a_expr.name))
            return node.a_expr.kind in _COMPARING or (
                node.a_expr.kind == AEXPR_OP and len(names) == 1 and names[0] in _COMPARISONS
            )
        case _:
            return False


def _is_blind_to_decimals(node: Node) -> bool:
    match kind(node):
        case "func_call":
            return _function(node) in _ROUNDING
        case "type_cast":
            to = declared(node.type_cast.type_name)
            return to.name in _BY_VALUE or (to.name == "numeric" and to.scale is not None)
        case _:
            return _is_blind(node)


def _is_passing(node: Node) -> bool:
    return kind(node) in _PASSING


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
            return _is_passing(node)


def _function(node: Node) -> str:
    """The name of a built-in; a function of somebody else's is written with its schema."""
    names = strings(list(node.func_call.funcname))
    return names[-1] if len(names) == 1 or names[0] == "pg_catalog" else ""
