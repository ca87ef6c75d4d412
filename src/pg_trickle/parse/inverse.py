"""Comparisons with the time, turned round: a range of the column, wide enough for certain, in which time may tell.

A comparison is another now only if one of its sides has passed the other.  So with a moment M, M° at the last
refresh, and a constant K::

    f(c) < M        changes only where f(c) is between M° and M
    g(M − c) < K    changes only where K is between g(M° − c) and g(M − c):  M − c and M° − c about g⁻¹(K)

for f and g that never fall as their argument grows.  What is left is to turn f and g round, outermost first, into a
range of c.  That needn't be exact, for the condition itself is asked of the rows in it: where months, days, time zones
or roundings are in the way, the range is wider by more than they can do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from postgast import pg_query_pb2 as kinds
from postgast.pg_query_pb2 import Node
from psycopg import sql

from pg_trickle.parse.moments import (
    before,
    called,
    cast_to,
    has_zone,
    is_date,
    is_interval,
    is_moment,
    reads_time,
    unshielded,
)
from pg_trickle.parse.tree import kind, strings
from pg_trickle.scalar import BOOL, Scalar, composed

Parsed = Callable[[Node], Scalar]

CONTAINS = frozenset({"@>", "<@"})
_MOMENTS = frozenset({"date", "timestamp", "timestamptz"})
_NUMBERS = frozenset({"int2", "int4", "int8", "numeric", "float8"})
_RANGES = frozenset({"tstzrange", "tsrange", "daterange"})
_HOURS_ALONE = re.compile(r"-?\d+:\d\d(:\d\d(\.\d+)?)?")
_WITHOUT_MONTHS = re.compile(r"-?\d+ days?( -?\d+:\d\d(:\d\d(\.\d+)?)?)?")
# No clock has ever been put forward or back by more than a day and a bit, or is further from another's.
_CLOCKS = sql.SQL("'52:00'::interval")
# A month's last day after one of another month: three days, and the clocks.
_MONTHS = sql.SQL("'124:00'::interval")
_SECOND = sql.SQL("'1 second'::interval")
_UNITS = {"year": sql.SQL("'8830:00'::interval"), "quarter": sql.SQL("'2260:00'::interval")}
_UNIT = sql.SQL("'796:00'::interval")
_SHORT = {"microseconds", "milliseconds", "second", "minute", "hour", "day", "week", "month", *_UNITS}


@dataclass(frozen=True, slots=True)
class _Between:
    """The values from ``low`` to ``high``, as SQL; moments with a time zone, or without, if that is known."""

    low: sql.Composable
    high: sql.Composable
    zoned: bool | None = None

    def each(self, template: sql.SQL, **parts: sql.Composable) -> _Between:
        """Both ends put through a template, as ``v``."""
        return replace(self, low=template.format(v=self.low, **parts), high=template.format(v=self.high, **parts))

    def wider(self, less: sql.Composable, more: sql.Composable) -> _Between:
        """The same, and so much beyond each end."""
        low = sql.SQL("({v} - {less})").format(v=self.low, less=less)
        return replace(self, low=low, high=sql.SQL("({v} + {more})").format(v=self.high, more=more))


def crossed(comparison: kinds.A_Expr, parse: Parsed) -> Scalar | None:
    """The range for a comparison."""
    for one, other in ((comparison.lexpr, comparison.rexpr), (comparison.rexpr, comparison.lexpr)):
        if not is_moment(other):
            continue
        if strings(list(comparison.name))[0] in CONTAINS:
            return _overlapping(one, other, parse)
        if reads_time(other):
            return None if reads_time(one) else _column(one, other, parse) or _moment(one, _passed(other, parse), parse)
        value = sql.SQL("({v})").format(v=parse(other).sql())
        turn = _interval if is_interval(other) else _number
        return turn(one, _Between(value, value), parse)
    return None


def _passed(moment: Node, parse: Parsed) -> _Between:
    """From where a moment was at the last refresh to where it is."""
    parts = {"was": parse(before(moment)).sql(), "now": parse(moment).sql()}
    least = sql.SQL("LEAST({was}, {now})").format(**parts)
    return _Between(least, sql.SQL("GREATEST({was}, {now})").format(**parts), has_zone(moment))


def _overlapping(ranges: Node, moment: Node, parse: Parsed) -> Scalar | None:
    """Of ranges that hold a moment: those that have something of the time that has passed."""
    if kind(ranges) != "column_ref":
        return None
    value, passed = parse(ranges), _passed(moment, parse)
    if value.type.name not in _RANGES:
        return None
    text = sql.SQL("{c} && {type}({low}, {high}, '[]')").format(
        c=value.sql(), type=sql.Identifier("pg_catalog", value.type.name), low=passed.low, high=passed.high
    )
    return composed(text, value.columns, BOOL)


def _column(node: Node, moment: Node, parse: Parsed) -> Scalar | None:
    """The range of a column that is compared as it is, in whose order an index on it is; exact.

    A timestamp without time zone is none beside one with: the clocks are changed twice a year.
    """
    value, passed = _plain(node, parse), _passed(moment, parse)
    if value is None:
        return None
    is_ordered = value.type.name in {"date", "timestamptz"} or (
        value.type.name == "timestamp" and passed.zoned is False
    )
    return _within(value, passed, sql.SQL("{v}")) if is_ordered else None


def _plain(node: Node, parse: Parsed) -> Scalar | None:
    """The column that an expression is: one of FROM, or an aggregate of groups."""
    if kind(node) not in {"column_ref", "func_call"}:
        return None
    value = parse(node)
    return value if kind(node) == "column_ref" or value.is_column else None


def _within(value: Scalar, between: _Between, template: sql.SQL) -> Scalar:
    ends = between.each(template)
    text = sql.SQL("{c} >= {low} AND {c} <= {high}").format(c=value.sql(), low=ends.low, high=ends.high)
    return composed(text, value.columns, BOOL)


def _moment(node: Node, between: _Between, parse: Parsed) -> Scalar | None:
    """The range of the column for which a moment computed from it is between others."""
    value = _plain(node, parse)
    if value is not None:
        return _column_as(value, between)
    match kind(node):
        case "type_cast" if cast_to(node) in _MOMENTS:
            return _moment(node.type_cast.arg, between.wider(_CLOCKS, _CLOCKS), parse)
        case "func_call" if called(node) == "date" and len(node.func_call.args) == 1:
            return _moment(node.func_call.args[0], between.wider(_CLOCKS, _CLOCKS), parse)
        case "func_call" if called(node) == "timezone" and len(node.func_call.args) > 1:
            return _moment(node.func_call.args[1], between.wider(_CLOCKS, _CLOCKS), parse)
        case "func_call" if called(node) == "date_trunc":
            unit = str(unshielded(node.func_call.args[0]).a_const.sval.sval).lower()
            if unit not in _SHORT:
                return None
            return _moment(node.func_call.args[1], between.wider(_CLOCKS, _UNITS.get(unit, _UNIT)), parse)
        case "a_expr":
            return _shifted(node.a_expr, between, parse)
        case _:
            return None


def _column_as(value: Scalar, between: _Between) -> Scalar | None:
    wide = between if between.zoned is (value.type.name == "timestamptz") else between.wider(_CLOCKS, _CLOCKS)
    match value.type.name:
        case "date":
            return _within(value, wide, sql.SQL("({v})::date"))
        case "timestamp":
            return _within(value, wide, sql.SQL("({v})::timestamp"))
        case "timestamptz":
            return _within(value, wide, sql.SQL("({v})::timestamptz"))
        case _:
            return None


def _shifted(operation: kinds.A_Expr, between: _Between, parse: Parsed) -> Scalar | None:
    """The same where an interval, or to a date a number of days, is added or subtracted."""
    name = strings(list(operation.name))
    sides = [(operation.lexpr, operation.rexpr)]
    if name == ("+",):
        sides.append((operation.rexpr, operation.lexpr))
    for moment, by in sides if operation.kind == kinds.AEXPR_OP and name in {("+",), ("-",)} else ():
        if not is_moment(by) or reads_time(by):
            continue
        amount = _amount(by, parse)
        if amount is None:
            return None
        there = sql.SQL("({v} - {by})") if name == ("+",) else sql.SQL("({v} + {by})")
        back = between.each(there, by=amount)
        slack = _slack(by)
        return _moment(moment, back.wider(slack, slack) if slack else back, parse)
    return None


def _amount(node: Node, parse: Parsed) -> sql.Composable | None:
    """An interval, or a number of days as one."""
    if is_interval(node):
        return sql.SQL("({v})").format(v=parse(node).sql())
    if _is_integer(node):
        return sql.SQL("({v} * '24:00'::interval)").format(v=parse(node).sql())
    return None


def _is_integer(node: Node) -> bool:
    value = unshielded(node)
    return kind(value) == "a_const" and value.a_const.WhichOneof("val") == "ival"


def _slack(node: Node) -> sql.Composable | None:
    """By how much going back by an interval may miss where one came from: months aren't all as long, nor days."""
    value = unshielded(node)
    spelt = str(value.a_const.sval.sval) if kind(value) == "a_const" else ""
    if _is_integer(node) or _HOURS_ALONE.fullmatch(spelt):
        return None
    return _CLOCKS if _WITHOUT_MONTHS.fullmatch(spelt) else _MONTHS


