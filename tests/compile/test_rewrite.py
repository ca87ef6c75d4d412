"""What the rewrites do to a query: joins in order, what all arms of an OR demand at its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter
from pg_trickle.algebra.mark import Mark
from pg_trickle.algebra.outer_join import FullJoin, LeftJoin
from pg_trickle.algebra.plan import Plan, distinct, inputs
from pg_trickle.algebra.source import Scan, Source
from pg_trickle.catalog.model import RelationFact
from pg_trickle.rewrite.passes import optimised
from tests.compile.requests import SHOP, parsed, request


def rewritten(query: str, catalog: tuple[RelationFact, ...] = SHOP) -> Plan:
    return optimised(parsed(request(query, catalog)).plan)


def order(plan: Plan) -> list[str]:
    """The tables in the order in which they are joined."""
    found = []
    for node in distinct(plan):
        if isinstance(node, Scan) and isinstance(node.table, Source):
            found.append(node.table.name)
    return found


def filters(plan: Plan) -> list[str]:
    """The conditions that are on one table alone, and on which."""
    return [
        f"{node.input.table.name}: {one.text}"
        for node in distinct(plan)
        if isinstance(node, Filter) and isinstance(node.input, Scan) and isinstance(node.input.table, Source)
        for one in node.predicates
    ]


FROM = "FROM public.customers c, public.items i, public.orders o"


def test_what_nothing_connects_yet_is_joined_when_something_does():
    plan = rewritten(f"SELECT i.line {FROM} WHERE o.customer_id = c.id AND i.order_id = o.id")
    assert order(plan) == ["customers", "orders", "items"]
    assert all(node.on for node in distinct(plan) if isinstance(node, Join))


def test_a_filtered_table_comes_first():
    plan = rewritten(f"SELECT i.line {FROM} WHERE o.customer_id = c.id AND i.order_id = o.id AND i.line = 3")
    assert order(plan) == ["items", "orders", "customers"]


def test_a_row_found_by_its_key_comes_before_rows_found_by_a_foreign_key():
    query = """
        SELECT v.page FROM public.orders o, public.visits v, public.customers c
         WHERE v.customer_id = o.customer_id AND c.id = o.customer_id
        """
    assert order(rewritten(query)) == ["orders", "customers", "visits"]


def test_what_nothing_connects_is_multiplied_in_the_end():
    plan = rewritten(
        "SELECT v.page FROM public.orders o, public.visits v, public.customers c WHERE c.id = o.customer_id"
    )
    assert order(plan) == ["orders", "customers", "visits"]


def shape(plan: Plan) -> str:
    """The tables as they are joined."""
    if isinstance(plan, Join):
        return f"({shape(plan.left)} {shape(plan.right)})"
    return plan.table.name if isinstance(plan, Scan) and isinstance(plan.table, Source) else shape(inputs(plan)[0])


MET = "EXISTS (SELECT FROM public.visits v WHERE v.customer_id = o.customer_id)"


@pytest.mark.parametrize(("condition", "is_early"), [("o.paid", True), ("i.line > 0", False), ("c.name = 'x'", False)])
def test_a_match_is_looked_for_before_partners_unless_these_are_filtered(condition: str, is_early: bool):
    query = f"SELECT i.line {FROM} WHERE o.customer_id = c.id AND i.order_id = o.id AND {MET} AND {condition}"
    marked = next(node.left for node in distinct(rewritten(query)) if isinstance(node, Mark))
    assert (order(marked) == ["orders"]) == is_early


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("c.name = 'x'", "(items (orders customers))"),
        ("c.name = 'x' AND i.line = 3", "(items (orders customers))"),
        ("o.paid AND i.line = 3", "((items orders) customers)"),
        ("(c.name = 'x' AND o.paid) OR (c.name = 'y' AND i.line = 2)", "(items (orders customers))"),
    ],
)
def test_what_is_looked_up_and_filtered_is_joined_to_what_looks_it_up(condition: str, expected: str):
    query = f"SELECT i.line {FROM} WHERE o.customer_id = c.id AND i.order_id = o.id AND ({condition})"
    assert shape(rewritten(query)) == expected


def test_rows_that_look_up_each_other_are_joined_once():
    query = """
        SELECT a.id FROM public.customers a, public.customers b, public.customers c
         WHERE a.id = b.id AND b.id = c.id AND a.name = 'x' AND b.name = 'y' AND c.name = 'z'
        """
    assert shape(rewritten(query)) == "((customers customers) customers)"


def test_columns_stay_in_their_places():
    joined = f"SELECT c.id, i.line, o.id {FROM} WHERE o.customer_id = c.id AND i.order_id = o.id"
    plan = rewritten(f"{joined} UNION ALL SELECT o.id, o.customer_id, o.id FROM public.orders o")
    assert all(len(node.columns) == 3 for node in inputs(plan))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(o.paid AND o.id = 1) OR (o.paid AND o.id = 2)", ["o.paid", "o.id = 1 OR o.id = 2"]),
        ("(o.paid AND o.id = 1) OR o.paid", ["o.paid"]),
        ("(o.id = 1 AND o.paid) OR (o.paid AND o.id = 1 AND o.amount > 0)", ["o.id = 1", "o.paid"]),
        ("o.paid OR o.id = 1", ["o.paid OR o.id = 1"]),
        ("NOT (o.paid OR o.id = 1)", ["NOT (o.paid OR o.id = 1)"]),
        ("o.id > 0 AND ((o.paid AND o.id = 1) OR o.paid)", ["o.id > 0", "o.paid"]),
    ],
)  # fmt: skip
def test_what_all_arms_demand_is_demanded_once(condition: str, expected: list[str]):
    found = filters(rewritten(f"SELECT o.id FROM public.orders o WHERE {condition}"))
    plain = [one.partition(": ")[2].replace("__1", "").replace('"', "") for one in found]
    assert plain == [one.replace("o.", "") for one in expected]


def test_a_join_condition_in_every_arm_joins():
    plan = rewritten(
        "SELECT i.line FROM public.items i, public.orders o"
        " WHERE (i.order_id = o.id AND o.paid AND i.line = 1) OR (i.order_id = o.id AND o.paid AND i.line = 2)"
    )
    (join,) = [node for node in distinct(plan) if isinstance(node, Join)]
    assert join.on[0].equates
    assert filters(plan) == ["items: line__1 = 1 OR line__1 = 2", 'orders: "paid__1"']


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(i.line = 1 AND o.amount = 2) OR (i.line = 2 AND o.amount = 1)",
         ["items: line__1 = 1 OR line__1 = 2", "orders: amount__1 = 2 OR amount__1 = 1"]),
        ("(i.line = 1 AND o.amount = 2 AND i.product > 3) OR i.line = 2",
         ["items: (line__1 = 1 AND product__1 > 3) OR line__1 = 2"]),
        ("i.line = 1 OR o.amount = 1", []),
        ("(i.line = 1 AND o.amount > i.line) OR (o.amount > 3 AND i.line > o.amount)", []),
        ("(i.line = 1 AND o.paid) OR i.line IN (SELECT c.id FROM public.customers c)", []),
        ("NOT ((i.line = 1 AND o.amount = 2) OR (i.line = 2 AND o.amount = 1))", []),
    ],
)  # fmt: skip
def test_what_all_arms_demand_of_one_table_is_asked_there(condition: str, expected: list[str]):
    query = f"SELECT i.line FROM public.items i, public.orders o WHERE i.order_id = o.id AND ({condition})"
    assert filters(rewritten(query)) == expected


@pytest.mark.parametrize(
    ("condition", "is_restricted"),
    [
        ("c.name = 'x' AND o.customer_id = c.id", True),
        # Nothing is filtered; or nothing else reads the customer's orders; or not by their customer.
        ("o.customer_id = c.id", False),
        ("c.name = 'x'", False),
        ("c.name = 'x' AND o.id = c.id", False),
    ],
)
def test_groups_are_restricted_to_those_that_are_asked_for(condition: str, is_restricted: bool):
    query = f"""
        SELECT o.id FROM public.orders o, public.customers c
         WHERE {condition} AND o.amount < (SELECT avg(p.amount) FROM public.orders p WHERE p.customer_id = c.id)
        """
    aggregates = [node for node in distinct(rewritten(query)) if isinstance(node, Aggregate)]
    assert [any(isinstance(part, Join) for part in distinct(one.input)) for one in aggregates] == [is_restricted]


@pytest.mark.parametrize(
    ("asked", "indexed", "is_restricted"),
    [
        ("o.customer_id IN (SELECT c.id FROM public.customers c WHERE c.name = 'x')", ("customer_id",), True),
        ("EXISTS (SELECT FROM public.customers c WHERE c.name = 'x' AND c.id = o.customer_id)", ("customer_id",), True),
        # No index leads to a customer's orders; no customer is left out; who has no match asks; others are asked for,
        # or what is of another type.
        ("o.customer_id IN (SELECT c.id FROM public.customers c WHERE c.name = 'x')", ("placed",), False),
        ("o.customer_id IN (SELECT c.id FROM public.customers c)", ("customer_id",), False),
        ("o.customer_id NOT IN (SELECT c.id FROM public.customers c WHERE c.name = 'x')", ("customer_id",), False),
        ("o.id IN (SELECT c.id FROM public.customers c WHERE c.name = 'x')", ("customer_id",), False),
        ("o.customer_id IN (SELECT c.limit_amount FROM public.customers c WHERE c.name = '')", ("customer_id",), False),
    ],
)  # fmt: skip
def test_groups_are_restricted_to_those_with_a_match(asked: str, indexed: tuple[str, ...], is_restricted: bool):
    query = f"""
        SELECT o.id FROM public.orders o
         WHERE {asked}
           AND o.amount < (SELECT avg(p.amount) FROM public.orders p WHERE p.customer_id = o.customer_id)
        """
    catalog = tuple(replace(one, indexed=indexed) if one.name == "orders" else one for one in SHOP)
    aggregates = [node for node in distinct(rewritten(query, catalog)) if isinstance(node, Aggregate)]
    assert [any(isinstance(part, Mark) for part in distinct(one.input)) for one in aggregates] == [is_restricted]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT o.id {} WHERE o.amount > (SELECT avg(p.amount) FROM public.orders p)", "Mark"),
        ("SELECT o.id {} WHERE (SELECT 2 * avg(p.amount) FROM public.orders p) < o.amount", "Mark"),
        ("SELECT o.id, a.m {}, (SELECT avg(amount) AS m FROM public.orders) a WHERE o.amount > a.m", "Join"),
        ("SELECT o.id {}, (SELECT avg(amount) AS m FROM public.orders) a", "Join"),
        ("SELECT o.id {}, (SELECT avg(amount) AS m FROM public.orders GROUP BY p.paid) a WHERE o.amount > a.m", "Join"),
    ],
)  # fmt: skip
def test_a_row_that_only_decides_is_a_mark(query: str, expected: str):
    plan = rewritten(query.format("FROM public.orders o"))
    assert [type(node).__name__ for node in distinct(plan) if isinstance(node, Join | Mark)] == [expected]


def joins(query: str) -> list[str]:
    """The kinds of join in what becomes of a query, outermost first."""
    kinds = (FullJoin, Join, LeftJoin)
    return [type(node).__name__ for node in distinct(rewritten(query)) if isinstance(node, kinds)]


OUTER = "SELECT c.id FROM public.customers c {} JOIN public.orders o ON o.customer_id = c.id WHERE {}"


@pytest.mark.parametrize(
    "condition",
    [
        "o.amount > 5",
        "5 <= o.amount",
        "o.amount + 1 <> c.id",
        "o.amount::bigint = 5",
        "-o.amount < c.id",
        "o.paid",
        "o.amount IS NOT NULL",
        "c.id > 0 AND o.amount * 2 > 7",
    ],
)
def test_a_left_join_whose_padded_rows_are_thrown_away_is_an_inner_one(condition: str):
    assert joins(OUTER.format("LEFT", condition)).count("LeftJoin") == 0


@pytest.mark.parametrize(
    "condition",
    [
        "o.amount IS NULL",
        "NOT o.amount IS NOT NULL",
        "coalesce(o.amount, 0) > 5",
        "CASE WHEN o.amount > 5 THEN false ELSE true END",
        "o.amount > 5 OR c.id > 0",
        "o.amount IS DISTINCT FROM 5",
        "(o.amount > 5) IS NOT TRUE",
        "abs(o.amount) > 5",
        "o.amount OPERATOR(public.>) 5",
        "nullif(o.amount, 5) IS NULL",
        "o.amount NOT IN (SELECT i.line FROM public.items i)",
        "c.id > 0",
    ],
)
def test_a_left_join_whose_padded_rows_may_stay_is_one_still(condition: str):
    assert joins(OUTER.format("LEFT", condition)).count("LeftJoin") == 1


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("o.amount > 5 AND c.name = 'x'", "Join"),
        ("o.amount > c.id", "Join"),
        ("o.amount > 5", "LeftJoin"),
        ("c.name = 'x'", "LeftJoin"),
        ("coalesce(o.amount, c.id) > 5", "FullJoin"),
    ],
)
def test_of_a_full_join_stays_what_pads_rows_that_stay(condition: str, expected: str):
    assert joins(OUTER.format("FULL", condition)) == [expected]


def test_a_scalar_subquery_compared_in_where_is_joined():
    query = "SELECT c.id FROM public.customers c WHERE c.id < ({} FROM public.orders o WHERE o.customer_id = c.id)"
    assert joins(query.format("SELECT 0.2 * avg(o.amount)")) == ["Join"]
    assert joins(query.format("SELECT count(*)")) == ["LeftJoin"]


def test_a_scalar_subquery_that_nobody_reads_is_left_out():
    inside = "SELECT o.id, o.amount, (SELECT i.line FROM public.items i WHERE i.order_id = o.id) AS line"
    unread = rewritten(f"SELECT s.id FROM ({inside} FROM public.orders o) s WHERE s.amount > 1")
    assert order(unread) == ["orders"]
    assert len(filters(unread)) == 1
    assert "items" in order(rewritten(f"SELECT s.id FROM ({inside} FROM public.orders o) s WHERE s.line > 1"))
