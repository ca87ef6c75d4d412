"""Which indexes a plan asks for, and which it gives to its states."""

from __future__ import annotations

import pytest

from pg_trickle.compile import compile as compile_query
from pg_trickle.lookups import StateIndex
from tests.compile.requests import request

ORDERS = "SELECT o.id FROM public.orders o WHERE {}"
AVERAGE = "(SELECT avg(p.amount) FROM public.orders p)"
PAIRS = "(SELECT v.customer_id AS c, v.page AS p, count(*) AS n FROM public.visits v GROUP BY v.customer_id, v.page)"
LATEST = "(SELECT DISTINCT ON (o.customer_id) o.customer_id AS c, o.id AS i FROM public.orders o ORDER BY 1, o.placed)"
LARGEST = "(SELECT o.customer_id AS c, max(o.id) AS i FROM public.orders o GROUP BY o.customer_id)"
OF_CUSTOMERS = f"SELECT c.name, q.n FROM public.customers c {{join}} {PAIRS} q ON {{on}}"
OF_ORDERS = "SELECT q.i FROM {of} q JOIN public.orders p ON {on}"


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
        # The rows of a group are read again when its extreme goes, and sums are never.
        (
            "SELECT o.customer_id, max(o.amount) FROM public.orders o GROUP BY o.customer_id",
            {"customer_id": "group key customer_id"},
        ),
        ("SELECT o.customer_id, sum(o.amount) FROM public.orders o GROUP BY o.customer_id", {}),
        ("SELECT o.id, max(o.amount) FROM public.orders o GROUP BY o.id", {}),
        (
            "SELECT c.region, max(o.amount) FROM public.orders o JOIN public.customers c ON c.id = o.customer_id"
            " GROUP BY c.region",
            {"customer_id": "join condition id = customer_id", "region": "group key region"},
        ),
        # One index over all that a row is looked up by, and none where fewer of its columns have one.
        (
            "SELECT o.customer_id, o.placed, max(o.amount) FROM public.orders o GROUP BY o.customer_id, o.placed",
            {"customer_id, placed": "group key customer_id, placed"},
        ),
        (
            "SELECT v.page FROM public.visits v JOIN public.customers c ON c.id = v.customer_id AND c.region = v.page",
            {"customer_id, page": "join condition id = customer_id, region = page"},
        ),
        (
            "SELECT v.customer_id, v.page, rank() OVER (PARTITION BY v.customer_id, v.page ORDER BY v.page) AS r"
            " FROM public.visits v JOIN public.customers c ON c.id = v.customer_id",
            {"customer_id": "join condition id = customer_id"},
        ),
        # An expression has no column to be indexed.
        ("SELECT upper(c.region), max(c.name) FROM public.customers c GROUP BY upper(c.region)", {}),
    ],
)
def test_what_a_change_looks_rows_up_by_is_asked_for(query: str, expected: dict[str, str]):
    found = {", ".join(one["columns"]): one["why"] for one in compile_query(request(query)).indexes}
    assert found == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # By a part of the groups' key, whichever side of whatever join changes.
        (OF_CUSTOMERS.format(join="JOIN", on="q.c = c.id"), ("btree", "k1")),
        (OF_CUSTOMERS.format(join="LEFT JOIN", on="q.c = c.id"), ("btree", "k1")),
        (
            f"SELECT c.name FROM public.customers c WHERE EXISTS (SELECT FROM {PAIRS} q WHERE q.c = c.id AND q.n > 1)",
            ("btree", "k1"),
        ),
        # Texts may be wider than an index entry; beside something narrow they needn't be in it.
        (OF_CUSTOMERS.format(join="JOIN", on="q.p = c.name"), ("hash", "k2")),
        (OF_CUSTOMERS.format(join="JOIN", on="q.p = c.name AND q.c = c.id"), ("btree", "k1")),
        # By what an aggregate shows; by its key, if that is there too.
        (OF_ORDERS.format(of=LARGEST, on="q.i = p.id"), ("btree", "max1")),
        (OF_ORDERS.format(of=LARGEST, on="q.i = p.id AND q.c = p.customer_id"), None),
        # Rows that are stored, by another column than what tells which are touched.
        (OF_ORDERS.format(of=LATEST, on="q.i = p.id"), ("btree", "c2")),
        (OF_ORDERS.format(of=LATEST, on="q.c = p.customer_id"), None),
        # Groups over groups: the rows of one are those of a group below, which may have no name.
        (f"SELECT q.c, max(q.n) FROM {PAIRS} q GROUP BY q.c", ("row", "k1")),
        (f"SELECT q.c, q.n, rank() OVER (PARTITION BY q.c ORDER BY q.n) AS r FROM {PAIRS} q", ("row", "k1")),
        (f"SELECT q.c, sum(q.n) FROM {PAIRS} q GROUP BY q.c", None),
    ],
)
def test_a_state_has_an_index_for_what_looks_up_its_rows(query: str, expected: tuple[str, str] | None):
    plan = compile_query(request(query))
    made = plan.indexed[plan.states[0].state]
    assert made == (() if expected is None else (StateIndex((expected[1],), expected[0]),))
    assert plan.to_json()["states"][0]["sought"] == [one.to_json() for one in made]
