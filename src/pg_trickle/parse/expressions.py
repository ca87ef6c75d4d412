"""Scalar expressions: names resolved to plan columns, anything without a rule refused."""

from __future__ import annotations

from dataclasses import replace as replaced
from functools import partial
from itertools import product

from postgast.pg_query_pb2 import AEXPR_OP, Node

from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.moments import is_time
from pg_trickle.parse.scope import JSON_AGGREGATES, Context, Scope
from pg_trickle.parse.spelling import by_value_within, spelled
from pg_trickle.parse.timed import HINT
from pg_trickle.parse.tree import (
    column_reference,
    inner,
    is_constant,
    is_faithful,
    is_risky,
    kind,
    located,
    location,
    nodes,
    outside_subqueries,
    printed,
    rebuilt,
    shielded,
    strings,
    written,
)
from pg_trickle.parse.types import Resolve, Types, declared
from pg_trickle.scalar import Column, Scalar, Type, identifier


class SpellingTold(Exception):
    """An expression tells equal values of a group apart: each has to be shown as a row reads that is there."""


# Kinds of node that PostgreSQL evaluates row by row from their operands alone.
_PLAIN = frozenset({
    "column_ref", "a_const", "type_cast", "func_call", "a_expr", "bool_expr", "null_test", "boolean_test", "case_expr",
    "case_when", "coalesce_expr", "min_max_expr", "a_array_expr", "row_expr", "collate_clause", "a_indirection",
    "a_indices", "named_arg_expr", "list", "string", "integer", "sort_by", "json_is_predicate", "grouping_func",
    "sub_link", "res_target",
})  # fmt: skip
# Of these the printer is known to drop clauses, so what it prints is read again.
_SPELLED = frozenset({
    "json_object_constructor", "json_array_constructor", "json_key_value", "json_value_expr", "json_func_expr",
    "json_argument", "json_scalar_expr", "json_serialize_expr", "json_parse_expr", "xml_expr", "xml_serialize",
    *JSON_AGGREGATES,
})  # fmt: skip
_STRICT = {(name,) for name in ("=", "<>", "<", ">", "<=", ">=", "+", "-", "*", "/", "%")}
_COMPARISONS = {(name,) for name in ("=", "<>", "<", ">", "<=", ">=")}
_REFUSED = {
    "sqlvalue_function": (
        "session value",
        "it changes without any row changing.",
        "Leave it out, and compare with it where you read the stream table.",
    ),
    "a_star": (
        "whole-row reference",
        "a row value hides which columns it reads.",
        "Name the columns, or make the row by ROW(…) with a type.",
    ),
}


def check(node: Node, context: Context, *, timed: bool = False) -> None:
    """Refuse whatever isn't computed from the row, and subqueries' results, alone; or, if ``timed``, from the time."""
    for part in outside_subqueries(node):
        held = kind(part)
        if is_time(part) or held == "param_ref":
            if not timed:
                raise UnsupportedQuery(
                    "time outside a condition",
                    "every row would change at every moment; it may be in any condition, and as a day.",
                    hint=HINT,
                    position=location(part),
                )
            continue
        if held in _REFUSED:
            construct, reason, hint = _REFUSED[held]
            by_itself = held == "sqlvalue_function"
            raise UnsupportedQuery(construct, reason, hint=hint, position=location(part), by_itself=by_itself)
        if held == "func_call":
            _check_call(part, context)
        elif held in JSON_AGGREGATES and inner(part).constructor.HasField("over"):  # type: ignore[attr-defined]
            raise UnsupportedQuery(
                "SQL/JSON aggregate as a window function", "no rule knows it.", position=location(part)
            )
        elif held and held not in _PLAIN | _SPELLED:
            raise UnsupportedQuery(
                f"{held.replace('_', ' ')}", "no rule knows this expression.", position=location(part)
            )


def _check_call(part: Node, context: Context) -> None:
    call = part.func_call
    name = strings(list(call.funcname))
    if call.HasField("over"):
        raise UnsupportedQuery(
            f"window function {name[-1]}()", "windows have no delta rule yet.", position=location(part)
        )


def scalar(node: Node, scope: Scope, context: Context, *, timed: bool = False, is_aggregate: bool = False) -> Scalar:
    """An expression over the columns in scope, or a whole aggregate of them.

    ``timed``: it is part of a condition that may read the time.
    """
    with located(node):
        return _located(node, scope, context, timed, is_aggregate)


