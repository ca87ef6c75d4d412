"""Of an order that leaves rows undecided a plan says so, and of no other."""

from __future__ import annotations

import pytest

from pg_trickle.compile import compile as compile_query
from tests.compile.requests import request

OPEN = {
    "SELECT o.id, o.amount FROM public.orders o ORDER BY o.amount LIMIT 3": "LIMIT by amount",
    "SELECT v.page FROM public.visits v ORDER BY v.seconds LIMIT 3": "LIMIT by",
    "SELECT o.id FROM public.orders o ORDER BY o.amount OFFSET 2 FETCH FIRST 2 ROWS WITH TIES": "LIMIT by",
    "SELECT DISTINCT ON (o.paid) o.paid, o.id FROM public.orders o ORDER BY o.paid, o.amount": "DISTINCT ON by paid",
    "SELECT DISTINCT ON (o.paid) o.paid, o.id FROM public.orders o": "DISTINCT ON in no order",
    "SELECT o.id, row_number() OVER (ORDER BY o.amount) AS n FROM public.orders o": "A window by amount",
    "SELECT o.id, row_number() OVER (PARTITION BY o.paid) AS n FROM public.orders o": "A window in no order",
    "SELECT o.id, sum(o.id) OVER (ORDER BY o.amount ROWS 1 PRECEDING) AS n FROM public.orders o": "A window by amount",
    "SELECT o.paid, array_agg(o.id) AS a FROM public.orders o GROUP BY o.paid": "array_agg(id) has no ORDER BY",
    "SELECT o.paid, array_agg(o.id ORDER BY o.amount) AS a FROM public.orders o GROUP BY o.paid": "array_agg(id ORDER",
    "SELECT o.paid, array_agg(o.placed ORDER BY o.amount) FILTER (WHERE o.id > 1) AS a FROM public.orders o"
    " GROUP BY o.paid": "array_agg(placed ORDER",
    "SELECT v.page, row_number() OVER w AS n FROM public.visits v WINDOW w AS (ORDER BY v.seconds)": "A window by sec",
}
DECIDED = (
    "SELECT o.id, o.amount FROM public.orders o ORDER BY o.amount, o.id LIMIT 3",
    "SELECT o.amount FROM public.orders o ORDER BY o.amount FETCH FIRST 2 ROWS WITH TIES",
    "SELECT v.seconds FROM public.visits v ORDER BY v.seconds LIMIT 3",
    "SELECT DISTINCT ON (o.paid) o.paid, o.id FROM public.orders o ORDER BY o.paid, o.amount, o.id",
    "SELECT DISTINCT ON (o.id) o.paid, o.id FROM public.orders o ORDER BY o.id",
    "SELECT o.id, row_number() OVER (PARTITION BY o.paid ORDER BY o.amount, o.id) AS n FROM public.orders o",
    "SELECT o.id, rank() OVER (ORDER BY o.amount) AS n, sum(o.id) OVER (ORDER BY o.amount) AS s FROM public.orders o",
    "SELECT o.paid, array_agg(o.id ORDER BY o.id) AS a, max(o.id) AS m FROM public.orders o GROUP BY o.paid",
    "SELECT o.paid, array_agg(o.amount ORDER BY o.amount DESC) AS a FROM public.orders o GROUP BY o.paid",
    "SELECT o.paid, array_agg(o.amount ORDER BY o.id) AS a FROM public.orders o GROUP BY o.paid",
    "SELECT i.product, max(i.weight) AS m, sum(i.line) AS s FROM public.items i GROUP BY i.product",
    "SELECT o.id, sum(o.amount) OVER () AS s FROM public.orders o",
    "SELECT c.name, count(*) AS n FROM public.orders o JOIN public.customers c ON c.id = o.customer_id GROUP BY c.name",
)


@pytest.mark.parametrize(("query", "told"), OPEN.items(), ids=range(len(OPEN)))
def test_an_order_that_leaves_rows_undecided_is_told(query, told):
    plan = compile_query(request(query))
    (note,) = plan.ties
    assert note.startswith(told)
    assert note in plan.explain["notes"]


@pytest.mark.parametrize("query", DECIDED, ids=range(len(DECIDED)))
def test_an_order_that_contains_a_key_is_not(query):
    assert compile_query(request(query)).ties == ()


def test_of_rows_that_tie_a_limit_takes_those_with_the_lowest_numbers():
    """Both follow the order of the subquery, which says no more than that."""
    query = "SELECT q.id, row_number() OVER () AS n FROM (SELECT o.id FROM public.orders o ORDER BY o.amount) q LIMIT 3"
    plan = compile_query(request(query, outputs="id integer; n bigint"))
    (top,) = [line["detail"] for line in plan.explain["tree"] if line["operator"] == "Top"]
    assert "amount" in top.split(", ")[0]
    assert top.split(", ")[1] == "row_number limit 3"
