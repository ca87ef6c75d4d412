"""Which indexes a plan asks for."""

from __future__ import annotations

import pytest

from pg_trickle.compile import compile as compile_query
from tests.compile.requests import request

ORDERS = "SELECT o.id FROM public.orders o WHERE {}"
AVERAGE = "(SELECT avg(p.amount) FROM public.orders p)"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ORDERS.format(f"o.amount > {AVERAGE}"), {"amount": "comparison amount > avg"}),
        (ORDERS.format(f"{AVERAGE} >= o.amount"), {"amount": "comparison avg >= amount"}),
        (ORDERS.format(f"o.amount > {AVERAGE} + o.id"), {}),
        (
            "SELECT v.page FROM public.visits v JOIN public.customers c ON c.id = v.customer_id",
            {"customer_id": "join condition id = customer_id"},
        ),
    ],
)
def test_what_a_change_looks_rows_up_by_is_asked_for(query: str, expected: dict[str, str]):
    found = {one["columns"][0]: one["why"] for one in compile_query(request(query)).indexes}
    assert found == expected
