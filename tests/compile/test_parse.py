"""Which name means which column: traced from each output back to the table it comes from."""

from __future__ import annotations

import pytest

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.linear import Project
from pg_trickle.algebra.plan import Plan, inputs
from pg_trickle.algebra.source import Scan, Source
from pg_trickle.errors import InvalidDefinition, UnsupportedQuery
from tests.compile.requests import parsed, request


def origins(query: str) -> list[str]:
    """Where each output column comes from: ``table.column``, or the expression that makes it."""
    found = parsed(request(query, outputs="x text"))
    return [_origin(found.plan, column.name) for _, column in found.outputs]


def names(query: str) -> list[str]:
    return [name for name, _ in parsed(request(query, outputs="x text")).outputs]


def _origin(plan: Plan, name: str) -> str:
    if isinstance(plan, Scan):
        field = next(field for field in plan.fields if field.column.name == name)
        assert isinstance(plan.table, Source)
        return f"{plan.table.name}.{field.attribute}"
    if isinstance(plan, Project):
        value = next(item.value for item in plan.items if item.column.name == name)
        return _origin(plan.input, next(iter(value.columns))) if value.is_column else "expression"
    if isinstance(plan, Aggregate) and name not in plan.keys:
        return next(call.value.text for call in plan.calls if call.column.name == name)
    below = next(below for below in inputs(plan) if name in {column.name for column in below.columns})
    return _origin(below, name)


