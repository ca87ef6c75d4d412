"""Explaining a plan tells of every operator which rule maintains it, and what that costs."""

from __future__ import annotations

import pytest

from pg_trickle.compile import compile as compile_query
from tests.compile.corpus import cases
from tests.compile.requests import request

COSTS = {
    "SELECT o.id FROM public.orders o JOIN public.items i ON i.order_id = o.id": "|ΔL| look-ups in R and |ΔR| in L",
    "SELECT o.id FROM public.orders o JOIN public.items i ON i.line > o.id": "all of R for a change of L",
    "SELECT o.id, i.line FROM public.orders o LEFT JOIN public.items i ON i.order_id = o.id": "one in R for each row",
    "SELECT o.id FROM public.orders o WHERE NOT EXISTS (SELECT FROM public.items i WHERE i.line > o.id)": "L × R",
    "SELECT o.id, i.line FROM public.orders o FULL JOIN public.items i ON i.order_id = o.id": "one back",
    "SELECT o.paid, count(*) AS n FROM public.orders o GROUP BY o.paid": "a look-up for each touched group",
    "SELECT count(*) AS n FROM public.orders o": "|Δ|, and one stored row",
    "SELECT max(o.id) AS n FROM public.orders o": "the rows of a group when what it shows went",
    "SELECT stddev(o.id) AS n FROM public.orders o": "3 × |Δ| additions",
    "SELECT string_agg(v.page, ',' ORDER BY v.page) AS p FROM public.visits v": "the rows of the touched groups",
    "SELECT o.id, rank() OVER (ORDER BY o.id) AS r FROM public.orders o": "all rows below, sorted",
    "SELECT o.id, rank() OVER (PARTITION BY o.paid ORDER BY o.id) AS r FROM public.orders o": "touched partitions",
    "SELECT DISTINCT ON (o.paid) o.paid, o.id FROM public.orders o ORDER BY o.paid, o.id": "touched keys",
    # An ordered-set aggregate gives one of the values that it sorts: its type is known.
    "SELECT DISTINCT ON (q.p) q.p, q.g FROM (SELECT o.paid AS g, percentile_disc(0.5) WITHIN GROUP (ORDER BY o.id) AS p"
    " FROM public.orders o GROUP BY o.paid) q ORDER BY q.p, q.g": "the rows of the touched keys",
    "SELECT o.id FROM public.orders o ORDER BY o.id LIMIT 5 OFFSET 0": "and the stored rows; all rows below, sorted",
    "SELECT o.id FROM public.orders o ORDER BY o.id OFFSET 2": "all rows below, sorted, whenever one changed",
    "SELECT o.id FROM public.orders o WHERE o.placed < CURRENT_DATE": "the rows that passed, at each refresh",
    "SELECT o.id, g.g FROM public.orders o, generate_series(1, o.id) g(g)": "× the rows that it makes of one",
    "SELECT o.id FROM public.orders o LIMIT 3": "all rows that the query reads, at each refresh",
}


@pytest.mark.parametrize(("query", "told"), COSTS.items(), ids=range(len(COSTS)))
def test_the_cost_follows_the_rule(query, told):
    assert any(told in line["cost"] for line in compile_query(request(query)).explain["tree"])


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_every_operator_has_a_rule_and_a_cost(case):
    for line in compile_query(request(case.query)).explain["tree"]:
        assert line["rule"]
        assert line["cost"]
