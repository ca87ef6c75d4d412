"""What a state stores for the aggregates of a stage, and how their values are read from it.

A state has a counter, a sum or a value once, however many aggregates need it (ALGEBRA.md §6).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from psycopg import sql

from pg_trickle.algebra.aggregate import Call, Rule
from pg_trickle.scalar import BOOL, INT8, NUMERIC, Column, Scalar, Type, column, composed


class Role(Enum):
    """What a column of a state table holds."""

    KEY = "k"
    HASH = "h"
    ROWS = "n"
    COUNT = "c"
    COUNT_TRUE = "t"
    COUNT_FALSE = "f"
    COUNT_NAN = "nan"
    COUNT_POSITIVE_INFINITY = "pinf"
    COUNT_NEGATIVE_INFINITY = "ninf"
    COUNT_SCALE = "sc"
    COUNT_ENDLESS = "inf"
    SCALES = "scs"
    SUM = "s"
    FINITE_SUM = "fs"
    SQUARES = "sq"
    FINITE_SQUARES = "fsq"
    XOR = "x"
    BIT_AND = "ba"
    BIT_OR = "bo"
    MIN = "min"
    MAX = "max"
    VALUE = "v"


@dataclass(frozen=True, slots=True)
class StateColumn:
    """A column of a state table; ``argument`` and ``condition`` name columns below the aggregation.

    ``scale`` is the number of decimals of the numbers that are counted; where they are counted by their decimals, the
    most that are told apart.
    """

    name: str
    role: Role
    type: Type
    argument: str | None = None
    condition: str | None = None
    value: Scalar | None = None
    scale: int | None = None

    @property
    def is_added(self) -> bool:
        """Whether the new value is the sum of the old one and the delta's."""
        return self.follows and self.role is not Role.XOR

    @property
    def follows(self) -> bool:
        """Whether the new value follows from the old one and the delta's, whatever left and came."""
        return self.role not in {Role.KEY, Role.HASH, Role.VALUE} and not self.is_extremum

    @property
    def is_extremum(self) -> bool:
        """Whether what came joins the old value, but what left may force to look at the rest."""
        return self.role in {Role.MIN, Role.MAX, Role.BIT_AND, Role.BIT_OR}

    @property
    def column(self) -> Column:
        return Column(self.name, self.type, not_null=self.follows or self.role is Role.HASH)


@dataclass(slots=True)
class Layout:
    """Collects the state columns of one aggregation, each once."""

    columns: dict[tuple[Role, str | None, str | None, str | int | None], StateColumn]

    def need(
        self,
        role: Role,
        of: Type = INT8,
        *,
        argument: str | None = None,
        condition: str | None = None,
        value: Scalar | None = None,
        scale: int | None = None,
    ) -> StateColumn:
        place = (role, argument, condition, value.text if value else scale)
        if place not in self.columns:
            number = sum(1 for other in self.columns.values() if other.role is role) + 1
            name = role.value if role is Role.ROWS else f"{role.value}{number}"
            self.columns[place] = StateColumn(name, role, of, argument, condition, value, scale)
        return self.columns[place]

    def of(
        self, call: Call, role: Role, of: Type = INT8, *, value: Scalar | None = None, scale: int | None = None
    ) -> StateColumn:
        """A column about the inputs of an aggregate."""
        return self.need(role, of, argument=call.argument, condition=call.condition, value=value, scale=scale)


