"""Of which values of a state the rows are found by a range."""

from __future__ import annotations

import pytest

from pg_trickle.compile import compile as compile_query
from pg_trickle.ranges import Ranged
from tests.compile.requests import request

GROUPS = "SELECT i.order_id, {value} FROM public.items i GROUP BY i.order_id HAVING {value} > {other}"
ORDERS = "SELECT o.customer_id, {value} FROM public.orders o GROUP BY o.customer_id HAVING {value} > {other}"
MOVES = "(SELECT avg(p.amount) FROM public.orders p)"


@pytest.mark.parametrize(
    ("query", "value", "other", "expected"),
    [
        (ORDERS, "sum(o.amount)", MOVES, Ranged("fs1", "c1", "nan1")),
        (ORDERS, "avg(o.amount)", MOVES, Ranged("fs1", "c1", "nan1", is_mean=True)),
        (ORDERS, "sum(o.id)", MOVES, Ranged("s1", "n")),
        (ORDERS, "avg(o.id)", MOVES, Ranged("s1", "n", is_mean=True)),
        (ORDERS, "count(*)", MOVES, Ranged("n")),
        (ORDERS, "count(o.placed)", MOVES, Ranged("c1")),
        (ORDERS, "max(o.amount)", MOVES, Ranged("max1")),
        (ORDERS, "max(o.placed)", "(SELECT min(p.placed) FROM public.orders p)", Ranged("max1")),
        # It doesn't move; nobody knows how many digits; it is computed further; no range has ends.
        (ORDERS, "sum(o.amount)", "10", None),
        (GROUPS, "sum(i.price)", MOVES, None),
        (GROUPS, "max(i.price)", MOVES, None),
        (ORDERS, "sum(o.id) + 1", MOVES, None),
        (GROUPS, "max(i.product)", "(SELECT min(c.region) FROM public.customers c)", None),
    ],
)
def test_what_is_compared_with_what_moves_is_found_by_a_range(query: str, value: str, other: str, expected: object):
    plan = compile_query(request(query.format(value=value, other=other)))
    found = [one for of_state in plan.ranged.values() for one in of_state]
    assert found == ([expected] if expected else [])
    told = [one for state in plan.to_json()["states"] for one in state["ranged"]]
    assert told == [one.to_json() for one in found]


@pytest.mark.parametrize(
    ("query", "outputs", "expected"),
    [
        (f"{ORDERS} - '01:00:00'::interval", "customer_id integer; max timestamp with time zone", Ranged("max1")),
        ("SELECT o.customer_id, {value} > {other} AS late FROM public.orders o GROUP BY o.customer_id",
         "customer_id integer; late boolean", Ranged("max1")),
        ("SELECT q.c FROM (SELECT o.customer_id AS c, {value} AS m FROM public.orders o GROUP BY o.customer_id) q"
         " WHERE q.m + '01:00:00'::interval > {other}", "c integer", Ranged("max1")),
        # Of the time that is between two of the group's rows, nothing is known.
        (f"{ORDERS} - (max(o.placed) - min(o.placed))", "customer_id integer; max timestamp with time zone", None),
    ],
)  # fmt: skip
def test_groups_are_found_by_the_range_that_time_has_passed(query: str, outputs: str, expected: Ranged | None):
    plan = compile_query(request(query.format(value="max(o.placed)", other="now()"), outputs=outputs))
    assert [one for of_state in plan.ranged.values() for one in of_state] == ([expected] if expected else [])
    rules = " ".join(line["rule"] for line in plan.explain["tree"])
    assert ("found by a range of max" in rules) == (expected is not None)
    assert ("found by reading all" in rules) == (expected is None)


RICH = """SELECT c.id FROM public.customers c WHERE EXISTS (SELECT FROM
          (SELECT o.customer_id AS id, {value} AS v FROM public.orders o GROUP BY o.customer_id) AS g
            WHERE g.id = c.id AND g.v {condition})"""


@pytest.mark.parametrize(
    ("value", "condition", "weighed", "chosen"),
    [
        ("sum(o.amount)", "> 300::numeric", Ranged("fs1", "c1", "nan1"), (">", "300", "numeric")),
        ("avg(o.id)", "<= 2.5", Ranged("s1", "n", is_mean=True), ("<=", "2.5", None)),
        ("sum(o.id)", "<> 3", Ranged("s1", "n"), None),
        # Of a column that is stored as it is, ANALYZE knows by itself.
        ("count(*)", ">= 9", None, (">=", "9", None)),
        # What an index is over is known from that; what else is computed is no value of the state.
        ("sum(o.amount)", f"> {MOVES}", None, None),
        ("sum(o.id) + 1", "> 3", None, None),
        ("sum(o.id)", "> c.id", None, None),
    ],
)
def test_of_what_groups_are_chosen_by_the_planner_is_told(
    value: str, condition: str, weighed: Ranged | None, chosen: tuple[str, str, str | None] | None
):
    plan = compile_query(request(RICH.format(value=value, condition=condition), outputs="id integer"))
    state = next(one for one in plan.to_json()["states"] if one["key"])
    assert state["weighed"] == ([weighed.to_json()] if weighed else [])
    found = [(one["operator"], one["number"], one["type"]) for one in state["chosen"]]
    assert found == ([chosen] if chosen else [])


def test_who_reads_the_change_of_a_state_alone_needs_no_index_over_what_passes():
    having = "SELECT i.order_id FROM public.items i GROUP BY i.order_id HAVING count(*) > 9"
    plan = compile_query(request(having, outputs="order_id integer"))
    assert not any(one["weighed"] or one["chosen"] for one in plan.to_json()["states"])
