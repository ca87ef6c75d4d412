"""Cutting a plan at its stateful operators (ALGEBRA.md §6).

An Aggregate becomes a **stage**: a state table that stores, for each group, counters from which the
aggregates can be computed, maintained from the delta of what is below.  Above the cut the
aggregate is a projection of a scan of that state, so a query is a short list of stages and a
final plan that is linear or bilinear throughout.  Operators without counters store their output
rows instead (``recomputed.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import product

from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.linear import Item, Project
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.recursion import Recursion
from pg_trickle.algebra.source import Field, Scan, State
from pg_trickle.algebra.window import Window
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.recomputed import Recomputed, recomputed
from pg_trickle.scalar import BOOL, INT4, INT8, NUMERIC, Column, Scalar, Type, column, composed


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

    ``scale`` is the number of decimals of the numbers that are counted.
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


@dataclass(frozen=True, slots=True)
class Stage:
    """A state table, the aggregation it stores, and its columns.

    ``keys`` pairs the state's key columns with the grouping columns below; without grouping columns
    there is one key that is always 1, and its row never goes away.
    """

    state: State
    aggregate: Aggregate
    keys: tuple[tuple[StateColumn, Column | None], ...]
    hashed: StateColumn | None
    rest: tuple[StateColumn, ...]

    @property
    def below(self) -> Plan:
        """What the stage is maintained from."""
        return self.aggregate.input

    @property
    def is_global(self) -> bool:
        return not self.aggregate.keys

    @property
    def columns(self) -> tuple[StateColumn, ...]:
        hashed = () if self.hashed is None else (self.hashed,)
        return hashed + tuple(key for key, _ in self.keys) + self.rest

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.columns)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The columns of the unique index, in its order."""
        hashed = () if self.hashed is None else (self.hashed.name,)
        return hashed + tuple(key.name for key, _ in self.keys)

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The same, with their types."""
        hashed = () if self.hashed is None else (self.hashed.column,)
        keys = tuple(replace(key.column, not_null=below is None or below.not_null) for key, below in self.keys)
        return hashed + keys

    @property
    def recomputed(self) -> tuple[StateColumn, ...]:
        """The columns that need their group read again, always or when an extremum went."""
        return tuple(one for one in self.rest if one.is_extremum or one.role is Role.VALUE)


@dataclass(slots=True)
class _Layout:
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


AnyStage = Stage | Recomputed


def cut(plan: Plan, identifier: int) -> tuple[tuple[AnyStage, ...], Plan]:
    """The stages of a plan, inner ones first, and the plan over them.  Equal operators share a stage."""
    stages: list[AnyStage] = []
    outputs: dict[Plan, Plan] = {}

    def descend(part: Plan) -> Plan:
        below = part.over(descend)
        if not isinstance(below, Aggregate | Window | DistinctOn | TopK | Recompute | Recursion):
            return below
        if below not in outputs:
            state = State(f"state_{identifier}_{len(stages) + 1}")
            stage, outputs[below] = _stage(below, state) if isinstance(below, Aggregate) else recomputed(below, state)
            stages.append(stage)
        return outputs[below]

    final = descend(plan)
    _check_columns(stages)
    return tuple(stages), final


def _check_columns(stages: list[AnyStage]) -> None:
    """Refuse to store what no table can hold."""
    for plan in (stage.operator if isinstance(stage, Recomputed) else stage.aggregate for stage in stages):
        rows = {one.name for below in inputs(plan) for one in below.columns if one.type.is_row}
        made = [(one.column, one.value) for one in plan.calls] if isinstance(plan, Aggregate | Window) else []
        # What an aggregate makes of rows may be rows.
        unknown = any(value.columns & rows and column.type.name is None for column, value in made)
        if unknown or any(one.type.is_row for one in plan.columns):
            raise UnsupportedQuery(
                "rows without a type",
                "no state can store them.",
                hint="Cast them to text, or use the columns that they are made of.",
            )
        keys = plan.keys if isinstance(plan, Aggregate | Window | DistinctOn) else ()
        if any(one.type.grouped.unsorted for below in inputs(plan) for one in below.columns if one.name in keys):
            raise UnsupportedQuery(
                "grouping by a type without an order",
                "no index can hold its values.",
                hint="Group by its text, or by what it is made of.",
            )


def _stage(aggregate: Aggregate, state: State) -> tuple[Stage, Plan]:
    below = {one.name: one for one in aggregate.input.columns}
    grouped = [below[key] for key in aggregate.keys]
    keys: tuple[tuple[StateColumn, Column | None], ...] = tuple(
        (StateColumn(f"k{place}", Role.KEY, one.type.by_value), one) for place, one in enumerate(grouped, 1)
    ) or ((StateColumn("k1", Role.KEY, INT4), None),)
    layout = _Layout({})
    layout.need(Role.ROWS)
    outputs = [_output(call, layout, below) for call in aggregate.calls]
    stage = Stage(state, aggregate, keys, _hash(grouped), tuple(layout.columns.values()))
    fields = tuple(
        Field(Column(f"{state.name}_{one.name}", one.type, one.column.not_null), one.name, one.name)
        for one in stage.columns
    )
    named = {field.attribute: field.column for field in fields}
    items = [
        Item(replace(source, type=key.type), column(Column(named[key.name].name, key.type, source.not_null)))
        for key, source in keys
        if source is not None
    ]
    items += [Item(call.column, output.over(named)) for call, output in zip(aggregate.calls, outputs, strict=True)]
    scan = Scan(state, fields, _keys(stage, named))
    return stage, Project(scan, tuple(items))


def _keys(stage: Stage, named: dict[str, Column]) -> tuple[tuple[str, ...], ...]:
    """What tells the state's rows apart: the keys, each as it is stored or as it reads in a row that is there."""
    shown = {one.value.text: one.name for one in stage.rest if one.role is Role.VALUE and one.value is not None}
    alike = [
        [key.name, *([] if below is None or (name := shown.get(column(below).text)) is None else [name])]
        for key, below in stage.keys
    ]
    return tuple(tuple(named[name].name for name in choice) for choice in product(*alike))