@dataclass(frozen=True, slots=True)
class Output:
    """An aggregate's value as a template over state columns.

    ``decimals`` are the counters of numbers with so many of them, most first: a sum has as many as the longest number
    that is there.  Where any may come, ``scales`` counts them all.
    """

    template: sql.SQL
    parts: dict[str, StateColumn]
    type: Type
    not_null: bool = False
    fixed: dict[str, sql.Composable] = field(default_factory=dict)
    around: sql.SQL | None = None
    decimals: tuple[StateColumn, ...] = ()
    scales: StateColumn | None = None

    def over(self, named: dict[str, Column]) -> Scalar:
        used = {hole: named[part.name] for hole, part in self.parts.items()}
        held: dict[str, sql.Composable] = {hole: sql.Identifier(one.name) for hole, one in used.items()}
        if self.decimals:
            held["sum"] = _rounded(held["sum"], [(named[one.name], one.scale) for one in self.decimals])
        if self.scales:
            counted = sql.Identifier(named[self.scales.name].name)
            for hole, times in (("sum", 1), ("squares", 2)):
                if hole in held:
                    held[hole] = _WITH_DECIMALS.format(sum=held[hole], scales=counted, times=sql.Literal(times))
        text: sql.Composable = self.template.format(**held, **self.fixed)
        text = text if self.around is None else self.around.format(value=text)
        if self.template == _AS_STORED:
            return replace(column(used["value"]), type=self.type, not_null=self.not_null)
        counters = (*self.decimals, *([self.scales] if self.scales else []))
        read = (*used.values(), *(named[one.name] for one in counters))
        return composed(text, frozenset(one.name for one in read), self.type, not_null=self.not_null)


def _rounded(total: sql.Composable, counters: list[tuple[Column, int | None]]) -> sql.Composable:
    """The stored sum, which may end in zeros that nothing in the group has any more."""
    cases = [
        sql.SQL("WHEN {count} > 0 THEN {scale}").format(count=sql.Identifier(counter.name), scale=sql.Literal(scale))
        for counter, scale in counters
    ]
    return sql.SQL("round({sum}, CASE {cases} END)").format(sum=total, cases=sql.SQL(" ").join(cases))


# No division gives more decimals (NUMERIC_MAX_DISPLAY_SCALE in PostgreSQL): to a mean or a variance they are as these.
_MOST_OF_A_QUOTIENT = 1000
_WITH_DECIMALS = sql.SQL("(trim_scale({sum}) + ('0e-' || {times} * ((length({scales}::text) - 1) / 16))::numeric)")
_AS_STORED = sql.SQL("{value}")
# The sum is NULL when nothing was summed.  Of integers; of numbers that may be NaN.
SHOWN_SUM = sql.SQL("CASE WHEN {count} > 0 THEN {sum} END")
SHOWN_MEAN = sql.SQL("CASE WHEN {count} > 0 THEN {sum}::numeric / {count} END")
SHOWN_DECIMAL_SUM = sql.SQL("CASE WHEN {nan} > 0 THEN 'NaN'::numeric WHEN {count} > 0 THEN {sum} END")
SHOWN_DECIMAL_MEAN = sql.SQL("CASE WHEN {nan} > 0 THEN 'NaN'::numeric WHEN {count} > 0 THEN {sum} / {count} END")

_ANY_SUM = sql.SQL(
    "CASE WHEN {nan} > 0 OR ({up} > 0 AND {down} > 0) THEN 'NaN'::numeric"
    " WHEN {up} > 0 THEN 'Infinity'::numeric WHEN {down} > 0 THEN '-Infinity'::numeric"
    " WHEN {count} > 0 THEN {sum} END"
)
_ANY_MEAN = sql.SQL(
    "CASE WHEN {nan} > 0 OR ({up} > 0 AND {down} > 0) THEN 'NaN'::numeric"
    " WHEN {up} > 0 THEN 'Infinity'::numeric WHEN {down} > 0 THEN '-Infinity'::numeric"
    " WHEN {count} > 0 THEN {sum} / {count} END"
)


def place_of(one: StateColumn, number: sql.Composable) -> sql.Composable:
    """Where a number is counted by its decimals: numbers with d of them at 10^(16·d).

    There are never so many that they reach into the next place, and the first digit tells the most decimals that any
    has.  From 8,192 on it is an error, as the place is no number.
    """
    decimals = sql.SQL("scale({x}::numeric)").format(x=number)
    if one.scale is not None:
        decimals = sql.SQL("least({decimals}, {most})").format(decimals=decimals, most=sql.Literal(one.scale))
    return sql.SQL("('1e' || 16 * {decimals})::numeric").format(decimals=decimals)


