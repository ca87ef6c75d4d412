"""What is known of an expression's type without asking the server.

Where an answer isn't certain it is ``UNKNOWN``, and the rules take the careful way:
compare by text, recompute the group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

from postgast.pg_query_pb2 import AEXPR_NULLIF, AEXPR_OP, A_Const, A_Expr, FuncCall, Node, TypeCast, TypeName

from pg_trickle.catalog.model import ColumnFact, FunctionFact
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse.tree import NAMED_ROW, kind, nodes, strings
from pg_trickle.scalar import (
    BOOL,
    INT4,
    INT8,
    NUMERIC,
    RECORD,
    RECORDS,
    TEXT,
    UNKNOWN,
    Column,
    Identity,
    Type,
    identifier,
    numeric_of,
)

_POLYMORPHIC = {"anyelement", "anyarray"}
_EQUAL = {
    "bool", "int2", "int4", "int8", "oid", "text", "varchar", "name", "date", "timestamp", "timestamptz", "time",
    "uuid", "bytea",
}  # fmt: skip
# They have no order.
_HASHED = {"xid", "cid", "aclitem"}
_TEXTUAL = {"text", "varchar", "bpchar", "name"}
_ALIASES = {
    "boolean": "bool",
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
    "character varying": "varchar",
    "character": "bpchar",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
}
_INTEGERS = ("int2", "int4", "int8")
# What is left of a time when so much is added to it or taken from it, or another time.
_TIMES = {
    ("date", "+", "int4"): "date",
    ("date", "-", "int4"): "date",
    ("date", "-", "date"): "int4",
    ("date", "+", "interval"): "timestamp",
    ("date", "-", "interval"): "timestamp",
    ("timestamp", "+", "interval"): "timestamp",
    ("timestamp", "-", "interval"): "timestamp",
    ("timestamptz", "+", "interval"): "timestamptz",
    ("timestamptz", "-", "interval"): "timestamptz",
}
_WHOLE_FIELDS = {
    "millennium", "century", "decade", "year", "isoyear", "quarter", "month", "week", "day", "dow", "isodow", "doy",
    "hour", "minute",
}  # fmt: skip
_COMPARISONS = {"=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~", "!~", "~*", "!~*", "@>", "<@", "&&"}

Resolve = Callable[[tuple[str, ...]], Column]


def named(name: str) -> Type:
    """The type of a name, as ``format_type`` or the grammar writes it; UNKNOWN unless it is a simple built-in."""
    if name.endswith("[]"):
        return _array(named(name.removesuffix("[]")))
    base = _ALIASES.get(name, name)
    if base in _EQUAL:
        return Type(base, Identity.EQUAL, 0 if base in _INTEGERS else None)
    if base == "numeric":
        return NUMERIC
    if base in {"float4", "float8", "interval", "jsonb", "bpchar"}:
        return Type(base, Identity.TEXT)
    if base in _HASHED:
        return Type(base, Identity.NONE)
    # Only what somebody has made is qualified; anyelement and the like are no types to cast to.
    return replace(UNKNOWN, spelled=name if "." in name else None)


def fact_type(fact: ColumnFact) -> Type:
    """The type of a column as the catalog knows it."""
    scale = 0 if fact.base in _INTEGERS else fact.scale
    return Type(fact.base, Identity(fact.identity), scale, fact.hashable, spelled=fact.spelled)


class Types:
    """Infers types of expressions over columns that ``resolve`` knows."""

    def __init__(self, functions: tuple[FunctionFact, ...], resolve: Resolve) -> None:
        self._functions = functions
        self._resolve = resolve

    def of(self, node: Node) -> Type:
        """The type of an expression."""
        found = self._of(node)
        textual = (found.name or "").removeprefix("_") in _TEXTUAL
        if textual and found.identity is Identity.EQUAL and self._has_loose_text(node):
            return replace(found, identity=Identity.TEXT)
        return found

    def not_null(self, node: Node) -> bool:
        """Whether an expression is certainly never NULL."""
        match kind(node):
            case "column_ref":
                return self._resolve(strings(list(node.column_ref.fields))).not_null
            case "a_const":
                return not node.a_const.isnull
            case "type_cast":
                # A JSON null becomes NULL, and so may anything in a cast that somebody defined.
                inside = self._of(node.type_cast.arg).name
                known = inside not in {None, "jsonb"} and declared(node.type_cast.type_name).name is not None
                return known and self.not_null(node.type_cast.arg)
            case "null_test" | "boolean_test":
                return True
            case "coalesce_expr":
                return any(map(self.not_null, node.coalesce_expr.args))
            case _:
                return False

    def _has_loose_text(self, node: Node) -> bool:
        """Whether a collation under which equal texts may differ could reach the result."""
        for part in nodes(node):
            if kind(part) == "collate_clause":
                return True
            if kind(part) == "column_ref":
                of = self._resolve(strings(list(part.column_ref.fields))).type
                if of.identity is not Identity.EQUAL and of.name in _TEXTUAL | {None}:
                    return True
        return False

    def _of(self, node: Node) -> Type:
        match kind(node):
            case "column_ref":
                return self._resolve(strings(list(node.column_ref.fields))).type
            case "a_const":
                return _constant(node.a_const)
            case "type_cast":
                return self._casting(node.type_cast)
            case "a_expr":
                return self._operation(node.a_expr)
            case "bool_expr" | "null_test" | "boolean_test":
                return BOOL
            case "coalesce_expr":
                return self.common(list(node.coalesce_expr.args))
            case "min_max_expr":
                return self.common(list(node.min_max_expr.args))
            case "case_expr":
                results = [when.case_when.result for when in node.case_expr.args]
                other = [node.case_expr.defresult] if node.case_expr.HasField("defresult") else []
                return self.common(other + results)
            case "collate_clause":
                return self._of(node.collate_clause.arg)
            case "row_expr":
                return RECORD
            case "func_call":
                return self._call(node.func_call)
            case _:
                return UNKNOWN

    def _casting(self, cast: TypeCast) -> Type:
        to = declared(cast.type_name)
        if to.name == "numeric" and to.scale is None:
            inside = self._of(cast.arg)
            return replace(to, scale=inside.scale, scales=inside.scales) if inside.is_exact else to
        return to

    def common(self, parts: list[Node]) -> Type:
        """The type of expressions that PostgreSQL brings to one, in the order in which it looks at them."""
        found = [self._of(part) for part in parts if not (kind(part) == "a_const" and part.a_const.isnull)]
        kinds = set(found)
        if len(kinds) == 1:
            return kinds.pop()
        if padded := _padded(found):
            return padded
        if {of.name for of in kinds} == {"numeric"}:
            known = all(of.decimals for of in kinds)
            return numeric_of(frozenset[int]().union(*(of.decimals for of in kinds))) if known else NUMERIC
        spelled = {of.spelled for of in kinds}
        return replace(UNKNOWN, spelled=spelled.pop() if len(spelled) == 1 else None)

    def _operation(self, expression: A_Expr) -> Type:
        qualified = strings(list(expression.name))
        if len(qualified) > 1 and qualified[0] != "pg_catalog":
            # Somebody else's operator, whatever its name.
            return UNKNOWN
        name = qualified[-1]
        if expression.kind != AEXPR_OP or name in _COMPARISONS:
            return BOOL if expression.kind != AEXPR_NULLIF else UNKNOWN
        if not expression.HasField("lexpr"):
            return self._of(expression.rexpr) if name in {"-", "+"} else UNKNOWN
        left, right = self._of(expression.lexpr), self._of(expression.rexpr)
        if name in {"+", "-", "*"} and left.is_exact and right.is_exact:
            return _arithmetic(name, left, right)
        if name == "/" and left.is_integer and right.is_integer:
            return _arithmetic(name, left, right)
        if name in {"/", "%"} and left.is_exact and right.is_exact:
            return NUMERIC if "numeric" in {left.name, right.name} else _arithmetic(name, left, right)
        if name == "||" and left.name in _TEXTUAL and right.name in _TEXTUAL:
            return TEXT
        if name in {"->>", "#>>"} and left.name in {"json", "jsonb"}:
            return TEXT
        return named(_TIMES.get((left.name or "", name, right.name or ""), ""))

    def _call(self, call: FuncCall) -> Type:
        name, arguments = strings(list(call.funcname)), list(call.args)
        if name == ("pg_catalog", "extract") and _field(arguments[0]) in _WHOLE_FIELDS:
            # Of a time without end it is infinite, which no declared scale is.
            return replace(NUMERIC, identity=Identity.EQUAL)
        if name in {("unnest",), ("pg_catalog", "unnest")} and len(arguments) == 1:
            return _element(self._of(arguments[0]))
        returned = {
            fact.returns
            for fact in self._functions
            if fact.name == name[-1] and (fact.schema == name[0] if len(name) > 1 else fact.builtin)
        }
        if call.agg_within_group and returned == {"anyelement"}:
            # One of the values that are sorted.
            return self._of(call.agg_order[0].sort_by.node)
        if returned & _POLYMORPHIC and any(self._of(one).is_row for one in arguments):
            return RECORDS if "anyarray" in returned else RECORD
        return named(returned.pop()) if len(returned) == 1 else UNKNOWN


def _padded(types: list[Type]) -> Type | None:
    """The type of texts of which some are padded with blanks: the first's, as each can be brought to any other.

    Whose collation it has isn't looked at, so that equal values may differ.
    """
    names = [of.name for of in types]
    if "bpchar" not in names or not set(names) <= {"bpchar", *_VARYING}:
        return None
    return Type(names[0], Identity.TEXT)


def _field(node: Node) -> str:
    """Which part of a time is extracted, as the grammar writes it."""
    return node.a_const.sval.sval.lower() if kind(node) == "a_const" else ""


def _array(element: Type) -> Type:
    """The type of arrays of a type."""
    same = Identity.EQUAL if element.identity is Identity.EQUAL else Identity.TEXT
    return UNKNOWN if element.name is None else Type(f"_{element.name}", same)


def _element(array: Type) -> Type:
    """The type of an array's elements: built-in array types are named after them."""
    of = named((array.name or "").removeprefix("_")) if (array.name or "").startswith("_") else UNKNOWN
    # Only of an array whose collation doesn't matter.
    return of if array.identity is Identity.EQUAL or of.identity is not Identity.EQUAL else UNKNOWN