def _located(node: Node, scope: Scope, context: Context, timed: bool, is_aggregate: bool) -> Scalar:
    check(node, context, timed=timed)
    for part in outside_subqueries(node):
        if kind(part) == "sub_link":
            raise UnsupportedQuery(
                "subquery in an expression", "it stands where no rule looks for one.", position=location(part)
            )
        if context.aggregates(part) and not (is_aggregate and part is node):
            # PostgreSQL lets no other stand here.
            raise UnsupportedQuery(
                "aggregate of a query around", "its subquery's rows would depend on it.", position=location(part)
            )
    return _scalar(node, scope.resolve, context)


def returns_set(node: Node, context: Context) -> bool:
    """Whether an expression makes any number of rows of one."""
    return any(
        fact.set_returning
        for part in outside_subqueries(node)
        if kind(part) == "func_call"
        for fact in context.functions(strings(list(part.func_call.funcname)))
    )


def over_columns(node: Node, columns: tuple[Column, ...], context: Context) -> Scalar:
    """An expression whose references already are plan columns."""
    known = {column.name: column for column in columns}
    return _scalar(node, lambda name: known[name[0]], context)


def resolved(node: Node, scope: Scope) -> Node:
    """The expression with every reference replaced by the plan column it means; subqueries stay as they are."""

    def replace(part: Node) -> Node | None:
        if kind(part) == "sub_link":
            return part
        if kind(part) != "column_ref":
            return None
        return column_reference(scope.resolve(strings(list(part.column_ref.fields))).name)

    return rebuilt(node, replace)


def _scalar(node: Node, resolve: Resolve, context: Context) -> Scalar:
    used: list[Column] = []

    def replace(part: Node) -> Node | None:
        if kind(part) != "column_ref":
            return None
        column = resolve(strings(list(part.column_ref.fields)))
        used.append(column)
        return column_reference(column.name)

    types = Types(context.request.functions, resolve)
    for part in outside_subqueries(node):
        if kind(part) == "a_indirection" and types.of(part.a_indirection.arg).is_row:
            raise UnsupportedQuery(
                "field of a row without a type",
                "which fields it has is known to PostgreSQL alone.",
                hint="Use the column that it was made of.",
                position=location(part),
            )
    rebuilt_node = rebuilt(node, replace)
    text = identifier(used[0].name) if kind(node) == "column_ref" else printed(rebuilt_node)
    as_written = written(rebuilt_node)
    if _can_be_spoilt(node) and not any(is_faithful(one, text) for one in (as_written, shielded(as_written))):
        raise UnsupportedQuery(f"{_spelled(node)} expression", "its text can't be printed faithfully.")
    return Scalar(
        text=text,
        columns=frozenset(column.name for column in used),
        type=_spelled_anyhow(rebuilt_node, used, types.of(node), context),
        not_null=types.not_null(node),
        equates=_equates(node, used, types),
        compares=_compares(node, used, types),
        returns_set=returns_set(node, context),
        strict=_strict(node, resolve),
        fixes=_fixes(node, used, types),
        sides=_sides(node, resolve),
    )


def _spelled_anyhow(node: Node, used: list[Column], of: Type, context: Context) -> Type:
    """The type of an expression, which may be over groups' keys: refused if it tells equal ones apart.

    A key reads as it did when its group came, and the row that read so may be gone.
    """
    loose = {one.name: one.type for one in used if one.type.respelled}
    if not loose:
        return of
    told = _told_within(by_value_within(node) if _gathers(node, context) else [node], loose)
    if told is not None and not context.spelt:
        raise SpellingTold
    if told is not None:
        raise UnsupportedQuery(
            "expression that tells equal values of a group apart",
            f'of "{told}" the group may show 1.0 when all rows that read so are gone, and 1.00 is left.',
            hint="Group by the expression itself, or by one form of the value, such as round(…, 2).",
            position=location(node),
        )
    return of if of.has_one_image else replaced(of, respelled=True)


def _told_within(parts: list[Node], loose: dict[str, Type]) -> str | None:
    """A column of which an expression tells more than the value."""
    for part, of_numbers in product(parts, (True, False)):
        names = {name for name, of in loose.items() if of.is_exact == of_numbers}
        for told in spelled(part, partial(_is_any, names=names), by_value=True, of_numbers=of_numbers):
            return _name(told)
    return None


def _is_any(node: Node, names: set[str]) -> bool:
    return kind(node) == "column_ref" and _name(node) in names


