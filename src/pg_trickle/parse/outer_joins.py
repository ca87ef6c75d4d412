"""Outer joins by conditions that no join judges by itself: with subqueries, about the time, or beside LATERAL.

Where such a condition θ is about one side, that side has a column more and the condition reads it.  Where it is about
both, the other side is a subquery that the condition is in (a mark, of what has no match, for the other half)::

    L ⟕[θ] R  =  L ⟕ LATERAL σ[θ](R)
    L ⟗[θ] R  =  L ⟕[θ] R  +  pad(R ▷ LATERAL σ[θ](L))
"""

from __future__ import annotations

from dataclasses import replace

from postgast.pg_query_pb2 import Node

from pg_trickle.algebra.correlation import free
from pg_trickle.algebra.linear import Filter, Item, Project, UnionAll
from pg_trickle.algebra.mark import absent
from pg_trickle.algebra.outer_join import LeftJoin, padded
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.parse.attached import Attachment
from pg_trickle.parse.query import ParseQuery
from pg_trickle.parse.scope import Context, Scope
from pg_trickle.parse.subqueries import Lowering, is_lowered
from pg_trickle.scalar import Column, Scalar, column

Side = tuple[Plan, Scope]


def on_its_side(
    left: Plan, right: Plan, conditions: tuple[Node, ...], scope: Scope, context: Context, parse: ParseQuery
) -> tuple[Plan, Plan, tuple[Node, ...], tuple[Column, ...]] | None:
    """Both sides with the columns that the conditions read, the conditions, those columns; None if one needs both."""
    sides, made = [right, left], []
    for part in conditions:
        for place, side in enumerate(sides) if is_lowered(part) else ():
            lowering = Lowering(side, scope, context, parse)
            value = lowering.value(part)
            if not free(lowering.plan) & {name for other in sides if other is not side for name in names(other)}:
                sides[place], scope, part = lowering.plan, lowering.scope, value
                break
        if is_lowered(part):
            return None
        made.append(part)
    return sides[1], sides[0], tuple(made), scope.lowered


def left_join(
    left: Side, right: Side, conditions: tuple[Node, ...], on: tuple[Scalar, ...], context: Context, parse: ParseQuery
) -> Plan:
    """Every row on the left beside those on the right that satisfy all with it; these may refer to the left."""
    attached = Attachment(left[0], context)
    plan, pairs = attached.independent(_satisfying(left[1], right, conditions, on, context, parse))
    return LeftJoin(attached.plan, plan, pairs)


def full_join(
    left: Side, right: Side, conditions: tuple[Node, ...], on: tuple[Scalar, ...], context: Context, parse: ParseQuery
) -> Plan:
    """The same, and the rows on the right without one on the left."""
    met = left_join(left, right, conditions, on, context, parse)
    shown = tuple(
        Item(one, column(one))
        for side in (left, right)
        for one in (replace(c, not_null=False) for c in side[0].columns)
    )
    attached = Attachment(right[0], context)
    plan, pairs = attached.independent(_satisfying(right[1], left, conditions, on, context, parse))
    marked = attached.marked(plan, pairs, "met")
    alone = Project(Filter(attached.plan, (absent(marked),)), tuple(Item(one, column(one)) for one in right[0].columns))
    return UnionAll(Project(met, shown), padded(alone, left[0], tuple(item.column for item in shown)))


def _satisfying(
    around: Scope, side: Side, conditions: tuple[Node, ...], on: tuple[Scalar, ...], context: Context, parse: ParseQuery
) -> Plan:
    """The rows of a side that satisfy the conditions with a row of the other, whose columns are free in the plan."""
    plan, scope = side
    inside = replace(context, outer=around)
    lowering = Lowering(Filter(plan, on) if on else plan, replace(scope, outer=around), inside, parse)
    lowering.keep(conditions)
    return lowering.plan
