"""The state before the interval."""

from __future__ import annotations

from pg_trickle.algebra.linear import Negate, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Scan
from pg_trickle.algebra.timed import TimedColumn, TimedFilter


def old(plan: Plan) -> Plan:
    """The plan as of the frontier: every table with its changes undone, ``R = R′ − ΔR``, and the time of then."""
    if isinstance(plan, Scan):
        return UnionAll(plan, Negate(plan.delta()))
    if isinstance(plan, TimedFilter | TimedColumn):
        return plan.at_frontier(old(plan.input))
    return plan.over(old)
