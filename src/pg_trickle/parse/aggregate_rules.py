"""Which rule keeps an aggregate, and what it makes."""

from __future__ import annotations

from dataclasses import replace

from postgast.pg_query_pb2 import FuncCall, Node
from psycopg import sql

from pg_trickle.algebra.aggregate import Call, Rule
from pg_trickle.catalog.model import FunctionFact
from pg_trickle.parse.scope import Namer
from pg_trickle.parse.tree import fields, strings
from pg_trickle.parse.types import Types
from pg_trickle.scalar import BOOL, INT8, NUMERIC, Column, Identity, Scalar, Type, column, composed, numeric_of

_RULES = {
    "count": Rule.COUNT,
    "sum": Rule.SUM,
    "avg": Rule.AVG,
    "min": Rule.MIN,
    "max": Rule.MAX,
    "bool_and": Rule.BOOL_AND,
    "every": Rule.BOOL_AND,
    "bool_or": Rule.BOOL_OR,
    "var_pop": Rule.VAR_POP,
    "var_samp": Rule.VAR_SAMP,
    "variance": Rule.VAR_SAMP,
    "stddev_pop": Rule.STDDEV_POP,
    "stddev_samp": Rule.STDDEV_SAMP,
    "stddev": Rule.STDDEV_SAMP,
    "bit_xor": Rule.BIT_XOR,
    "bit_and": Rule.BIT_AND,
    "bit_or": Rule.BIT_OR,
}
_VARIANCES = {Rule.VAR_POP, Rule.VAR_SAMP, Rule.STDDEV_POP, Rule.STDDEV_SAMP}
# They round by the decimals of their longest number.
_ROUNDED = {Rule.AVG} | _VARIANCES
# Of values that come twice the result is the same as of values that come once.
_IDEMPOTENT = {Rule.MIN, Rule.MAX, Rule.BOOL_AND, Rule.BOOL_OR, Rule.BIT_AND, Rule.BIT_OR}
# Roots are rounded twice, which is safe as long as numeric has twice the digits to spare.
_LARGEST_SCALE = 100


def rule_of(call: FuncCall, facts: tuple[FunctionFact, ...], types: Types) -> Rule:
    """The rule for an aggregate over rows, DISTINCT left aside."""
    plain = not (call.agg_order or call.agg_within_group or call.func_variadic)
    if not plain or not all(fact.builtin for fact in facts) or (len(call.args) != 1 and not call.agg_star):
        return Rule.RECOMPUTE
    rule = _RULES.get(strings(list(call.funcname))[-1], Rule.RECOMPUTE)
    if call.agg_star or _is_exact(rule, argument_type(call, types)):
        return rule
    return rule if rule in _ROUNDED and counts_decimals(call, types) else Rule.RECOMPUTE


def counts_decimals(call: FuncCall, types: Types) -> bool:
    """Whether the state can tell how many decimals the longest number has: not where one stands for equal ones."""
    return not call.agg_distinct and types.of(call.args[0]).tells_decimals


def argument_type(call: FuncCall, types: Types) -> Type:
    """The type of what an aggregate takes: which of several equal numbers stands for them all isn't known."""
    of = types.of(call.args[0])
    return replace(of, scales=frozenset()) if call.agg_distinct else of


def _is_exact(rule: Rule, of: Type) -> bool:
    """Whether the rule gives PostgreSQL's own result, to the last digit."""
    if rule is Rule.SUM:
        return of.is_exact
    if rule is Rule.AVG:
        # An average prints, and rounds, with the scale of its sum.
        return of.is_exact and bool(of.decimals)
    if rule in _VARIANCES:
        return of.is_exact and of.scale is not None and of.scale <= _LARGEST_SCALE
    return of.is_integer or rule not in {Rule.BIT_XOR, Rule.BIT_AND, Rule.BIT_OR}


def ignores_distinct(rule: Rule) -> bool:
    """Whether DISTINCT makes no difference."""
    return rule in _IDEMPOTENT


def can_be_distinct(argument: Node, types: Types) -> bool:
    """Whether the argument's values can be a key of a state: of a known type, in no collation but the database's."""
    known = [types.of(one) for one in fields(argument)]
    return all(of.name is not None and of.identity is not Identity.NONE and not of.is_loose_text for of in known)


def as_shown(key: Column, namer: Namer) -> Call | None:
    """A grouping column as it reads in a row of its group that is there; None where all rows have it alike.

    The grouping column is an expression of the group itself, and PostgreSQL shows that of the first row it finds.
    """
    if key.type.grouped.is_identity:
        return None
    made = Column(namer.fresh("shown"), key.type.grouped, key.not_null)
    return Call(made, Rule.RECOMPUTE, column(key))


def result_type(rule: Rule, argument: Column | None, *, is_told: bool) -> Type:
    """The type of the result; ``is_told``: more is told of it than its value."""
    if rule is Rule.COUNT:
        return INT8
    assert argument is not None
    if rule in {Rule.BOOL_AND, Rule.BOOL_OR}:
        return BOOL
    if rule is Rule.SUM:
        small = argument.type.name in {"int2", "int4"}
        whole = numeric_of(argument.type.decimals)
        # A sum prints with the largest scale of its inputs: subtracting can't tell when that one left, and only
        # where somebody looks they are counted.
        return INT8 if small else whole if whole.decimals or is_told else whole.by_value
    if rule is Rule.AVG or rule in _VARIANCES:
        return NUMERIC
    # What is told of MIN and MAX changes with the row that they come from, though it be equal to the one before.
    return argument.type if is_told else argument.type.by_value


def call_text(name: str, argument: Column | None, condition: Column | None, of: Type) -> Scalar:
    """The aggregate over columns."""
    inside = sql.SQL("*") if argument is None else sql.Identifier(argument.name)
    text = sql.SQL("pg_catalog.{name}({inside})").format(name=sql.Identifier(name), inside=inside)
    if condition is not None:
        text = sql.SQL("{call} FILTER (WHERE {condition})").format(call=text, condition=sql.Identifier(condition.name))
    used = frozenset(part.name for part in (argument, condition) if part is not None)
    return composed(text, used, of)
