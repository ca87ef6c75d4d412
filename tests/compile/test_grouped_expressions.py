"""Expressions of all kinds over groups: the parts of an expression that aren't values by themselves are no keys."""

from __future__ import annotations

import pytest

from pg_trickle.compile import compile as compile_query
from tests.compile.requests import request

EXPRESSIONS = (
    "(o.customer_id = ANY ('{2,1}'::integer[]))",
    "(array_agg(o.id ORDER BY o.id))::bigint[]",
    "(array_agg(o.id ORDER BY o.id))[1:2]",
    "sum(o.id) FILTER (WHERE (o.id = ANY ('{1}'::integer[])))",
    "percentile_cont('{0.5}'::double precision[]) WITHIN GROUP (ORDER BY o.id)",
    "CASE o.customer_id WHEN 1 THEN '{1}'::integer[] ELSE NULL::integer[] END",
    "concat(VARIADIC ARRAY['a'::text])",
    "(count(*))::numeric(8,2)",
    "('1 day'::interval day to hour)",
    "(max(o.placed) AT TIME ZONE 'UTC')",
    "(ROW(o.customer_id, 1) = ROW(1, 2))",
    "JSON_OBJECT('a' : count(*) RETURNING text)",
    "JSON_OBJECT('a' : o.customer_id ABSENT ON NULL)",
    "JSON_ARRAY(count(*), 1)",
    "JSON_VALUE('1'::jsonb, '$' RETURNING integer)",
    "JSON_QUERY(to_jsonb(count(*)), '$[*]' PASSING o.customer_id AS x WITH WRAPPER)",
    "JSON_SERIALIZE('1'::jsonb)",
    "(count(*))::text IS JSON",
    "xmlelement(name foo, xmlattributes(o.customer_id AS b), count(*))",
    "xmlforest(count(*) AS a)",
)  # fmt: skip
GROUPED = "FROM public.orders o GROUP BY o.customer_id"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_over_groups_is_no_trouble(expression: str) -> None:
    for query in (
        f"SELECT o.customer_id AS a, {expression} AS n {GROUPED}",
        f"SELECT o.customer_id AS a, 1 AS n {GROUPED} HAVING {expression} IS NOT NULL",
        f"SELECT o.customer_id AS a, rank() OVER (ORDER BY {expression}) AS n {GROUPED}",
    ):
        plan = compile_query(request(query, outputs="a integer; n bigint"))
        assert plan.refusal is None
        assert not any("recomputed and diffed" in line["rule"] for line in plan.explain["tree"] if "OVER" not in query)
