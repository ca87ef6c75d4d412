"""IN, ANY and ALL: comparisons with the rows of a subquery, in SQL's three-valued logic.

``x op ANY (S)`` is TRUE if one comparison is, else NULL if one is, else FALSE; ``x op ALL (S)`` the other way round.
Whether some comparison passes a test is a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node, SubLink

from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.tree import kind, strings
from pg_trickle.scalar import Scalar

Expression = Callable[[Node], Scalar]
Conditions = tuple[Scalar, ...]


class Test(Enum):
    """What a comparison must come to."""

    TRUE = kinds.IS_TRUE
    FALSE = kinds.IS_FALSE
    NOT_TRUE = kinds.IS_NOT_TRUE
    NOT_FALSE = kinds.IS_NOT_FALSE

    @property
    def inverse(self) -> Test:
        """The test of the opposite comparison that comes to the same."""
        return {
            Test.TRUE: Test.FALSE,
            Test.FALSE: Test.TRUE,
            Test.NOT_TRUE: Test.NOT_FALSE,
            Test.NOT_FALSE: Test.NOT_TRUE,
        }[self]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Conditions between an outer row and one of the subquery, and what they are about."""

    kind: str
    conditions: Conditions


def alternatives(link: SubLink, test: Test, left: Node, right: list[Node], here: Expression) -> tuple[Alternative, ...]:
    """The comparison passes the test iff one of these holds.  Apart, they can be looked up."""
    names = strings(list(link.oper_name)) or ("=",)
    lefts = list(left.row_expr.args) if kind(left) == "row_expr" else [left]
    if len(lefts) != len(right):
        raise UnsupportedQuery("comparison of rows", "its sides have different numbers of columns.")
    if names == ("<>",) and link.sub_link_type == kinds.ALL_SUBLINK:
        names, test = ("=",), test.inverse
    if names == ("=",) and test is Test.TRUE:
        pairs = zip(lefts, right, strict=True)
        return (Alternative("equal", tuple(here(_operation(names, *pair)) for pair in pairs)),)
    if names == ("=",) and test is Test.NOT_FALSE:
        return _maybe_equal(lefts, right, here)
    whole = compared(names, left, right)
    return (Alternative(test.name, (here(whole if test is Test.TRUE else _tested(whole, test)),)),)


def _maybe_equal(left: list[Node], right: list[Node], here: Expression) -> tuple[Alternative, ...]:
    """An equality that isn't FALSE.  That of single values: they are equal, or one of them is NULL."""
    pairs = list(zip(left, right, strict=True))
    certain = [here(one).not_null and here(other).not_null for one, other in pairs]
    equal = [_operation(("=",), one, other) for one, other in pairs]
    if all(certain):
        return (Alternative("equal", tuple(map(here, equal))),)
    if len(pairs) > 1:
        tests = (one if sure else _tested(one, Test.NOT_FALSE) for one, sure in zip(equal, certain, strict=True))
        return (Alternative("maybe", tuple(map(here, tests))),)
    sides = zip(("left", "right"), pairs[0], strict=True)
    missing = tuple(
        Alternative(f"{name} NULL", (here(_is_null(one)),)) for name, one in sides if not here(one).not_null
    )
    return (Alternative("equal", (here(equal[0]),)), *missing)


def row(values: list[Node]) -> Node:
    """A row of values."""
    node = Node()
    node.row_expr.args.extend(values)
    node.row_expr.row_format = kinds.COERCE_IMPLICIT_CAST
    return node


def compared(names: tuple[str, ...], left: Node, right: list[Node]) -> Node:
    """The comparison of a value, or a row, with a row of the subquery."""
    if kind(left) != "row_expr":
        return _operation(names, left, right[0])
    return _operation(names, left, row(right))


def three_valued(decisive: Iterable[Node], open_: Iterable[Node], value: bool) -> Node:
    """``value`` if a decisive mark is set, else NULL if one of the others is, else the opposite."""
    node = Node()
    for marks, result in ((decisive, _constant(value)), (open_, _constant(None))):
        when = node.case_expr.args.add().case_when
        when.expr.CopyFrom(_any(list(marks)))
        when.result.CopyFrom(result)
    node.case_expr.defresult.CopyFrom(_constant(not value))
    return node


def _any(marks: list[Node]) -> Node:
    if len(marks) == 1:
        return marks[0]
    node = Node()
    node.bool_expr.boolop = kinds.OR_EXPR
    node.bool_expr.args.extend(marks)
    return node


def _operation(names: tuple[str, ...], left: Node, right: Node) -> Node:
    node = Node()
    node.a_expr.kind = kinds.AEXPR_OP
    for name in names:
        node.a_expr.name.add().string.sval = name
    node.a_expr.lexpr.CopyFrom(left)
    node.a_expr.rexpr.CopyFrom(right)
    return node


def _tested(comparison: Node, test: Test) -> Node:
    node = Node()
    node.boolean_test.booltesttype = test.value
    node.boolean_test.arg.CopyFrom(comparison)
    return node


def _is_null(value: Node) -> Node:
    """Whether a value is NULL as a whole: IS NULL would ask for the fields of a composite."""
    node = Node()
    node.a_expr.kind = kinds.AEXPR_NOT_DISTINCT
    node.a_expr.name.add().string.sval = "="
    node.a_expr.lexpr.CopyFrom(value)
    node.a_expr.rexpr.CopyFrom(_constant(None))
    return node


def _constant(value: bool | None) -> Node:
    node = Node()
    if value is None:
        node.a_const.isnull = True
    else:
        node.a_const.boolval.boolval = value
    return node
