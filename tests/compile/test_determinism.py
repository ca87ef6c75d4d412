"""Equal requests give equal plans, and no name can pass for SQL."""

from __future__ import annotations

import json
from dataclasses import replace

import postgast
import pytest

from pg_trickle.compile import Plan
from pg_trickle.compile import compile as compile_query
from tests.compile.requests import request, table

QUERIES = [
    "SELECT o.id, c.name FROM public.orders o JOIN public.customers c ON c.id = o.customer_id",
    "SELECT v.page, avg(v.seconds) AS a, max(v.seen) AS m FROM public.visits v GROUP BY v.page HAVING count(*) > 1",
    "SELECT q.n, count(*) AS m FROM (SELECT v.page, count(*) AS n FROM public.visits v GROUP BY v.page) q GROUP BY q.n",
    "SELECT o.id FROM public.orders o LIMIT 1",
]


@pytest.mark.parametrize("query", QUERIES)
def test_compiling_twice_gives_the_same_plan(query):
    one, other = (json.dumps(compile_query(request(query)).to_json()) for _ in range(2))
    assert one == other


def test_compiling_another_query_in_between_changes_nothing():
    first = compile_query(request(QUERIES[1])).to_json()
    compile_query(request(QUERIES[0]))
    assert compile_query(request(QUERIES[1])).to_json() == first


def test_the_alias_chosen_changes_nothing():
    one, other = (
        compile_query(request(f"SELECT {name}.id, {name}.amount FROM public.orders {name}")).to_json()
        for name in ("a", "b")
    )
    del one["programs"]["full"], other["programs"]["full"]
    del one["programs"]["verify"], other["programs"]["verify"]
    del one["programs"]["fill"], other["programs"]["fill"]
    assert one == other


def test_a_condition_with_a_subquery_changes_nothing_by_standing_first():
    """What the subquery is computed for was every pair of a customer and an order, and every pair was counted."""
    dearest = """o.amount > (SELECT avg(p.amount) FROM public.orders p
                              WHERE p.customer_id = o.customer_id AND p.amount < o.amount)"""
    one, other = (
        compile_query(request(f"SELECT o.id, c.name FROM public.orders o, public.customers c WHERE {condition}"))
        for condition in (f"{dearest} AND c.id = o.customer_id", f"c.id = o.customer_id AND {dearest}")
    )
    assert one.differential == other.differential


NAMES = [
    "select", "Mixed Case", 'quo"te', "semi;colon", "$1", "%s", "{name}", "--", "größe", "__pgt_w", "w", "xid", "seq",
    "x" * 63, "f", "t", "k", "y", "d_n", "h", "n", "o_n",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_may_be_a_column_or_a_table(name):
    quoted = '"' + name.replace('"', '""') + '"'
    catalog = (
        table(1, name, "id integer!", ("id",)),
        table(2, "other", "id integer!; x integer", ("id",)),
    )
    made = catalog[0]
    column = replace(made.columns[0], name=name, buffer_column=name)
    catalog = (replace(made, columns=(made.columns[0], column), used=("id", name)), catalog[1])
    for query in (
        f"SELECT a.id, a.{quoted} FROM public.{quoted} a WHERE a.{quoted} > 1",
        f"SELECT a.{quoted}, count(*) AS n, min(b.x) AS m FROM public.{quoted} a"
        f" JOIN public.other b ON b.id = a.id GROUP BY a.{quoted}",
        f"SELECT DISTINCT {quoted}.{quoted} FROM public.{quoted}",
    ):
        plan = compile_query(request(query, catalog))
        assert plan.incremental
        for statement in statements(plan):
            postgast.parse(statement)


def statements(plan: Plan) -> list[str]:
    programs = plan.to_json()["programs"]
    parts = [*programs["fill"], *programs["full"], programs["verify"]]
    return parts + [statement for program in programs["differential"].values() for statement in program]


def test_every_statement_parses_and_has_no_hole_left():
    for query in QUERIES:
        for statement in statements(compile_query(request(query))):
            postgast.parse(statement)
            assert "{" not in statement
