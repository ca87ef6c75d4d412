"""What of an expression PostgreSQL evaluates only where other parts let it: the arms of CASE, COALESCE, AND and OR.

A subquery in such a part has to be computed for the rows that reach it alone: for others it may have two rows, or
divide by zero, and nobody hears of it.
"""

from __future__ import annotations

from collections.abc import Callable

from postgast.pg_query_pb2 import AND_EXPR, IS_NOT_FALSE, IS_NOT_TRUE, IS_NULL, NOT_EXPR, Node

from pg_trickle.parse.tree import kind

Lowered = Callable[[Node, Node | None], Node]
"""A part and the condition under which it is evaluated, if there is one; what is to stand in its place."""


def is_in_parts(node: Node) -> bool:
    """Whether an expression doesn't always evaluate all of its parts."""
    match kind(node):
        case "case_expr" | "coalesce_expr":
            return True
        case "bool_expr":
            return bool(node.bool_expr.boolop != NOT_EXPR)
        case "func_call":
            return bool(node.func_call.HasField("agg_filter"))
        case _:
            return False


def in_parts(node: Node, lowered: Lowered) -> Node | None:
    """Such an expression with each of its parts lowered; None for any other.

    Where a condition isn't true PostgreSQL certainly doesn't get to the part.  What a condition is made of is lowered,
    and evaluated in the order in which PostgreSQL evaluates it.
    """
    if not is_in_parts(node):
        return None
    made = Node()
    made.CopyFrom(node)
    match kind(node):
        case "case_expr":
            _case(made, lowered)
        case "coalesce_expr":
            _listed(made, made.coalesce_expr.args, lowered, _all_null)
        case "bool_expr":
            _listed(made, made.bool_expr.args, lowered, _undecided)
        case "func_call":
            call = made.func_call
            call.agg_filter.CopyFrom(lowered(call.agg_filter, None))
            for part in (*call.args, *call.agg_order):
                part.CopyFrom(lowered(part, call.agg_filter))
    return made


def both(outer: Node | None, inner: Node | None) -> Node | None:
    """The condition that one holds and then, which is asked only there, another."""
    if outer is None or inner is None:
        return outer or inner
    made = Node()
    when = made.case_expr.args.add().case_when
    when.expr.CopyFrom(outer)
    when.result.CopyFrom(inner)
    made.case_expr.defresult.CopyFrom(_truth(False))
    return made


def _case(made: Node, lowered: Lowered) -> None:
    """Of CASE the condition of an arm is the same CASE with TRUE in that arm and FALSE in all before it.

    Of the first one it is what the arm asks for.
    """
    case = made.case_expr
    # The arms so far, none of which was taken.
    passed = Node()
    if case.HasField("arg"):
        case.arg.CopyFrom(lowered(case.arg, None))
        passed.case_expr.arg.CopyFrom(case.arg)
    for part in case.args:
        arm = part.case_when
        arm.expr.CopyFrom(lowered(arm.expr, _otherwise(passed)))
        is_first = not passed.case_expr.args and not case.HasField("arg")
        taken = passed.case_expr.args.add().case_when
        taken.expr.CopyFrom(arm.expr)
        taken.result.CopyFrom(_truth(True))
        reached = Node()
        reached.CopyFrom(arm.expr if is_first else passed)
        if not is_first:
            reached.case_expr.defresult.CopyFrom(_truth(False))
        arm.result.CopyFrom(lowered(arm.result, reached))
        taken.result.CopyFrom(_truth(False))
    if case.HasField("defresult"):
        case.defresult.CopyFrom(lowered(case.defresult, _otherwise(passed)))


def _otherwise(passed: Node) -> Node | None:
    if not passed.case_expr.args:
        return None
    made = Node()
    made.CopyFrom(passed)
    made.case_expr.defresult.CopyFrom(_truth(True))
    return made


def _listed(made: Node, parts: list[Node], lowered: Lowered, goes_on: Callable[[Node], Node]) -> None:
    """A list that is evaluated from left to right, as long as what has been ``goes_on``."""
    before = Node()
    before.CopyFrom(made)
    done = before.coalesce_expr.args if kind(made) == "coalesce_expr" else before.bool_expr.args
    del done[:]
    for part in parts:
        part.CopyFrom(lowered(part, goes_on(before) if done else None))
        done.add().CopyFrom(part)


def _all_null(before: Node) -> Node:
    made = Node()
    made.null_test.arg.CopyFrom(before)
    made.null_test.nulltesttype = IS_NULL
    return made


def _undecided(before: Node) -> Node:
    parts = before.bool_expr.args
    made = Node()
    made.boolean_test.arg.CopyFrom(before if len(parts) > 1 else parts[0])
    made.boolean_test.booltesttype = IS_NOT_FALSE if before.bool_expr.boolop == AND_EXPR else IS_NOT_TRUE
    return made


def _truth(value: bool) -> Node:
    made = Node()
    made.a_const.boolval.boolval = value
    return made
