"""What has no rule is refused, by name and with a reason; and nothing that the parser read is dropped in silence."""

from __future__ import annotations

from dataclasses import replace

import postgast
import pytest
from google.protobuf.descriptor import FieldDescriptor
from postgast.pg_query_pb2 import JoinExpr, RangeSubselect, RangeVar, SelectStmt

from pg_trickle.compile import compile as compile_query
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse import from_clause, select, set_operations
from pg_trickle.parse.tree import only
from tests.compile.requests import SHOP, request, table

ORDERS = "public.orders o"
# What stays refused in DIFFERENTIAL mode.
UNDECIDED = (
    "LIMIT", "OFFSET", "FOR UPDATE", "TABLESAMPLE", "volatile", "session value",
    "current_setting()",
)  # fmt: skip
REFUSED = {
    f"SELECT o.id FROM {ORDERS} LIMIT 3": "LIMIT",
    f"SELECT o.id FROM {ORDERS} OFFSET 3": "OFFSET",
    f"SELECT q.id FROM (SELECT o.id FROM {ORDERS} LIMIT 3) q": "LIMIT",
    f"WITH w AS (SELECT o.id FROM {ORDERS} LIMIT 3) SELECT w.id FROM w": "LIMIT",
    f"SELECT o.id FROM {ORDERS} FOR UPDATE": "FOR UPDATE",
    f"SELECT o.id FROM {ORDERS} WHERE EXISTS (SELECT 1 FROM public.items i LIMIT (0 + 0))": "LIMIT",
    f"SELECT o.id FROM {ORDERS} WHERE o.id IN (SELECT i.order_id FROM public.items i LIMIT 1)": "LIMIT",
    f"SELECT o.id FROM {ORDERS} WHERE EXISTS (SELECT 1 FROM public.items i OFFSET (1 + 1))": "OFFSET",
    f"SELECT o.paid, (SELECT sum(o.amount) FROM public.items i) AS s FROM {ORDERS}"
    " GROUP BY o.paid": "aggregate of a query around",
    f"SELECT o.paid, (SELECT max(i.line) FROM public.items i WHERE i.line = sum(o.amount)) AS s FROM {ORDERS}"
    " GROUP BY o.paid": "aggregate of a query around",
    f"SELECT o.paid, (SELECT sum(g.g) FROM generate_series(1, count(o.id)) g(g)) AS s FROM {ORDERS}"
    " GROUP BY o.paid": "aggregate of a query around",
    f"SELECT o.id, sum(o.amount) OVER (ORDER BY o.id ROWS BETWEEN (SELECT count(*) FROM public.items i) PRECEDING"
    f" AND CURRENT ROW) AS s FROM {ORDERS}": "window frame with a subquery",
    f"SELECT o.paid, percentile_disc((SELECT max(i.line) FROM public.items i)) WITHIN GROUP (ORDER BY o.amount) AS p"
    f" FROM {ORDERS} GROUP BY o.paid": "ordered-set aggregate with a subquery",
    f"SELECT o.id + 1 AS n, (SELECT max(i.line) FROM public.items i WHERE i.order_id = o.id + 1) AS m FROM {ORDERS}"
    " GROUP BY o.id + 1": "subquery about a grouping expression",
    "SELECT l.tag, (SELECT count(*) FROM public.visits v WHERE v.page > l.doc::text) AS n"
    " FROM public.labels l": "correlation by a type without equality",
    f"SELECT o.id, g.g FROM {ORDERS}, LATERAL (SELECT now() AS g) g": "time or session value",
    f"SELECT o.id, v.g FROM {ORDERS}, (VALUES (now())) v(g)": "time or session value",
    f"SELECT o.id, g.g FROM {ORDERS}, LATERAL (SELECT now() - o.placed AS g) g": "time or session value",
    f"SELECT o.id, g.g FROM {ORDERS}, LATERAL (SELECT x.g FROM (VALUES (o.id), (1)) x(g) LIMIT 1) g": "LIMIT without",
    f"SELECT o.id FROM {ORDERS} ORDER BY (generate_series(1, o.id))": "set-returning ORDER BY",
    f"SELECT o.id FROM {ORDERS} TABLESAMPLE system (10)": "TABLESAMPLE",
    "WITH RECURSIVE w AS (SELECT 1.0 AS n UNION SELECT w.n + 1 FROM w) SELECT w.n FROM w": "WITH RECURSIVE",
    f"SELECT o.* FROM (SELECT o AS whole FROM {ORDERS}) o": "whole-row reference",
    f"SELECT o.id, random() AS r FROM {ORDERS}": "volatile function random()",
    f"SELECT o.id, now() AS at FROM {ORDERS}": "time outside a condition",
    f"SELECT o.id FROM {ORDERS} GROUP BY o.id HAVING array_agg(now() - o.placed) IS NULL": "time",
    f"SELECT o.id, CURRENT_USER AS u FROM {ORDERS}": "session value",
    f"SELECT o.id FROM {ORDERS} WHERE current_setting('x') = 'y'": "current_setting()",
}