def _constant(constant: A_Const) -> Type:
    match constant.WhichOneof("val"):
        case "ival":
            return INT4
        case "fval":
            digits = constant.fval.fval
            if digits.isdigit():
                return INT8 if int(digits) < 2**63 else replace(NUMERIC, scale=0)
            plain = digits.replace(".", "", 1).isdigit()
            return replace(NUMERIC, scale=len(digits.partition(".")[2])) if plain else NUMERIC
        case "boolval":
            return BOOL
        case _:
            return UNKNOWN


def declared(to: TypeName) -> Type:
    """The type that a cast or a column definition names."""
    parts = strings(list(to.names))
    if parts[-1] in {NAMED_ROW, "record"}:
        return RECORD
    if len(parts) > 1 and parts[0] != "pg_catalog":
        return replace(UNKNOWN, spelled=".".join(map(identifier, parts)) + ("[]" if to.array_bounds else ""))
    of = named(parts[-1])
    if to.array_bounds:
        return _array(of)
    if of.name == "numeric" and len(to.typmods) == 2:
        return replace(of, scale=to.typmods[1].a_const.ival.ival)
    if of.name == "numeric" and len(to.typmods) == 1:
        return replace(of, scale=0)
    return of


def _arithmetic(name: str, left: Type, right: Type) -> Type:
    if "numeric" not in {left.name, right.name}:
        wide = max(_INTEGERS.index(left.name or ""), _INTEGERS.index(right.name or ""))
        return Type(_INTEGERS[wide], Identity.EQUAL, 0)
    # numeric_mul and numeric_add keep every decimal of their inputs
    kept = (one + other if name == "*" else max(one, other) for one, other in product(left.decimals, right.decimals))
    return numeric_of(frozenset(kept))


