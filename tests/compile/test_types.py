"""What the compiler knows of an expression's type, and that it says so when it knows nothing."""

from __future__ import annotations

import pytest

from pg_trickle.scalar import Identity
from tests.compile.requests import parsed, request

FROM = "FROM public.orders o, public.visits v, public.items i, public.labels l"
# expression: (name, identity, scale)
KNOWN = {
    "o.id": ("int4", "equal", 0),
    "o.amount": ("numeric", "scale", 2),
    "i.price": ("numeric", "scale", None),
    "o.id + 1": ("int4", "equal", 0),
    "o.id::bigint * 2": ("int8", "equal", 0),
    "o.amount * o.amount": ("numeric", "scale", 4),
    "o.amount + 1.125": ("numeric", "scale", 3),
    "o.amount + i.price": ("numeric", "scale", None),
    "o.amount / 3::numeric": ("numeric", "scale", None),
    "i.price::numeric(8,3)": ("numeric", "scale", 3),
    "i.price::numeric(8)": ("numeric", "scale", 0),
    "o.id::numeric": ("numeric", "scale", 0),
    "- o.amount": ("numeric", "scale", 2),
    "1.5": ("numeric", "scale", 1),
    "1": ("int4", "equal", 0),
    "3000000000": ("int8", "equal", 0),
    "'x'::text": ("text", "equal", None),
    "v.page || 'x'::text": ("text", "equal", None),
    "o.id = 1": ("bool", "equal", None),
    "NOT o.paid": ("bool", "equal", None),
    "o.id IS NULL": ("bool", "equal", None),
    "o.id IN (1, 2)": ("bool", "equal", None),
    "CASE WHEN o.paid THEN o.id ELSE 0 END": ("int4", "equal", 0),
    "CASE WHEN o.paid THEN o.amount ELSE 1.125 END": ("numeric", "scale", None),
    "COALESCE(o.id, 0)": ("int4", "equal", 0),
    "GREATEST(o.id, v.seconds)": ("int4", "equal", 0),
    "l.info": ("jsonb", "text", None),
    "i.weight": ("float8", "text", None),
    "upper(v.page)": ("text", "equal", None),
    "l.info ->> 'a'::text": ("text", "equal", None),
    "l.doc #>> '{a,b}'::text[]": ("text", "equal", None),
    "o.placed + 1": ("date", "equal", None),
    "o.placed - o.placed": ("int4", "equal", 0),
    "o.placed - '1 mon'::interval": ("timestamp", "equal", None),
    "v.seen + '1 day'::interval": ("timestamptz", "equal", None),
    "EXTRACT(year FROM v.seen)": ("numeric", "equal", None),
}
UNKNOWN = [
    "i.weight + 1::double precision",
    "ARRAY[o.id]",
    "NULLIF(o.id, 1)",
    "l.info -> 'a'::text",
    "o.id OPERATOR(public.+) o.id",
    "EXTRACT(epoch FROM v.seen)",
    "v.seen - v.seen",
    "l.doc::text || 'x'",
    "abs(o.id)",
]


def type_of(expression: str):
    ((_, column),) = parsed(request(f"SELECT {expression} AS x {FROM}", outputs="x text")).outputs
    return column.type


@pytest.mark.parametrize(("expression", "expected"), KNOWN.items(), ids=KNOWN)
def test_the_type_of(expression, expected):
    found = type_of(expression)
    name, identity, scale = expected
    assert (found.name, found.identity.value) == (name, identity)
    assert found.scale == scale


@pytest.mark.parametrize("expression", UNKNOWN)
def test_what_is_not_certain_is_compared_with_care(expression):
    """By value and by text, so that no change is taken for none."""
    found = type_of(expression)
    assert found.scale is None
    assert found.identity in {Identity.NONE, Identity.TEXT, Identity.SCALE} or found.name in {"int4", "text"}


RULES = {
    "count(*)": "COUNT",
    "count(v.seconds)": "COUNT",
    "sum(v.seconds)": "SUM",
    "sum(o.amount)": "SUM",
    "sum(i.price)": "SUM",
    "avg(o.amount)": "AVG",
    "avg(v.seconds)": "AVG",
    "avg(i.price)": "AVG",
    "sum(i.weight)": "RECOMPUTE",
    "avg(i.weight)": "RECOMPUTE",
    "min(v.page)": "MIN",
    "max(i.weight)": "MAX",
    "bool_and(o.paid)": "BOOL_AND",
    "every(o.paid)": "BOOL_AND",
    "bool_or(o.paid)": "BOOL_OR",
    "sum(DISTINCT v.seconds)": "SUM",
    "count(DISTINCT v.seconds)": "COUNT",
    "sum(DISTINCT i.weight)": "RECOMPUTE",
    "min(DISTINCT v.seconds)": "MIN",
    "bit_xor(v.seconds)": "BIT_XOR",
    "bit_or(DISTINCT v.seconds)": "BIT_OR",
    "bit_and(v.seconds)": "BIT_AND",
    "var_pop(v.seconds)": "VAR_POP",
    "variance(o.amount)": "VAR_SAMP",
    "stddev_pop(o.amount)": "STDDEV_POP",
    "stddev(i.price)": "STDDEV_SAMP",
    "variance(DISTINCT i.price)": "RECOMPUTE",
    "avg(DISTINCT i.price)": "RECOMPUTE",
    "stddev(i.weight)": "RECOMPUTE",
    "array_agg(v.seconds)": "RECOMPUTE",
    "stddev(v.seconds)": "STDDEV_SAMP",
    "sum(v.seconds) FILTER (WHERE o.paid)": "SUM",
    "min(v.seconds) FILTER (WHERE o.paid)": "MIN",
}


@pytest.mark.parametrize(("call", "rule"), RULES.items(), ids=RULES)
def test_the_rule_of(call, rule):
    """Floats don't add up exactly, and an average rounds by the scale of its sum."""
    from pg_trickle.algebra.aggregate import Aggregate
    from pg_trickle.algebra.plan import Plan, inputs

    def aggregates(plan: Plan) -> list[Aggregate]:
        own = [plan] if isinstance(plan, Aggregate) else []
        return own + [one for below in inputs(plan) for one in aggregates(below)]

    plan = parsed(request(f"SELECT {call} AS x {FROM}", outputs="x text")).plan
    made, *_ = (call for aggregate in aggregates(plan) for call in aggregate.calls)
    assert made.rule.name == rule
