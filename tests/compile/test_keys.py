"""By which columns a stream table's rows are told apart: only what is certain is a key."""

from __future__ import annotations

import pytest

from pg_trickle import uniqueness
from pg_trickle.algebra.plan import Plan
from pg_trickle.compile import compile as compile_query
from tests.compile.requests import parsed, request

KEYS = {
    "a primary key": ("SELECT o.id, o.amount FROM public.orders o", ("id",)),
    "filtered": ("SELECT o.amount, o.id FROM public.orders o WHERE o.paid", ("id",)),
    "renamed": ("SELECT o.id AS number FROM public.orders o", ("number",)),
    "projected away": ("SELECT o.amount FROM public.orders o", None),
    "computed": ("SELECT o.id + 1 AS id FROM public.orders o", None),
    "no key": ("SELECT v.page FROM public.visits v", None),
    "a unique column that may be NULL": ("SELECT l.tag, l.kind FROM public.labels l", None),
    "a stream table's key may be NULL": ("SELECT t.region, t.total FROM public.totals t", ("region",)),
    "joined by the other's key": (
        "SELECT o.id, c.name FROM public.orders o JOIN public.customers c ON c.id = o.customer_id",
        ("id",),
    ),
    "joined by nothing unique": (
        "SELECT o.id, c.id AS c FROM public.orders o JOIN public.customers c ON c.region = o.amount::text",
        ("id", "c"),
    ),
    "one key of a join is missing": (
        "SELECT o.id FROM public.orders o JOIN public.visits v ON v.customer_id = o.customer_id",
        None,
    ),
    "two columns": ("SELECT i.line, i.order_id FROM public.items i", ("line", "order_id")),
    "half a key": ("SELECT i.order_id FROM public.items i", None),
    "a self join": (
        "SELECT a.id, b.id AS b FROM public.orders a JOIN public.orders b ON a.amount = b.amount",
        ("id", "b"),
    ),
    "groups": ("SELECT v.page, count(*) AS n FROM public.visits v GROUP BY v.page", ("page",)),
    "groups by two": (
        "SELECT v.page, v.seconds, count(*) AS n FROM public.visits v GROUP BY v.seconds, v.page",
        ("page", "seconds"),
    ),
    "groups that aren't shown": ("SELECT count(*) AS n FROM public.visits v GROUP BY v.page", None),
    "one row": ("SELECT count(*) AS n FROM public.visits v", None),
    "DISTINCT": ("SELECT DISTINCT v.page, v.seconds FROM public.visits v", ("page", "seconds")),
    "DISTINCT that drops a column": (
        "SELECT q.page FROM (SELECT DISTINCT v.page, v.seconds FROM public.visits v) q",
        None,
    ),
    "UNION": ("SELECT o.id FROM public.orders o UNION SELECT c.id FROM public.customers c", ("id",)),
    "UNION ALL": ("SELECT o.id FROM public.orders o UNION ALL SELECT c.id FROM public.customers c", None),
    "HAVING": ("SELECT v.page FROM public.visits v GROUP BY v.page HAVING count(*) > 1", ("page",)),
    "groups joined with a table by its key": (
        "SELECT q.customer_id, q.n, c.name"
        " FROM (SELECT o.customer_id, count(*) AS n FROM public.orders o GROUP BY o.customer_id) q"
        " JOIN public.customers c ON c.id = q.customer_id",
        ("customer_id",),
    ),
    "a column shown twice": ("SELECT o.id, o.id AS again FROM public.orders o", ("again",)),
}


@pytest.mark.parametrize(("query", "key"), KEYS.values(), ids=KEYS)
def test_the_key_of(query, key):
    plan = compile_query(request(query))
    assert plan.incremental
    if key is None:
        assert plan.key is None
    else:
        assert set(plan.key or ()) == set(key)


def test_a_bag_is_looked_up_by_its_content():
    plan = compile_query(request("SELECT l.kind, l.doc FROM public.labels l"))
    assert (plan.key, plan.content_index) == (None, ("kind",))


def test_only_what_is_read_is_captured():
    plan = compile_query(
        request(
            "SELECT c.name, sum(o.amount) AS total FROM public.orders o JOIN public.customers c ON c.id = o.customer_id"
            " WHERE o.paid GROUP BY c.id, c.name"
        )
    )
    assert {oid: set(names) for oid, names in plan.sources.items()} == {
        1: {"id", "name"},
        2: {"customer_id", "amount", "paid"},
    }


def test_the_keys_of_many_joins_are_asked_for_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for twice by each join, those of eighteen took the compiler 250,000 steps."""
    asked: list[Plan] = []
    answer = uniqueness.keys

    def noted(plan: Plan) -> tuple[uniqueness.Key, ...]:
        asked.append(plan)
        return answer(plan)

    monkeypatch.setattr(uniqueness, "keys", noted)
    joins = " ".join(f"JOIN public.customers c{n} ON c{n}.id = o.customer_id" for n in range(17))
    plan = parsed(request(f"SELECT o.id FROM public.orders o {joins}")).plan
    assert uniqueness.keys(plan) != ()
    assert len(asked) == len({id(part) for part in asked})
