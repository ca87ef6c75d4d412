"""Left joins below counters: nobody need ask which rows have no match."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Item, Project, UnionAll
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.scalar import column, null

# What MIN and the like may have to read again is found by the group's key in a join, but not in a sum of two.
_COUNTERS = frozenset(
    {
        *(Rule.COUNT, Rule.SUM, Rule.AVG, Rule.BOOL_AND, Rule.BOOL_OR, Rule.BIT_XOR),
        *(Rule.VAR_POP, Rule.VAR_SAMP, Rule.STDDEV_POP, Rule.STDDEV_SAMP),
    }
)


def padded_always(plan: Plan) -> Plan:
    """The plan with aggregates of left joins that count a padded row for nothing over a simpler sum::

        γ(L ⟕ R)  =  γ(L ⋈ R  +  pad(L))      grouped by columns of L; of a padded row every argument is NULL

    Which groups there are is decided by L, and what is summed up by R.  A left join pads the rows of L without a match,
    so that each change of R has to look which rows have lost their last one, or got their first.  As NULLs count for
    nothing, all rows of L may be padded as well; then none is looked at.
    """
    below = plan.over(padded_always)
    if not isinstance(below, Aggregate) or not below.calls or any(call.rule not in _COUNTERS for call in below.calls):
        return below
    sides = _sides(below.input)
    if sides is None or not sides.left.issuperset(below.keys) or not all(map(sides.ignores, below.calls)):
        return below
    values = [(one, one.name in below.keys) for one in below.input.columns]
    # A NULL whose type has no name would be text in a query of its own.
    if any(one.type.name is None or one.type.is_row for one, is_key in values if not is_key):
        return below
    items = tuple(
        Item(one, column(one)) if is_key else Item(replace(one, not_null=False), null(one.type))
        for one, is_key in values
    )
    return replace(below, input=UnionAll(_met(below.input), Project(_padded(below.input, sides.left), items)))


@dataclass(frozen=True, slots=True)
class _Sides:
    """What columns hold in a row that a left join below has padded.

    ``left``: what they do in others, being made of the left side alone; ``missing``: NULL; ``untrue``: NULL or false.
    """

    left: frozenset[str]
    missing: frozenset[str]
    untrue: frozenset[str]

    def ignores(self, call: Call) -> bool:
        """Whether a padded row counts for nothing."""
        return call.argument in self.missing or call.condition in self.untrue

    def over(self, items: tuple[Item, ...]) -> _Sides:
        """The same of a projection."""
        left = (item for item in items if item.value.columns <= self.left)
        missing = (item for item in items if item.value.strict & self.missing)
        untrue = (
            item
            for item in items
            if item.value.demanded & self.missing or (item.value.is_column and item.value.columns <= self.untrue)
        )
        return _Sides(*(frozenset(item.column.name for item in found) for found in (left, missing, untrue)))


def _sides(plan: Plan) -> _Sides | None:
    match plan:
        case LeftJoin(left, right):
            return _Sides(frozenset(names(left)), frozenset(names(right)), frozenset(names(right)))
        case Project(below, items):
            inside = _sides(below)
            return inside and inside.over(items)
        case _:
            return None


def _met(plan: Plan) -> Plan:
    """The rows that have a match."""
    return Join(plan.left, plan.right, plan.on) if isinstance(plan, LeftJoin) else plan.over(_met)


def _padded(plan: Plan, wanted: frozenset[str]) -> Plan:
    """The rows of the left side, with the columns that are made of it alone."""
    if isinstance(plan, LeftJoin):
        return plan.left
    assert isinstance(plan, Project)
    kept = tuple(item for item in plan.items if item.column.name in wanted)
    read = frozenset(name for item in kept for name in item.value.columns)
    return Project(_padded(plan.input, read), kept)