def output_of(call: Call, layout: Layout, below: dict[str, Column]) -> Output:
    """What an aggregate needs stored, and its value over that; ``below``: the columns of its input by name."""
    of = call.column.type
    argument = below[call.argument] if call.argument else None
    match call.rule:
        case Rule.COUNT:
            return Output(_AS_STORED, {"value": _count(call, layout, argument)}, of, not_null=True)
        case Rule.SUM | Rule.AVG:
            assert argument is not None
            return _sum(call, layout, argument)
        case Rule.VAR_POP | Rule.VAR_SAMP | Rule.STDDEV_POP | Rule.STDDEV_SAMP:
            assert argument is not None
            return _variance(call, layout, argument)
        case Rule.BIT_XOR:
            parts = {"count": _count(call, layout, argument), "value": layout.of(call, Role.XOR, of)}
            return Output(sql.SQL("CASE WHEN {count} > 0 THEN {value} END"), parts, of)
        case Rule.MIN | Rule.MAX | Rule.BIT_AND | Rule.BIT_OR:
            role = Role[call.rule.name]
            return Output(_AS_STORED, {"value": layout.of(call, role, of, value=call.value)}, of)
        case Rule.BOOL_AND | Rule.BOOL_OR:
            every = call.rule is Rule.BOOL_AND
            parts = {
                "count": _count(call, layout, argument),
                "hits": layout.of(call, Role.COUNT_FALSE if every else Role.COUNT_TRUE),
            }
            template = (
                sql.SQL("CASE WHEN {count} > 0 THEN {hits} = 0 END")
                if every
                else sql.SQL("CASE WHEN {count} > 0 THEN {hits} > 0 END")
            )
            return Output(template, parts, BOOL)
        case Rule.RECOMPUTE:
            return Output(_AS_STORED, {"value": layout.need(Role.VALUE, of, value=call.value)}, of)


def _count(call: Call, layout: Layout, argument: Column | None) -> StateColumn:
    """The counter of inputs that count: of all rows, when none is left out."""
    if call.condition is None and (argument is None or argument.not_null):
        return layout.need(Role.ROWS)
    return layout.of(call, Role.COUNT)


def _sum(call: Call, layout: Layout, argument: Column) -> Output:
    """The stored sum is of finite values; NaN and the infinities, which no subtraction takes out again, are counted."""
    stored = INT8 if argument.type.name in {"int2", "int4"} else replace(NUMERIC.by_value, scale=argument.type.scale)
    summed = Role.SUM if argument.type.is_integer else Role.FINITE_SUM
    parts = {"count": _count(call, layout, argument), "sum": layout.of(call, summed, stored)}
    if argument.type.is_integer:
        return Output(SHOWN_SUM if call.rule is Rule.SUM else SHOWN_MEAN, parts, call.column.type)
    parts["nan"] = layout.of(call, Role.COUNT_NAN)
    if argument.type.decimals:
        known = sorted(argument.type.scales, reverse=True)
        decimals = tuple(layout.of(call, Role.COUNT_SCALE, scale=scale) for scale in known)
        shown = SHOWN_DECIMAL_SUM if call.rule is Rule.SUM else SHOWN_DECIMAL_MEAN
        return Output(shown, parts, call.column.type, decimals=decimals)
    parts["up"] = layout.of(call, Role.COUNT_POSITIVE_INFINITY)
    parts["down"] = layout.of(call, Role.COUNT_NEGATIVE_INFINITY)
    # A sum that nobody looks at so closely may end in zeros that nothing in the group has any more.
    is_told = call.rule is Rule.AVG or not call.column.type.is_identity
    most = _MOST_OF_A_QUOTIENT if call.rule is Rule.AVG else None
    scales = layout.of(call, Role.SCALES, NUMERIC.by_value, scale=most) if is_told else None
    return Output(_ANY_SUM if call.rule is Rule.SUM else _ANY_MEAN, parts, call.column.type, scales=scales)


