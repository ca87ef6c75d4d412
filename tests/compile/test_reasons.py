"""Where a rule that a reader would expect isn't taken, explain says why."""

from __future__ import annotations

import pytest

from pg_trickle.compile import compile as compile_query
from tests.compile.requests import request

MATCHED = (
    "SELECT c.name, sum(o.amount) AS v"
    " FROM public.customers c LEFT JOIN public.orders o ON o.customer_id = c.id GROUP BY c.name"
)
REASONS = {
    "SELECT avg(DISTINCT m.price) AS v FROM public.items m": "of equal numbers",
    "SELECT stddev(DISTINCT m.price) AS v FROM public.items m": "of equal numbers",
    "SELECT sum(i.weight) AS v FROM public.items i": "a sum of floats depends on the order",
    MATCHED: "a left join, all of whose left rows are padded",
}
PLAIN = (
    "SELECT sum(DISTINCT o.id) AS v FROM public.orders o",
    "SELECT avg(o.amount) AS v FROM public.orders o",
    "SELECT array_agg(o.amount) AS v FROM public.orders o",
    "SELECT o.paid, count(*) AS v FROM (SELECT o.paid FROM public.orders o UNION ALL"
    " SELECT c.placed IS NULL FROM public.orders c) o GROUP BY o.paid",
)


def _rules(query: str) -> list[str]:
    return [line["rule"] for line in compile_query(request(query)).explain["tree"]]


@pytest.mark.parametrize(("query", "reason"), REASONS.items(), ids=range(len(REASONS)))
def test_a_reason_is_told(query, reason):
    assert [rule for rule in _rules(query) if reason in rule] != []


@pytest.mark.parametrize(
    ("calls", "rule"),
    [
        ("string_agg(v.page, ',' ORDER BY v.page) AS p", "read again; a stored count"),
        ("string_agg(v.page, ',' ORDER BY v.page) AS p, count(*) AS n", "stored counters"),
        ("max(v.page) AS p", "stored counters"),
    ],
)
def test_counters_are_told_of_where_there_are_some(calls, rule):
    rules = _rules(f"SELECT v.customer_id, {calls} FROM public.visits v GROUP BY v.customer_id")
    assert rule in rules[0]


def test_a_stage_that_is_read_twice_is_told_once():
    levels = ["w0 AS (SELECT o.customer_id AS k, max(o.amount) AS m FROM public.orders o GROUP BY o.customer_id)"]
    for place in range(1, 6):
        below = f"w{place - 1}"
        levels.append(
            f"w{place} AS (SELECT a.k, max(b.m) AS m FROM {below} a JOIN {below} b ON a.k = b.k GROUP BY a.k)"
        )
    query = f"WITH {', '.join(levels)} SELECT w5.k, w5.m AS v FROM w5"
    assert _rules(query).count("as told above") == 5


@pytest.mark.parametrize("query", PLAIN, ids=range(len(PLAIN)))
def test_where_there_is_none_none_is_told(query):
    assert [rule for rule in _rules(query) if ": " in rule and not rule.startswith(("counter", "algebraic"))] == []
