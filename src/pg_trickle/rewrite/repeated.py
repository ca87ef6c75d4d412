"""Operators that stand in a plan several times, all alike: pruned alike too, so that they stay one stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.order import DistinctOn, TopK
from pg_trickle.algebra.plan import Plan, inputs, names
from pg_trickle.algebra.recursion import Found, given
from pg_trickle.algebra.window import Window
from pg_trickle.rewrite.prune import pruned


def pruned_alike(plan: Plan, needed: frozenset[str]) -> Plan:
    """The plan without columns outside ``needed``; operators that are repeated keep all that they make.

    While a plan is pruned, a name stands for each of them.
    """
    repeated = [one for one, times in Counter(_stateful(plan)).items() if times > 1]
    hidden = {one: Found(f"__pgt_repeated_{place}", one.columns) for place, one in enumerate(repeated)}
    made: dict[Plan, Plan] = {}

    def hide(part: Plan) -> Plan:
        return hidden[part] if part in hidden else part.over(hide)

    def shown(part: Plan) -> Plan:
        for one, name in hidden.items():
            if any(leaf == name for leaf in _leaves(part)):
                if one not in made:
                    made[one] = shown(pruned(one.over(hide), frozenset(names(one))))
                part = given(part, name.name, made[one])
        return part

    return shown(pruned(plan.over(hide), needed))


def _stateful(plan: Plan) -> Iterator[Plan]:
    if isinstance(plan, Aggregate | Window | DistinctOn | TopK):
        yield plan
    for below in inputs(plan):
        yield from _stateful(below)


def _leaves(plan: Plan) -> Iterator[Plan]:
    below = inputs(plan)
    if not below:
        yield plan
    for one in below:
        yield from _leaves(one)
