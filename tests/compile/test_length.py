"""WITH queries each of which names the one before twice: they grow with their number, or are run as they stand."""

from __future__ import annotations

import json

import pytest

from pg_trickle.compile import compile as compile_query
from pg_trickle.errors import Overgrown
from pg_trickle.parse.select import parse
from tests.compile.requests import SHOP, request, view

CONSTRUCT = "WITH query or view that is named very often"
# Without stages; what is said of a level, over the one below it.
PLAIN = {
    "joined": "SELECT a.k, b.v FROM {0} a JOIN {0} b ON a.k = b.k",
    "left joined": "SELECT a.k, b.v FROM {0} a LEFT JOIN {0} b ON a.k = b.v",
    "added": "SELECT a.k, a.v FROM {0} a UNION ALL SELECT b.k, b.v FROM {0} b",
    "asked": "SELECT a.k, a.v FROM {0} a WHERE EXISTS (SELECT 1 FROM {0} b WHERE b.k = a.k AND b.v < a.v)",
}
STAGES = {
    "grouped": "SELECT a.k, max(b.v) AS v FROM {0} a JOIN {0} b ON a.k = b.k GROUP BY a.k",
    "distinct": "SELECT DISTINCT a.k, b.v FROM {0} a JOIN {0} b ON a.k = b.k",
    "compared": "SELECT a.k, a.v FROM {0} a WHERE a.v < (SELECT max(b.v) AS max FROM {0} b)",
    "ranked": "SELECT a.k, rank() OVER (PARTITION BY a.k ORDER BY b.v) AS v FROM {0} a JOIN {0} b ON a.k = b.k",
}


def chain(level: str, number: int) -> str:
    levels = ["w0 AS (SELECT o.id AS k, o.customer_id AS v FROM public.orders o)"]
    levels += [f"w{place} AS ({level.format(f'w{place - 1}')})" for place in range(1, number + 1)]
    return f"WITH {', '.join(levels)} SELECT q.k, q.v FROM w{number} q"


def is_run(query: str) -> bool:
    """Whether it is run as it stands, for its length."""
    plan = compile_query(request(query))
    assert plan.incremental
    return any(note.startswith(CONSTRUCT) for note in plan.explain["notes"])


@pytest.mark.parametrize("level", [*PLAIN.values(), *STAGES.values()], ids=[*PLAIN, *STAGES])
def test_a_few_levels_have_rules(level):
    assert not is_run(chain(level, 3))


@pytest.mark.parametrize("level", [*PLAIN.values(), *STAGES.values()], ids=[*PLAIN, *STAGES])
def test_many_are_run_as_they_stand(level):
    """Else forty would take longer than there are electrons to do it."""
    assert is_run(chain(level, 40))


@pytest.mark.parametrize("level", STAGES.values(), ids=STAGES)
def test_stages_are_made_once(level):
    """Another level costs about what the one before cost, and not twice as much."""
    three, five, seven = (
        len(json.dumps(compile_query(request(chain(level, number))).to_json())) for number in (3, 5, 7)
    )
    assert seven - five < 3 * (five - three)


def test_what_is_named_often_side_by_side_is_not_too_long():
    """A query reads no more tables than it names but for the text of what it names."""
    joined = "w AS (SELECT o.id, c.name AS v FROM public.orders o JOIN public.customers c ON c.id = o.customer_id)"
    branches = " UNION ALL ".join(f"SELECT w.id, w.v FROM w WHERE w.id = {n}" for n in range(70))
    assert not is_run(f"WITH {joined} SELECT q.id, q.v FROM ({branches}) q")


def test_views_count_like_with_queries():
    views = [view(20, "v0", "k integer; v integer", "SELECT o.id AS k, o.customer_id AS v FROM public.orders o")]
    for place in range(1, 9):
        text = PLAIN["joined"].format(f"public.v{place - 1}")
        views.append(view(20 + place, f"v{place}", "k integer; v integer", text))
    made = request("SELECT q.k, q.v FROM public.v8 q", (*SHOP, *views))
    with pytest.raises(Overgrown) as refusal:
        parse(made)
    assert refusal.value.construct == CONSTRUCT
    assert "128 tables" in refusal.value.reason


def test_inside_a_derived_table_it_is_the_whole_query_that_is_run():
    """A part of it would have to name the WITH queries, too."""
    inner = chain(PLAIN["joined"], 12)
    plan = compile_query(request(f"SELECT s.k, s.v FROM ({inner}) s JOIN public.orders o ON o.id = s.k"))
    assert plan.explain["tree"][0]["operator"] == "Query"