def _hash(grouped: list[Column]) -> StateColumn | None:
    """A hash in front of the key, when no plain comparison of the key could use an index.

    One nullable column can be looked up by two index scans; several, or types that need
    comparison of records, can't.
    """
    loose = any(not one.not_null for one in grouped) and len(grouped) > 1
    foreign = any(one.type.name is None for one in grouped)
    if (loose or foreign) and all(one.type.hashable for one in grouped):
        return StateColumn("h", Role.HASH, INT8)
    return None


@dataclass(frozen=True, slots=True)
class _Output:
    """An aggregate's value as a template over state columns.

    ``decimals`` are the counters of numbers with so many of them, most first: a sum has as many as the longest number
    that is there.
    """

    template: sql.SQL
    parts: dict[str, StateColumn]
    type: Type
    not_null: bool = False
    fixed: dict[str, sql.Composable] = field(default_factory=dict)
    around: sql.SQL | None = None
    decimals: tuple[StateColumn, ...] = ()

    def over(self, named: dict[str, Column]) -> Scalar:
        used = {hole: named[part.name] for hole, part in self.parts.items()}
        held: dict[str, sql.Composable] = {hole: sql.Identifier(one.name) for hole, one in used.items()}
        if self.decimals:
            held["sum"] = _rounded(held["sum"], [(named[one.name], one.scale) for one in self.decimals])
        text: sql.Composable = self.template.format(**held, **self.fixed)
        text = text if self.around is None else self.around.format(value=text)
        if self.template == _AS_STORED:
            return replace(column(used["value"]), type=self.type, not_null=self.not_null)
        read = (*used.values(), *(named[one.name] for one in self.decimals))
        return composed(text, frozenset(one.name for one in read), self.type, not_null=self.not_null)


def _rounded(total: sql.Composable, counters: list[tuple[Column, int | None]]) -> sql.Composable:
    """The stored sum, which may end in zeros that nothing in the group has any more."""
    cases = [
        sql.SQL("WHEN {count} > 0 THEN {scale}").format(count=sql.Identifier(counter.name), scale=sql.Literal(scale))
        for counter, scale in counters
    ]
    return sql.SQL("round({sum}, CASE {cases} END)").format(sum=total, cases=sql.SQL(" ").join(cases))


_AS_STORED = sql.SQL("{value}")
# The sum is NULL when nothing was summed.  Of integers; of numbers that may be NaN.
SHOWN_SUM = sql.SQL("CASE WHEN {count} > 0 THEN {sum} END")
SHOWN_MEAN = sql.SQL("CASE WHEN {count} > 0 THEN {sum}::numeric / {count} END")
SHOWN_DECIMAL_SUM = sql.SQL("CASE WHEN {nan} > 0 THEN 'NaN'::numeric WHEN {count} > 0 THEN {sum} END")
SHOWN_DECIMAL_MEAN = sql.SQL("CASE WHEN {nan} > 0 THEN 'NaN'::numeric WHEN {count} > 0 THEN {sum} / {count} END")