@pytest.mark.parametrize(("query", "construct"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_has_no_rule_is_refused_by_name(query, construct):
    """Recomputed on its own, with a note; or refused, where nothing tells when."""
    plan = compile_query(request(query))
    if plan.refusal is None:
        assert not construct.startswith(UNDECIDED), f"accepted: {query}"
        assert any(line["rule"].startswith("recomputed and diffed") for line in plan.explain["tree"])
        assert any(note.startswith(construct) for note in plan.explain["notes"])
        return
    assert construct.startswith(UNDECIDED)
    assert not plan.incremental
    assert plan.refusal.construct.startswith(construct)
    assert plan.refusal.reason
    assert plan.refusal.hint
    # What stands where it is said to be.
    assert plan.refusal.position is not None
    assert plan.refusal.near
    assert plan.refusal.near in " ".join(query.split())
    assert plan.differential == {}


@pytest.mark.parametrize("limit", ["OFFSET 0", "LIMIT ALL", "LIMIT NULL OFFSET 0"])
def test_a_limit_that_leaves_nothing_out_asks_for_no_order(limit):
    for query in (
        f"SELECT o.id FROM {ORDERS} {limit}",
        f"SELECT q.id FROM (SELECT o.id FROM {ORDERS} {limit}) q",
        f"SELECT o.id FROM {ORDERS} CROSS JOIN LATERAL (SELECT x.n FROM (VALUES (o.id), (1)) x(n) {limit}) l",
        f"SELECT q.id FROM (SELECT o.id, CURRENT_DATE FROM {ORDERS} {limit}) q",
    ):
        assert compile_query(request(query)).refusal is None


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT 1 AS n UNION SELECT o.id FROM w JOIN {ORDERS} ON o.id > w.n LIMIT 7",
        f"(SELECT o.id AS n FROM {ORDERS} LIMIT 1) UNION SELECT w.n FROM w",
        "SELECT o.id AS n FROM public.orders o TABLESAMPLE system (10) UNION SELECT w.n FROM w",
        "SELECT 1 AS n UNION SELECT c.relnatts FROM w, pg_class c",
        "SELECT o.ctid AS n FROM public.orders o UNION SELECT w.n FROM w",
    ],
)
def test_what_no_rows_decide_is_not_even_recomputed_when_they_change(query):
    plan = compile_query(request(f"WITH RECURSIVE w AS ({query}) SELECT w.n FROM w", outputs="n integer"))
    assert plan.refusal is not None
    assert not plan.incremental


def test_only_the_part_without_a_rule_is_recomputed():
    recursion = "SELECT 1 AS id UNION ALL SELECT DISTINCT o.id FROM w JOIN public.orders o ON o.customer_id = w.id"
    counted = "SELECT c.name, count(*) AS n FROM w JOIN public.customers c USING (id) GROUP BY c.name"
    plan = compile_query(request(f"WITH RECURSIVE w AS ({recursion}) {counted}"))
    assert [line["operator"] for line in plan.explain["tree"]][:2] == ["Aggregate", "Call"]
    (state, *_) = plan.to_json()["states"]
    assert "WITH RECURSIVE" in state["query"]
    # What concerns customers alone doesn't run the recursion.
    assert not any("RECURSIVE" in statement for statement in plan.differential["1"])
    assert any("RECURSIVE" in statement for statement in plan.differential["2"])


