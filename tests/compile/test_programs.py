"""For which sets of changed sources there is a program of its own."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Source
from pg_trickle.compile import compile as compile_query
from pg_trickle.render import onesided
from pg_trickle.rewrite.specialise import specialised
from tests.compile.corpus import cases
from tests.compile.requests import parsed, request

QUERY = """
    SELECT i.line, c.name FROM public.items i, public.orders o, public.customers c
     WHERE i.order_id = o.id AND o.customer_id = c.id
    """


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"items": 1000, "orders": 500, "customers": 5}, {"items", "orders"}),
        ({"items": 1000, "orders": 500, "customers": 101}, None),
        ({"items": 1000}, None),
        ({}, None),
    ],
)
def test_changes_of_all_but_the_smallest_tables_have_one(rows: dict[str, int], expected: set[str] | None):
    asked = request(QUERY)
    relations = tuple(replace(one, rows=rows.get(one.name, 0)) for one in asked.relations)
    oids = {one.name: one.oid for one in relations}
    programs = compile_query(replace(asked, relations=relations)).differential
    several = [name for name in programs if "," in name]
    assert several == ([",".join(str(oid) for oid in sorted(oids[one] for one in expected))] if expected else [])
    assert "*" in programs
    if expected:
        assert f"changes_{oids['customers']}" not in " ".join(programs[several[0]])


def program(query: str) -> str:
    asked = request(query)
    (statement,) = compile_query(
        replace(asked, relations=tuple(replace(one, rows=1000) for one in asked.relations))
    ).differential["*"]
    return statement


# In a statement other parts read what others write than in a refresh.
NESTED = """
    SELECT c.id, (SELECT max(r.n) FROM (SELECT (SELECT q.n FROM (SELECT b.id + b.amount AS n) q) AS n
        FROM (SELECT o.id, o.amount FROM public.orders o WHERE o.customer_id = c.id) b) r) AS most
      FROM public.customers c
    """


@pytest.mark.parametrize("query", [NESTED, *(case.query for case in cases())])
def test_every_delta_table_that_a_program_uses_is_made(query: str) -> None:
    plan = compile_query(request(query)).to_json()
    used = re.findall(r'pgtrickle_changes\\"\.\\"(delta_\d+_\d+)', json.dumps(plan["programs"]))
    assert set(used) <= {one["name"] for one in plan["deltas"]}


def test_what_changes_share_is_looked_up_once_in_its_order() -> None:
    keys = re.findall(r'SELECT DISTINCT ("[a-z_0-9]+") FROM .*? AS d ORDER BY ("[a-z_0-9]+")\) AS k', program(QUERY))
    assert keys == [(one, one) for one in ('"order_id__1"', '"id__1"', '"id__2"')]


def test_changes_come_in_the_order_in_which_matches_are_looked_for() -> None:
    statement = program(
        "SELECT line FROM public.items i WHERE EXISTS (SELECT FROM public.orders o WHERE o.id = i.order_id)"
    )
    order = dict(re.findall(r'"changes_(\d)".*?HAVING sum\("__pgt_w"\) <> 0(.*?)\),\n', statement))
    assert order["3"] == ' ORDER BY "order_id__1"'


@pytest.mark.parametrize("key", ["v.page", "upper(v.page)"])
def test_groups_whose_keys_may_be_null_are_read_again_by_hash_or_by_index(key):
    """``a = b OR both are NULL`` alone can be looked up in an index, where there is one, and never hashed."""
    query = f"SELECT {key} AS k, array_agg(v.seconds ORDER BY v.seconds) AS a FROM public.visits v GROUP BY {key}"
    ((statement,),) = compile_query(request(query)).differential.values()
    by_null = re.findall(r'"j"\."k1" IS NULL AND "[xr]"\."\w+" IS NULL\)\)(.{0,40})', statement)
    assert len(by_null) == 2
    assert all(rest.startswith(" AND hash_record_extended(") for rest in by_null)


MATCHED = "SELECT c.name FROM public.customers c WHERE {} (SELECT FROM public.orders o WHERE {})"


@pytest.mark.parametrize(
    ("condition", "each_by_all"),
    [
        ("o.id + 1 = c.id * 2", False),
        ("o.amount + 1 = c.id AND o.id < c.id", False),
        ("o.id = c.id", False),
        ("o.id + c.id = 3", True),
        ("o.id + 1 < c.id", True),
    ],
)
def test_rows_are_judged_by_all_of_a_change_where_no_equality_leads_to_them(condition: str, each_by_all: bool):
    for exists in ("EXISTS", "NOT EXISTS"):
        program = " ".join(compile_query(request(MATCHED.format(exists, condition))).differential["*"])
        assert ("LATERAL (SELECT sum(" in program) == each_by_all


def test_whether_there_is_any_match_is_asked_once_where_nothing_ties_it_to_a_row():
    program = " ".join(compile_query(request(MATCHED.format("NOT EXISTS", "c.id > 5 AND o.id < 3"))).differential["*"])
    assert "THEN ((id__1 > 5)) IS TRUE" in program
    assert "AS r WHERE (id__1 > 5)" not in program


def test_whether_rows_only_come_is_asked_once_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of each way that leads there, it took two million steps with eighteen left joins, minutes with forty."""
    asked: list[int] = []
    answer = onesided._come_with

    def noted(plan: Plan) -> tuple[Plan, ...] | None:
        asked.append(id(plan))
        return answer(plan)

    monkeypatch.setattr(onesided, "_come_with", noted)
    joins = " ".join(f"LEFT JOIN public.customers c{n} ON c{n}.id = o.customer_id + {n}" for n in range(8))
    made = request(f"SELECT o.id FROM public.orders o {joins}")
    (orders,) = [one.oid for one in made.relations if one.name == "orders"]
    delta = specialised(parsed(made).plan.delta(), lambda table: isinstance(table, Source) and table.oid == orders)
    assert onesided.comes(delta)
    assert len(asked) == len(set(asked)) > 8