def _gathers(node: Node, context: Context) -> bool:
    """Whether it is an aggregate or a window function."""
    return context.aggregates(node) or (kind(node) == "func_call" and node.func_call.HasField("over"))


def _name(reference: Node) -> str:
    return strings(list(reference.column_ref.fields))[0]


def _strict(node: Node, resolve: Resolve) -> frozenset[str]:
    """The columns of which a NULL makes an expression NULL, as far as PostgreSQL's own operators and casts tell.

    The canonical query qualifies any operator that isn't PostgreSQL's own.
    """
    match kind(node):
        case "column_ref":
            return frozenset((resolve(strings(list(node.column_ref.fields))).name,))
        case "type_cast" if declared(node.type_cast.type_name).name is not None:
            inside = Types((), resolve).of(node.type_cast.arg)
            return frozenset() if inside.name is None else _strict(node.type_cast.arg, resolve)
        case "a_expr" if node.a_expr.kind == AEXPR_OP and strings(list(node.a_expr.name)) in _STRICT:
            sides = [node.a_expr.rexpr, *([node.a_expr.lexpr] if node.a_expr.HasField("lexpr") else [])]
            return frozenset().union(*(_strict(side, resolve) for side in sides))
        case _:
            return frozenset()


def _can_be_spoilt(node: Node) -> bool:
    return any(kind(part) in _SPELLED or is_risky(part) for part in nodes(node))


def _spelled(node: Node) -> str:
    return "SQL/JSON or XML" if any(kind(part) in _SPELLED for part in nodes(node)) else "nested"


def _compares(node: Node, used: list[Column], types: Types) -> tuple[str, str] | None:
    if kind(node) != "a_expr" or node.a_expr.kind != AEXPR_OP or strings(list(node.a_expr.name)) not in _COMPARISONS:
        return None
    if not all(kind(_bare(side, types)) == "column_ref" for side in (node.a_expr.lexpr, node.a_expr.rexpr)):
        return None
    left, right = used
    return left.name, right.name


def _bare(node: Node, types: Types) -> Node:
    """A column without the cast that PostgreSQL puts around a varchar, which has no comparisons but those of text."""
    if kind(node) != "type_cast" or declared(node.type_cast.type_name).name != "text":
        return node
    inside = node.type_cast.arg
    return inside if kind(inside) == "column_ref" and types.of(inside).name == "varchar" else node


def _is_equality(node: Node) -> bool:
    return kind(node) == "a_expr" and node.a_expr.kind == AEXPR_OP and strings(list(node.a_expr.name)) == ("=",)


def _equates(node: Node, used: list[Column], types: Types) -> tuple[str, str] | None:
    if _compares(node, used, types) is None or not _is_equality(node):
        return None
    left, right = used
    return equated(left, right)


def _sides(node: Node, resolve: Resolve) -> tuple[frozenset[str], frozenset[str]] | None:
    if not _is_equality(node):
        return None

    def read(side: Node) -> frozenset[str]:
        references = (part for part in nodes(side) if kind(part) == "column_ref")
        return frozenset(resolve(strings(list(part.column_ref.fields))).name for part in references)

    return read(node.a_expr.lexpr), read(node.a_expr.rexpr)


def _fixes(node: Node, used: list[Column], types: Types) -> str | None:
    """The column of ``column = constant``, if rows that satisfy it are equal by the column's keys."""
    if not _is_equality(node):
        return None
    left, right = _bare(node.a_expr.lexpr, types), _bare(node.a_expr.rexpr, types)
    if kind(left) != "column_ref":
        left, right = right, left
    if kind(left) != "column_ref" or not is_constant(right):
        return None
    (fixed,) = used
    return fixed.name if _are_alike(fixed.type, types.of(right)) else None


def equated(left: Column, right: Column) -> tuple[str, str] | None:
    """Both columns of ``left = right``, if values that are equal to the same are equal by the keys of either side.

    Across types they need not be: two timestamps may be the same moment, when the clocks are changed.
    Nor across collations: one that ignores case decides the comparison.
    """
    alike = left.type.name == right.type.name or _are_alike(left.type, right.type)
    return (left.name, right.name) if alike and left.type.identity is right.type.identity else None


def _are_alike(one: Type, other: Type) -> bool:
    """Whether two built-in types have one equality."""
    several = (one.is_integer and other.is_integer) or (one.is_varying and other.is_varying)
    return several or (one.name is not None and one.name == other.name)