def _output(call: Call, layout: _Layout, below: dict[str, Column]) -> _Output:
    of = call.column.type
    argument = below[call.argument] if call.argument else None
    match call.rule:
        case Rule.COUNT:
            return _Output(_AS_STORED, {"value": _count(call, layout, argument)}, of, not_null=True)
        case Rule.SUM | Rule.AVG:
            assert argument is not None
            return _sum(call, layout, argument)
        case Rule.VAR_POP | Rule.VAR_SAMP | Rule.STDDEV_POP | Rule.STDDEV_SAMP:
            assert argument is not None
            return _variance(call, layout, argument)
        case Rule.BIT_XOR:
            parts = {"count": _count(call, layout, argument), "value": layout.of(call, Role.XOR, of)}
            return _Output(sql.SQL("CASE WHEN {count} > 0 THEN {value} END"), parts, of)
        case Rule.MIN | Rule.MAX | Rule.BIT_AND | Rule.BIT_OR:
            role = Role[call.rule.name]
            return _Output(_AS_STORED, {"value": layout.of(call, role, of, value=call.value)}, of)
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
            return _Output(template, parts, BOOL)
        case Rule.RECOMPUTE:
            return _Output(_AS_STORED, {"value": layout.need(Role.VALUE, of, value=call.value)}, of)


def _count(call: Call, layout: _Layout, argument: Column | None) -> StateColumn:
    """The counter of inputs that count: of all rows, when none is left out."""
    if call.condition is None and (argument is None or argument.not_null):
        return layout.need(Role.ROWS)
    return layout.of(call, Role.COUNT)


def _sum(call: Call, layout: _Layout, argument: Column) -> _Output:
    """The stored sum is of finite values; NaN and the infinities, which no subtraction takes out again, are counted."""
    stored = INT8 if argument.type.name in {"int2", "int4"} else replace(NUMERIC.by_value, scale=argument.type.scale)
    summed = Role.SUM if argument.type.is_integer else Role.FINITE_SUM
    parts = {"count": _count(call, layout, argument), "sum": layout.of(call, summed, stored)}
    if argument.type.is_integer:
        return _Output(SHOWN_SUM if call.rule is Rule.SUM else SHOWN_MEAN, parts, call.column.type)
    parts["nan"] = layout.of(call, Role.COUNT_NAN)
    if argument.type.decimals:
        scales = sorted(argument.type.scales, reverse=True)
        decimals = tuple(layout.of(call, Role.COUNT_SCALE, scale=scale) for scale in scales)
        shown = SHOWN_DECIMAL_SUM if call.rule is Rule.SUM else SHOWN_DECIMAL_MEAN
        return _Output(shown, parts, call.column.type, decimals=decimals)
    parts["up"] = layout.of(call, Role.COUNT_POSITIVE_INFINITY)
    parts["down"] = layout.of(call, Role.COUNT_NEGATIVE_INFINITY)
    plain = sql.SQL(
        "CASE WHEN {nan} > 0 OR ({up} > 0 AND {down} > 0) THEN 'NaN'::numeric"
        " WHEN {up} > 0 THEN 'Infinity'::numeric WHEN {down} > 0 THEN '-Infinity'::numeric"
        " WHEN {count} > 0 THEN {sum} END"
    )
    return _Output(plain, parts, call.column.type)


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


def _variance(call: Call, layout: _Layout, argument: Column) -> _Output:
    whole = argument.type.is_integer
    stored = INT8 if argument.type.name in {"int2", "int4"} else replace(NUMERIC.by_value, scale=argument.type.scale)
    squared = replace(NUMERIC.by_value, scale=None if argument.type.scale is None else 2 * argument.type.scale)
    parts = {
        "count": _count(call, layout, argument),
        "sum": layout.of(call, Role.SUM if whole else Role.FINITE_SUM, stored),
        "squares": layout.of(call, Role.SQUARES if whole else Role.FINITE_SQUARES, squared),
    }
    fixed: dict[str, sql.Composable] = {}
    if whole:
        fixed["nan"] = sql.SQL("0")
    else:
        parts["nan"] = layout.of(call, Role.COUNT_NAN)
    template = _VAR_POP if call.rule in {Rule.VAR_POP, Rule.STDDEV_POP} else _VAR_SAMP
    around = _ROOT if call.rule in {Rule.STDDEV_POP, Rule.STDDEV_SAMP} else None
    return _Output(template, parts, call.column.type, fixed=fixed, around=around)
