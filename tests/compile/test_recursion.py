"""Which recursive queries are maintained by the rule, and what is said of the others."""

from __future__ import annotations

import pytest

from pg_trickle.compile import Plan
from pg_trickle.compile import compile as compile_query
from tests.compile.requests import request

ORDERS = "public.orders o ON o.customer_id = w.id"
BY_RULE = (
    f"SELECT 1 AS id UNION SELECT o.id FROM w JOIN {ORDERS}",
    f"SELECT 1 AS id UNION ALL SELECT o.id FROM w JOIN {ORDERS}",
    f"SELECT 1 AS id UNION SELECT DISTINCT o.id FROM w JOIN {ORDERS}",
    "SELECT 1 AS id UNION SELECT o.id FROM public.orders o, w WHERE o.customer_id < w.id",
    f"SELECT 1 AS id UNION ALL SELECT coalesce(o.id, w.id + 1) FROM w LEFT JOIN {ORDERS}",
    f"SELECT 1 AS id UNION SELECT o.id FROM w JOIN {ORDERS} WHERE o.id NOT IN (SELECT c.id FROM public.customers c)",
    f"SELECT 1 AS id UNION SELECT o.id FROM (SELECT w.id FROM w WHERE w.id > 0) w JOIN {ORDERS}",
    f"SELECT 1 AS id UNION SELECT o.id FROM w JOIN {ORDERS} AND o.placed > now() - interval '1 day'",
    "SELECT 1 AS id UNION SELECT w.id + g.n FROM w CROSS JOIN LATERAL generate_series(1, 2) AS g(n) WHERE w.id < 9",
    f"SELECT min(c.id) AS id FROM public.customers c UNION SELECT o.id FROM w JOIN {ORDERS}",
    "SELECT 1 AS id UNION SELECT m.id FROM w JOIN (SELECT o.customer_id, max(o.id) AS id FROM public.orders o"
    " GROUP BY o.customer_id) m ON m.customer_id = w.id",
)
NOT_LINEAR = "its recursive term (a row of it may follow from several rows together"
RECOMPUTED = {
    f"SELECT 1 AS id UNION ALL SELECT DISTINCT o.id FROM w JOIN {ORDERS}": NOT_LINEAR,
    f"SELECT 1 AS id UNION (SELECT o.id FROM w JOIN {ORDERS} UNION ALL SELECT 7)": NOT_LINEAR,
    f"SELECT 1 AS id UNION ALL SELECT (max(o.id) OVER ())::integer FROM w JOIN {ORDERS}": NOT_LINEAR,
    f"SELECT 1 AS id UNION (WITH v AS (SELECT w.id FROM w) SELECT o.id FROM v w JOIN v USING (id) JOIN {ORDERS})":
        NOT_LINEAR,
    "SELECT 1.5 AS id UNION SELECT w.id * 2 FROM w WHERE w.id < 9": 'UNION over column "id" (equal values',
    "SELECT 'a'::text COLLATE \"C\" AS id UNION SELECT c.name FROM w JOIN public.customers c ON c.name > w.id":
        "COLLATE in a recursive query",
    f"(WITH x AS (SELECT 1 AS id) SELECT x.id FROM x) UNION SELECT s.id FROM (SELECT o.id FROM w JOIN {ORDERS}"
    " ORDER BY o.id LIMIT 3) s": NOT_LINEAR,
}  # fmt: skip


def compiled(recursion: str) -> Plan:
    return compile_query(request(f"WITH RECURSIVE w AS ({recursion}) SELECT w.id FROM w", outputs="id integer"))


def rules(plan: Plan) -> dict[str, str]:
    return {line["operator"]: line["rule"] for line in plan.explain["tree"]}


@pytest.mark.parametrize("recursion", BY_RULE)
def test_a_linear_term_has_a_rule(recursion: str) -> None:
    plan = compiled(recursion)
    assert plan.refusal is None
    assert rules(plan)["Recursion"].startswith("semi-naive")