def _interval(node: Node, between: _Between, parse: Parsed) -> Scalar | None:
    """The range for which the interval between the time and a column's moment is between others.

    Intervals compare as if months had 30 days and days 24 hours.  ``age()`` counts in months and days of the calendar:
    a year of its is up to a 59th longer.
    """
    long = between.each(
        sql.SQL("((extract(epoch FROM {v}) - 453600 * extract(year FROM {v}))::float8 * '1 second'::interval)")
    ).wider(_SECOND, _SECOND)
    if kind(node) == "func_call" and called(node) == "age" and len(node.func_call.args) == 1 + 1:
        one, other = node.func_call.args
        low = sql.SQL("LEAST({v}, {v} * 1.02)").format(v=long.low)
        high = sql.SQL("GREATEST({v}, {v} * 1.02)").format(v=long.high)
        return _apart(one, other, _Between(low, high).wider(_MONTHS, _MONTHS), parse)
    if _is_difference(node):
        return _apart(node.a_expr.lexpr, node.a_expr.rexpr, long, parse)
    return None


def _is_difference(node: Node) -> bool:
    return kind(node) == "a_expr" and node.a_expr.kind == kinds.AEXPR_OP and strings(list(node.a_expr.name)) == ("-",)


def _apart(one: Node, other: Node, between: _Between, parse: Parsed) -> Scalar | None:
    """The range for which the first of two moments is later than the second by as much."""
    parts = {"less": between.low, "more": between.high}
    if reads_time(one) and is_moment(one) and not reads_time(other):
        passed = _passed(one, parse)
        low = sql.SQL("({v} - {more})").format(v=passed.low, **parts)
        high = sql.SQL("({v} - {less})").format(v=passed.high, **parts)
        return _moment(other, replace(passed, low=low, high=high), parse)
    if reads_time(other) and is_moment(other) and not reads_time(one):
        passed = _passed(other, parse)
        low = sql.SQL("({v} + {less})").format(v=passed.low, **parts)
        high = sql.SQL("({v} + {more})").format(v=passed.high, **parts)
        return _moment(one, replace(passed, low=low, high=high), parse)
    return None


