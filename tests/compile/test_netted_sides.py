"""What of a join's changes would multiply level by level is netted first; elsewhere nothing is grouped for it."""

from __future__ import annotations

import pytest

from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Consolidate
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.rewrite.netted_sides import netted_sides
from pg_trickle.rewrite.passes import optimised
from pg_trickle.rewrite.specialise import specialised
from pg_trickle.stages import cut
from tests.compile.requests import parsed, request
from tests.compile.test_length import PLAIN, chain

THREE = "public.orders a JOIN public.orders b ON b.id = a.customer_id JOIN public.orders c ON c.id = b.customer_id"
OTHERS = (
    "public.orders o JOIN public.customers c ON c.id = o.customer_id JOIN public.items i ON i.order_id = o.id"
    " JOIN public.visits v ON v.customer_id = c.id"
)


def netted(query: str) -> int:
    """How many changes of sides of joins are netted, when all tables have changed."""
    return netted_plan(optimised(parsed(request(query)).plan))


def netted_plan(plan: Plan) -> int:
    change = specialised(plan.delta(), lambda _: True)
    found = (node for node in distinct(netted_sides(change)) if isinstance(node, Join))
    return len({id(side) for join in found for side in (join.left, join.right) if isinstance(side, Consolidate)})


@pytest.mark.parametrize("level", ["joined", "left joined"])
def test_of_what_is_named_twice_at_each_level(level: str) -> None:
    assert netted(chain(PLAIN[level], 1)) == 0
    assert netted(chain(PLAIN[level], 2)) > 0
    assert netted(chain(PLAIN[level], 4)) > netted(chain(PLAIN[level], 3)) > netted(chain(PLAIN[level], 2))


def test_a_table_beside_itself_a_few_times_is_left() -> None:
    assert netted(f"SELECT a.id, c.amount FROM {THREE}") == 0
    assert netted(f"SELECT a.id, d.amount FROM {THREE} JOIN public.orders d ON d.id = c.customer_id") > 0


def test_different_tables_are_left() -> None:
    assert netted(f"SELECT o.id, c.name, i.line, v.page FROM {OTHERS}") == 0
    more = "JOIN public.labels l ON l.tag = v.page JOIN public.totals t ON t.region = c.region"
    assert netted(f"SELECT o.id, c.name, i.line, v.page FROM {OTHERS} {more}") == 0


def test_stages_of_one_table_beside_each_other() -> None:
    sums = [f"(SELECT sum(o.amount) FROM public.orders o WHERE o.id <> {n}) AS s{n}" for n in range(8)]
    stages, final = cut(optimised(parsed(request(f"SELECT {', '.join(sums)}")).plan), 1)
    assert len(stages) == 8
    assert netted_plan(final) > 0