@pytest.mark.parametrize("kind", ["system", "other"])
def test_a_relation_whose_changes_are_not_captured_is_refused(kind):
    made = table(90, "odd", "id integer!", ("id",), kind=kind)
    plan = compile_query(request("SELECT x.id FROM public.odd x", (*SHOP, made), "id integer"))
    assert plan.refusal is not None
    assert "odd" in plan.refusal.message


@pytest.mark.parametrize("kind", ["partitioned", "inherited"])
def test_rows_of_a_relation_without_those_below_it_are_recomputed(kind):
    made = table(90, "odd", "id integer!", ("id",), kind=kind)
    assert compile_query(request("SELECT x.id FROM public.odd x", (*SHOP, made), "id integer")).incremental
    plan = compile_query(request("SELECT x.id FROM ONLY public.odd x", (*SHOP, made), "id integer"))
    assert plan.explain["notes"][0].startswith("ONLY")


def test_an_opaque_relation_gives_its_own_reason():
    hidden = replace(table(90, "hidden", "id integer!"), opaque="row security applies to the owner")
    plan = compile_query(request("SELECT x.id FROM public.hidden x", (*SHOP, hidden), "id integer"))
    assert plan.refusal is not None
    assert plan.refusal.reason == "row security applies to the owner"
    assert plan.sources == {}


# Clauses are refused by a list of what is consumed, so that one nobody thought of is refused as well.
CONSUMED = {
    SelectStmt: select._SELECT | select._VALUES | set_operations.SET_OPERATION,
    RangeVar: from_clause._RANGE_VAR,
    RangeSubselect: from_clause._SUBSELECT,
    JoinExpr: from_clause._JOIN,
}
FIELDS = [
    (message, field)
    for message, consumed in CONSUMED.items()
    for field in message.DESCRIPTOR.fields
    if field.name not in consumed
]


@pytest.mark.parametrize(("message", "field"), FIELDS, ids=[f"{m.DESCRIPTOR.name}.{f.name}" for m, f in FIELDS])
def test_a_field_that_nobody_reads_is_refused(message, field):
    made = message()
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE if field.is_repeated:
            getattr(made, field.name).add()
        case FieldDescriptor.TYPE_MESSAGE:
            getattr(made, field.name).SetInParent()
        case FieldDescriptor.TYPE_STRING:
            setattr(made, field.name, "x")
        case FieldDescriptor.TYPE_BOOL:
            setattr(made, field.name, True)
        case _:
            setattr(made, field.name, 1)
    with pytest.raises(UnsupportedQuery):
        only(made, CONSUMED[message], "clause")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT string_agg(v.page, ',' ORDER BY v.seconds DESC) AS p FROM public.visits v",
        "SELECT count(DISTINCT v.page), array_agg(v.page) AS n FROM public.visits v",
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY v.seconds) AS p FROM public.visits v",
        "SELECT sum(v.seconds) FILTER (WHERE v.page = 'a') AS s FROM public.visits v",
        "SELECT sum(DISTINCT v.seconds::double precision) FILTER (WHERE v.page = 'a') AS s FROM public.visits v",
    ],
)
def test_what_an_aggregate_says_is_kept(query):
    """Every clause of the call is still in the SQL that computes it."""
    plan = compile_query(request(query))
    assert plan.incremental
    text = " ".join(plan.fill)
    clauses = {"ORDER BY": "ORDER BY", "DISTINCT": "DISTINCT", "WITHIN GROUP": "WITHIN GROUP", "FILTER": "FILTER"}
    for clause in clauses:
        assert (clause in query) <= (clause in text)


def test_parentheses_survive():
    plan = compile_query(request("SELECT o.id * (1 - o.customer_id) AS x FROM public.orders o"))
    again = postgast.parse(f"SELECT {plan.explain['tree'][0]['detail']}")
    (item,) = again.stmts[0].stmt.select_stmt.target_list
    assert item.res_target.val.a_expr.rexpr.WhichOneof("node") == "a_expr"