def _number(node: Node, between: _Between, parse: Parsed) -> Scalar | None:
    """The same for a number that is computed from such an interval: seconds, days, and parts and roundings of them."""
    match kind(node):
        case "func_call" if called(node) in {"extract", "date_part"} and len(node.func_call.args) == 1 + 1:
            return _extracted(unshielded(node.func_call.args[0]), node.func_call.args[1], between, parse)
        case "func_call" if called(node) in {"floor", "ceil", "ceiling", "round", "trunc"}:
            return _number(node.func_call.args[0], _rounded(between), parse)
        case "type_cast" if cast_to(node) in _NUMBERS:
            return _number(node.type_cast.arg, _rounded(between), parse)
        case "a_expr" if node.a_expr.kind == kinds.AEXPR_OP and _is_positive(node.a_expr.rexpr):
            by = parse(node.a_expr.rexpr).sql()
            match strings(list(node.a_expr.name)):
                case ("/",):
                    apart = _rounded(between).each(sql.SQL("({v} * ({by}))"), by=by)
                case ("*",):
                    apart = _rounded(between.each(sql.SQL("({v}::float8 / ({by}))"), by=by))
                case _:
                    return None
            return _number(node.a_expr.lexpr, apart, parse)
        case "a_expr" if _is_difference(node) and _is_between_dates(node.a_expr, parse):
            days = between.each(sql.SQL("({v}::float8 * '24:00'::interval)"))
            return _apart(node.a_expr.lexpr, node.a_expr.rexpr, days, parse)
        case _:
            return None


def _rounded(between: _Between) -> _Between:
    """What rounds into a range."""
    return between.wider(sql.SQL("1"), sql.SQL("1"))


def _is_positive(node: Node) -> bool:
    value = unshielded(node)
    if kind(value) != "a_const":
        return False
    text = str(value.a_const.fval.fval) if value.a_const.WhichOneof("val") == "fval" else str(value.a_const.ival.ival)
    return float(text) > 0


def _is_between_dates(operation: kinds.A_Expr, parse: Parsed) -> bool:
    """Whether both are dates, whose difference is a number."""
    return all(
        is_date(one) or (kind(one) == "column_ref" and parse(one).type.name == "date")
        for one in (operation.lexpr, operation.rexpr)
    )


def _extracted(unit: Node, of: Node, between: _Between, parse: Parsed) -> Scalar | None:
    """Seconds of an interval that has no months; or days, of which what is less is cut off."""
    if not _is_difference(of):
        return None
    match str(unit.a_const.sval.sval):
        case "epoch":
            seconds = _rounded(between).each(sql.SQL("({v}::float8 * '1 second'::interval)"))
            return _apart(of.a_expr.lexpr, of.a_expr.rexpr, seconds, parse)
        case "day":
            days = _rounded(between).each(sql.SQL("({v}::float8 * '24:00'::interval)"))
            return _apart(of.a_expr.lexpr, of.a_expr.rexpr, days, parse)
        case _:
            return None