Common = tuple[Type, str | None]
"""A type, and its name as a cast writes it where values must be cast to it."""

# Each is cast to any behind it where PostgreSQL looks for a common type; the last of a row is preferred.
_WIDER = (("int2", "int4", "int8", "numeric", "float4", "float8"), ("date", "timestamp", "timestamptz"))
_VARYING = {"text", "varchar"}


def common_type(types: list[Type], expected: Common | None, label: str) -> Common:
    """The type that PostgreSQL gives a column of a set operation; raises UnsupportedQuery where that isn't certain."""
    loose = {of.identity for of in types if of.name in _TEXTUAL}
    if len(loose - {Identity.EQUAL}) == 1 and Identity.EQUAL in loose and not any(of.name == "bpchar" for of in types):
        raise UnsupportedQuery(
            "set operation over different collations",
            f'equal values of column "{label}" differ in one branch and not in another.',
            hint="Write the same COLLATE clause in every branch.",
        )
    if expected is not None:
        return expected
    first = types[0]
    if all(of == first for of in types) and (first.name is not None or first.identity is not Identity.NONE):
        return first, None
    known = {of.name for of in types}
    if padded := _padded(types):
        return padded, f"pg_catalog.{padded.name}"
    if known == {"numeric"}:
        return NUMERIC, None
    if known <= _VARYING:
        return first, None
    for wider in _WIDER:
        if all(name in wider for name in known):
            widest = max((name or "" for name in known), key=wider.index)
            return named(widest), f"pg_catalog.{widest}"
    raise UnsupportedQuery(
        "set operation over different types inside a derived table",
        f'the common type of column "{label}" isn\'t certain.',
        hint="Cast the column to one plain type in every branch: integer, numeric, text, date.",
    )