CASES = {
    "an alias": ("SELECT o.id FROM public.orders o", ["orders.id"]),
    "an unqualified column": ("SELECT amount FROM public.orders", ["orders.amount"]),
    "two tables": (
        "SELECT c.id, o.id AS id_1 FROM public.customers c JOIN public.orders o ON c.id = o.customer_id",
        ["customers.id", "orders.id"],
    ),
    "a table twice": ("SELECT a.id, b.amount FROM public.orders a, public.orders b", ["orders.id", "orders.amount"]),
    "a column merged by USING": (
        "SELECT customer_id, v.page FROM public.orders o JOIN public.visits v USING (customer_id)",
        ["orders.customer_id", "visits.page"],
    ),
    "either side of USING": (
        "SELECT v.customer_id FROM public.orders o JOIN public.visits v USING (customer_id)",
        ["visits.customer_id"],
    ),
    "USING on three tables": (
        "SELECT customer_id FROM (public.orders o JOIN public.visits v USING (customer_id))"
        " JOIN public.visits w USING (customer_id)",
        ["orders.customer_id"],
    ),
    "an alias over a join": (
        "SELECT j.page, j.id FROM (public.orders o JOIN public.visits v USING (customer_id)) j",
        ["visits.page", "orders.id"],
    ),
    "a derived table": ("SELECT q.n FROM (SELECT o.id AS n FROM public.orders o) q", ["orders.id"]),
    "column aliases of a derived table": (
        "SELECT q.b, q.a FROM (SELECT o.id, o.amount FROM public.orders o) q(a, b)",
        ["orders.amount", "orders.id"],
    ),
    "fewer aliases than columns": (
        "SELECT q.amount, q.a FROM (SELECT o.id, o.amount FROM public.orders o) q(a)",
        ["orders.amount", "orders.id"],
    ),
    "column aliases of a table": ("SELECT t.n FROM public.customers t(i, n)", ["customers.name"]),
    "the same alias inside and outside": (
        "SELECT a.id FROM (SELECT a.customer_id AS id FROM public.orders a) a",
        ["orders.customer_id"],
    ),
    "the same alias in two derived tables": (
        "SELECT x.k, y.k AS k_1 FROM (SELECT a.id AS k FROM public.orders a WHERE a.paid) x,"
        " (SELECT a.customer_id AS k FROM public.orders a WHERE NOT a.paid) y",
        ["orders.id", "orders.customer_id"],
    ),
    "a view's own names": ("SELECT b.customer, b.number FROM public.big_orders b", ["orders.customer_id", "orders.id"]),
    "aliases over a view's names": ("SELECT b.p FROM public.big_orders b(o, p)", ["orders.customer_id"]),
    "WITH": ("WITH w AS (SELECT o.id AS n FROM public.orders o) SELECT w.n FROM w", ["orders.id"]),
    "WITH and column aliases": (
        "WITH w(n, m) AS (SELECT o.id, o.amount FROM public.orders o) SELECT x.m FROM w x",
        ["orders.amount"],
    ),
    "aliases over WITH's aliases": (
        "WITH w(n, m) AS (SELECT o.id, o.amount FROM public.orders o) SELECT x.z FROM w x(y, z)",
        ["orders.amount"],
    ),
    "WITH reading an earlier one": (
        "WITH a AS (SELECT o.id AS k FROM public.orders o), b AS (SELECT a.k FROM a) SELECT b.k FROM b",
        ["orders.id"],
    ),
    "WITH used twice": (
        "WITH w AS (SELECT o.id AS k FROM public.orders o) SELECT x.k, y.k AS k_1 FROM w x JOIN w y ON x.k = y.k",
        ["orders.id", "orders.id"],
    ),
    "WITH named like a table": (
        "WITH customers AS (SELECT o.id AS name FROM public.orders o)"
        " SELECT a.name, b.name AS name_1 FROM customers a, public.customers b",
        ["orders.id", "customers.name"],
    ),
    "an inner WITH hides an outer one": (
        "WITH w AS (SELECT o.id AS k FROM public.orders o) SELECT q.k FROM"
        " (WITH w AS (SELECT v.page AS k FROM public.visits v) SELECT w.k FROM w) q",
        ["visits.page"],
    ),
    "an inner WITH is over outside": (
        "WITH w AS (SELECT o.id AS k FROM public.orders o) SELECT q.k, w.k AS k_1 FROM"
        " (WITH w AS (SELECT v.page AS k FROM public.visits v) SELECT w.k FROM w) q, w",
        ["visits.page", "orders.id"],
    ),
    "WITH in a view isn't seen outside": (
        "WITH o AS (SELECT v.page AS id FROM public.visits v) SELECT b.number, o.id FROM public.big_orders b, o",
        ["orders.id", "visits.page"],
    ),
    "a group's key": (
        "SELECT o.customer_id, count(*) AS n FROM public.orders o GROUP BY o.customer_id",
        ["orders.customer_id", "pg_catalog.\"count\"(*)"],
    ),
    "a key that the primary key implies": (
        "SELECT c.name, count(*) AS n FROM public.customers c GROUP BY c.id",
        ["customers.name", "pg_catalog.\"count\"(*)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), CASES.values(), ids=CASES)
def test_names_mean_what_postgresql_takes_them_for(query, expected):
    assert origins(query) == expected


def test_outputs_are_named_as_in_the_query():
    assert names("SELECT o.id, o.amount + 1 AS more, o.paid AS \"Weird name\" FROM public.orders o") == [
        "id", "more", "Weird name",
    ]  # fmt: skip


def test_a_union_is_named_by_its_first_branch():
    assert names("SELECT o.id FROM public.orders o UNION ALL SELECT c.id AS other FROM public.customers c") == ["id"]


def test_an_ambiguous_name_is_an_error():
    with pytest.raises(InvalidDefinition) as caught:
        origins("SELECT id FROM public.orders o, public.customers c")
    assert caught.value.sqlstate == "42702"


def test_what_is_hidden_by_an_alias_is_not_found():
    with pytest.raises(UnsupportedQuery):
        origins("SELECT o.id FROM (public.orders o JOIN public.visits v USING (customer_id)) j")


def test_a_system_column_is_refused():
    with pytest.raises(UnsupportedQuery, match="xmin"):
        origins("SELECT o.xmin FROM public.orders o")


def test_a_relation_without_facts_is_an_error():
    with pytest.raises(InvalidDefinition) as caught:
        origins("SELECT x.a FROM public.unknown x")
    assert caught.value.sqlstate == "42P01"


@pytest.mark.parametrize("text", ["", "SELECT 1; SELECT 2", "DELETE FROM public.orders", "VALUES", "SELECT FROM WHERE"])
def test_what_is_not_a_single_select_is_an_error(text):
    with pytest.raises(InvalidDefinition) as caught:
        parsed(request(text, outputs="x text"))
    assert caught.value.sqlstate == "42601"