# As numeric_stddev_internal computes them, so that they come out in the same digits: PostgreSQL's division chooses
# its scale by the operands alone, and they are the same.
_VAR_POP = sql.SQL(
    "CASE WHEN {count} > 0 THEN CASE WHEN {nan} > 0 THEN 'NaN'::numeric ELSE"
    " (SELECT CASE WHEN q.d > 0 THEN q.d / ({count}::numeric * {count}) ELSE 0::numeric END"
    " FROM (SELECT {count}::numeric * {squares} - {sum}::numeric * {sum}) AS q(d)) END END"
)
_VAR_SAMP = sql.SQL(
    "CASE WHEN {count} > 1 THEN CASE WHEN {nan} > 0 THEN 'NaN'::numeric ELSE"
    " (SELECT CASE WHEN q.d > 0 THEN q.d / ({count}::numeric * ({count} - 1)) ELSE 0::numeric END"
    " FROM (SELECT {count}::numeric * {squares} - {sum}::numeric * {sum}) AS q(d)) END END"
)
# The root in the variance's own scale.  sqrt() of a small scale would round in another one; so it is asked for so many
# digits that rounding twice can't matter: a root that isn't a tie in p digits is off it by more than 10^-(2p+2) / 2v.
_ROOT = sql.SQL(
    "(SELECT CASE WHEN q.v = 'NaN' THEN q.v ELSE"
    " round(sqrt(round(q.v, 2 * scale(q.v) + 4 + length(trunc(q.v)::text))), scale(q.v)) END"
    " FROM (SELECT {value}) AS q(v))"
)

# The same where numbers may have hundreds of decimals, of which sqrt() gives no more than a thousand: the root of a
# number that was moved by an even number of places.  Of a large one sqrt() chooses the scale that it has.
_LONG_ROOT = sql.SQL(
    "(SELECT CASE WHEN q.v = 'NaN' THEN q.v WHEN q.v >= 1e40 THEN sqrt(q.v) ELSE round("
    "sqrt(q.v * ('1e' || 2 * (scale(q.v) + 44))::numeric) * ('1e-' || scale(q.v) + 44)::numeric, scale(q.v)) END"
    " FROM (SELECT {value}) AS q(v))"
)


def _variance(call: Call, layout: Layout, argument: Column) -> Output:
    whole = argument.type.is_integer
    stored = INT8 if argument.type.name in {"int2", "int4"} else replace(NUMERIC.by_value, scale=argument.type.scale)
    squared = replace(NUMERIC.by_value, scale=None if argument.type.scale is None else 2 * argument.type.scale)
    parts = {
        "count": _count(call, layout, argument),
        "sum": layout.of(call, Role.SUM if whole else Role.FINITE_SUM, stored),
        "squares": layout.of(call, Role.SQUARES if whole else Role.FINITE_SQUARES, squared),
    }
    fixed: dict[str, sql.Composable] = {}
    root, scales = _ROOT, None
    if whole:
        fixed["nan"] = sql.SQL("0")
    elif argument.type.scale is not None:
        parts["nan"] = layout.of(call, Role.COUNT_NAN)
    else:
        # Nor have infinite numbers a variance.
        parts["nan"] = layout.of(call, Role.COUNT_ENDLESS)
        root, scales = _LONG_ROOT, layout.of(call, Role.SCALES, NUMERIC.by_value, scale=_MOST_OF_A_QUOTIENT)
    template = _VAR_POP if call.rule in {Rule.VAR_POP, Rule.STDDEV_POP} else _VAR_SAMP
    around = root if call.rule in {Rule.STDDEV_POP, Rule.STDDEV_SAMP} else None
    return Output(template, parts, call.column.type, fixed=fixed, around=around, scales=scales)