@pytest.mark.parametrize(("recursion", "reason"), RECOMPUTED.items())
def test_any_other_is_recomputed_and_why_is_said(recursion: str, reason: str) -> None:
    plan = compiled(recursion)
    assert plan.refusal is None
    assert rules(plan)["Query"].startswith("recomputed and diffed")
    assert any(note.startswith("WITH RECURSIVE") and reason in note for note in plan.explain["notes"])


WALK = "SELECT 1 AS id, 0 AS n UNION ALL SELECT o.id, w.n + 1 FROM w JOIN public.orders o ON o.customer_id = w.id"
CYCLE = "CYCLE id SET again USING way"


@pytest.mark.parametrize(
    ("clause", "shown", "stored"),
    [
        ("SEARCH DEPTH FIRST BY id SET place", "w.id", 2),
        ("SEARCH DEPTH FIRST BY id, n SET place", "w.id, w.place::text", 4),
        ("SEARCH BREADTH FIRST BY id SET place", "w.id, w.place::text", 3),
        (CYCLE, "w.id, w.again", 4),
        (f"SEARCH BREADTH FIRST BY n SET place {CYCLE}", "w.id, w.way::text", 5),
        ("CYCLE id, n SET again TO 'yes'::text DEFAULT 'no'::text USING way", "w.id, w.again", 4),
    ],
)
def test_search_and_cycle_are_columns_that_only_who_reads_them_pays_for(clause: str, shown: str, stored: int) -> None:
    outputs = ["id integer", "x text"][: shown.count(",") + 1]
    query = f"WITH RECURSIVE w AS ({WALK}) {clause} SELECT {shown} FROM w"
    plan = compile_query(request(query, outputs="; ".join(outputs)))
    assert rules(plan)["Recursion"].startswith("semi-naive")
    (state,) = plan.to_json()["states"]
    assert len(state["columns"]) == stored


@pytest.mark.parametrize(
    ("recursion", "shown", "reason"),
    [
        (f"({WALK.replace(' ALL', '')}) {CYCLE}", "SELECT w.id FROM w", "UNION with SEARCH or CYCLE"),
        (f"({WALK.replace('1 AS id', '1.5 AS id')}) {CYCLE}", "SELECT w.n FROM w", 'SEARCH or CYCLE by column "id"'),
        (
            f"({WALK.replace('ALL SELECT', 'ALL SELECT DISTINCT')}) {CYCLE}",
            "SELECT w.id FROM w",
            "SEARCH or CYCLE (a row",
        ),
        (f"({WALK}) {CYCLE}", "SELECT max(w.id) FROM w GROUP BY w.way", "rows without a type"),
        (f"({WALK}) {CYCLE}", "SELECT length(max(w.way)::text) FROM w", "rows without a type"),
        (
            f"({WALK}) SEARCH DEPTH FIRST BY id SET o",
            "SELECT w.id FROM w ORDER BY w.o, w.id LIMIT 3",
            "rows without a type",
        ),
    ],
)
def test_paths_that_no_table_can_hold_are_recomputed(recursion: str, shown: str, reason: str) -> None:
    plan = compile_query(request(f"WITH RECURSIVE w AS {recursion} {shown}", outputs="id integer"))
    assert plan.refusal is None
    assert any(reason in note for note in plan.explain["notes"])


def test_only_what_the_term_reads_is_captured_and_looked_for_by_an_index() -> None:
    plan = compiled(BY_RULE[0])
    assert plan.sources == {2: ("id", "customer_id")}
    (state,) = plan.to_json()["states"]
    # The key's index is the one.
    assert (state["key"], state["sought"]) == (["c1"], [])


def test_what_is_wider_than_an_index_entry_may_be_is_found_by_a_hash() -> None:
    names = "SELECT c.name FROM public.customers c UNION SELECT c.region FROM w JOIN public.customers c USING (name)"
    plan = compile_query(request(f"WITH RECURSIVE w AS ({names}) SELECT w.name FROM w", outputs="name text"))
    (state,) = plan.to_json()["states"]
    assert (state["key"], state["content_index"]) == (None, ["c1"])
