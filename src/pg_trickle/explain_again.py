"""What is counted and what is read again, and why; or why a left join is a sum: told to people."""

from __future__ import annotations

import re

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.linear import Project, UnionAll
from pg_trickle.algebra.plan import Plan, names
from pg_trickle.scalar import Identity

_COUNTED = re.compile(r"^(pg_catalog\.)?(sum|avg|var_pop|var_samp|variance|stddev|stddev_pop|stddev_samp)\(", re.I)


def rule_of(aggregate: Aggregate) -> str:
    """The rule that maintains the groups; how each of the aggregates is kept is told with it."""
    if aggregate.keys and not aggregate.calls:
        return "a row while its count is above 0"
    if aggregate.calls and all(call.rule is Rule.RECOMPUTE for call in aggregate.calls):
        return "the rows of touched groups are read again; a stored count tells which groups there are"
    return "stored counters, only touched groups"


def rule_of_call(call: Call, below: Plan) -> str:
    """The rule that maintains an aggregate over a plan, with the reason where counters would have done."""
    text, rule = call.value.text, str(call.rule.value)
    if call.rule is not Rule.RECOMPUTE or not _COUNTED.match(text) or "ORDER BY" in text:
        return rule
    read = [one.type for one in below.columns if one.name in call.value.columns]
    if any(one.name in {"float4", "float8"} for one in read):
        return f"{rule}: a sum of floats depends on the order in which they are added"
    loose = any(one.identity is Identity.SCALE and not one.is_identity for one in read)
    if loose and "DISTINCT" in text:
        return (
            f"{rule}: of equal numbers, 1.0 and 1.00, it takes one, which shows in its decimals;"
            " of numeric(p,s) it is counted"
        )
    if loose:
        return f"{rule}: its decimals are those of rows that may have gone; of numeric(p,s) it is counted"
    return rule


def rule_of_sum(plan: UnionAll) -> str:
    """The rule of a sum of two; one may be a left join (``padded_always.py``)."""
    right = plan.right
    if not isinstance(right, Project) or names(plan.left) != names(right):
        return "Δ(L + R) = ΔL + ΔR"
    others = [item.value for item in right.items if not item.value.is_column]
    if not others or any(one.columns or not one.text.startswith("NULL::") for one in others):
        return "Δ(L + R) = ΔL + ΔR"
    return "Δ(L + R) = ΔL + ΔR: a left join, all of whose left rows are padded, since what is counted ignores NULLs"
