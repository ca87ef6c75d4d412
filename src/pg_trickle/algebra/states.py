"""The state before the interval."""

from __future__ import annotations

from pg_trickle.algebra.linear import Negate, UnionAll
from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Scan


def old(plan: Plan) -> Plan:
    """The plan as of the frontier: every table with its changes undone, ``R = R′ − ΔR``."""
    if isinstance(plan, Scan):
        return UnionAll(plan, Negate(plan.delta()))
    return plan.over(old)
