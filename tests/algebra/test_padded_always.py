"""Below counters a left join is a sum, ``γ(L ⟕ R) = γ(L ⋈ R + pad(L))``, only where a padded row counts for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate, Call, Rule
from pg_trickle.algebra.linear import Item, Negate, Project, UnionAll
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.states import old
from pg_trickle.rewrite import padded_always as rule
from pg_trickle.rewrite.padded_always import padded_always
from pg_trickle.scalar import INT4, INT8, NUMERIC, Column, Scalar, Type, column, composed
from tests.algebra.plans import TOTALS, R, S, T, equal, named, predicate
from tests.algebra.sources import contents, fill, prepare, zset
from tests.algebra.test_broken_laws import LOOKING, _exists

LEFT = LeftJoin(R, S, (equal("r_a", "s_a"),))
POSITIVE = predicate(sql.SQL("{} > 0"), "s_b", strict=True)
PRODUCT = replace(composed(sql.SQL("r_b * s_b"), frozenset(("r_b", "s_b")), INT4), strict=frozenset(("r_b", "s_b")))


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


def call(name: str, how: Rule, function: str, argument: str | None, condition: str | None = None) -> Call:
    """An aggregate as the parser makes it: its rule, and the whole of it as an expression."""
    value = sql.SQL("{f}({x})").format(f=sql.SQL(function), x=sql.Identifier(argument) if argument else sql.SQL("*"))
    if condition:
        value = sql.SQL("{v} FILTER (WHERE {c})").format(v=value, c=sql.Identifier(condition))
    of = INT8 if how is Rule.COUNT else NUMERIC
    read = frozenset(name for name in (argument, condition) if name)
    return Call(Column(name, of.by_value), how, composed(value, read, of), argument, condition)


def computed(plan: Plan, **values: Scalar) -> Project:
    """The columns of a plan, and more."""
    shown = tuple(Item(one, column(one)) for one in plan.columns)
    return Project(plan, (*shown, *(Item(Column(name, value.type), value) for name, value in values.items())))


COUNTED = call("c", Rule.COUNT, "count", "s_b")
SUMMED = call("t", Rule.SUM, "sum", "s_x")
ROWS = call("n", Rule.COUNT, "count", None)
SUMS = {
    "counted and summed up": Aggregate(LEFT, ("r_a",), (COUNTED, SUMMED)),
    "of all rows": Aggregate(LEFT, (), (COUNTED, SUMMED)),
    "on any condition": Aggregate(
        replace(LEFT, on=(predicate(sql.SQL("{} < {}"), "r_a", "s_b"),)), ("r_b", "r_x"), (COUNTED,)
    ),
    "with its own table": Aggregate(
        LeftJoin(R, T, (equal("r_a", "t_b"),)), ("r_b",), (call("c", Rule.COUNT, "count", "t_a"),)
    ),
    "of what is computed": Aggregate(computed(LEFT, p=PRODUCT), ("r_b",), (call("p_t", Rule.SUM, "sum", "p"),)),
    "of what is computed of that": Aggregate(
        computed(computed(LEFT, p=PRODUCT), q=replace(PRODUCT, text="p + r_b", columns=frozenset(("p", "r_b")))),
        ("r_b",),
        (call("p_t", Rule.SUM, "sum", "p"),),
    ),
    "by what is computed of the left side": Aggregate(
        computed(LEFT, k=composed(sql.SQL("coalesce(r_a, r_b)"), frozenset(("r_a", "r_b")), INT4)), ("k",), (COUNTED,)
    ),
    "where a condition on the right side holds": Aggregate(
        computed(LEFT, f=POSITIVE),
        ("r_a",),
        (call("n", Rule.COUNT, "count", None, "f"), call("t", Rule.SUM, "sum", "r_x", "f")),
    ),
    "of groups": Aggregate(
        LeftJoin(TOTALS, S, (equal("r_a", "s_a"),)), ("n",), (call("c", Rule.COUNT, "count", "s_a"),)
    ),
    "over a sum": Aggregate(
        Aggregate(LEFT, ("r_a", "r_b"), (COUNTED,)), ("c",), (call("n", Rule.COUNT, "count", None),)
    ),
}
STAY = {
    "rows counted": Aggregate(LEFT, ("r_a",), (COUNTED, ROWS)),
    "a column of the left side counted": Aggregate(LEFT, ("r_a",), (call("c", Rule.COUNT, "count", "r_b"),)),
    "by a column of the right side": Aggregate(LEFT, ("s_a",), (COUNTED,)),
    "of what a NULL passes": Aggregate(
        computed(LEFT, p=composed(sql.SQL("coalesce(s_b, 1)"), frozenset(("s_b",)), INT4)),
        ("r_a",),
        (call("t", Rule.SUM, "sum", "p"),),
    ),
    "where a condition holds that NULL passes": Aggregate(
        computed(LEFT, f=predicate(sql.SQL("({} > 0) IS NOT TRUE"), "s_b")),
        ("r_a",),
        (call("n", Rule.COUNT, "count", None, "f"),),
    ),
    "where a condition on the left side holds": Aggregate(
        computed(LEFT, f=predicate(sql.SQL("{} > 0"), "r_b", strict=True)),
        ("r_a",),
        (call("n", Rule.COUNT, "count", None, "f"),),
    ),
}


def are_padded(plan: Plan) -> bool:
    return not any(isinstance(node, LeftJoin) for node in distinct(plan))


@pytest.mark.property
@pytest.mark.parametrize("plan", SUMS.values(), ids=SUMS)
@given(r=contents, s=contents)
def test_padding_every_row_changes_neither_the_aggregate_nor_its_delta(conn, plan, r, s):
    better = padded_always(plan)
    assert are_padded(better)
    assert better.columns == plan.columns
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, better) == zset(conn, plan)
        assert zset(conn, UnionAll(UnionAll(old(better), better.delta()), Negate(better))) == {}


@pytest.mark.parametrize("plan", STAY.values(), ids=STAY)
def test_where_a_padded_row_counts_the_left_join_stays(plan):
    assert padded_always(plan) == plan


@pytest.mark.parametrize("how", [Rule.MIN, Rule.MAX, Rule.BIT_AND, Rule.BIT_OR, Rule.RECOMPUTE])
def test_what_may_be_read_again_is_found_in_the_left_join(how):
    plan = Aggregate(LEFT, ("r_a",), (COUNTED, call("more", how, "min", "s_b")))
    assert padded_always(plan) == plan


def test_nothing_is_gained_where_nothing_is_counted():
    plan = Aggregate(LEFT, ("r_a",), ())
    assert padded_always(plan) == plan


@pytest.mark.parametrize("of", [replace(INT4, name=None), Type("record", INT4.identity)], ids=["unknown", "a row"])
def test_a_null_needs_a_type_that_has_a_name(of):
    right = replace(S, fields=(*S.fields[:1], replace(S.fields[1], column=Column("s_b", of))))
    plan = Aggregate(replace(LEFT, right=right), ("r_a",), (COUNTED,))
    assert padded_always(plan) == plan


def test_what_was_never_null_may_be_padded():
    sure = replace(S, fields=tuple(replace(one, column=replace(one.column, not_null=True)) for one in S.fields))
    better = padded_always(Aggregate(replace(LEFT, right=sure), ("r_a",), (COUNTED,)))
    (padded,) = (node for node in distinct(better) if isinstance(node, UnionAll))
    assert not named(padded, "s_b").not_null


@pytest.mark.property
@pytest.mark.parametrize("title", ["rows counted", "a column of the left side counted", "of what a NULL passes"])
def test_padding_rows_that_count_is_noticed(conn, monkeypatch, title):
    monkeypatch.setattr(rule._Sides, "ignores", lambda self, call: True)
    plan = STAY[title]
    assert _exists(conn, LOOKING, lambda _: zset(conn, padded_always(plan)) != zset(conn, plan))


@pytest.mark.property
def test_padding_the_rows_of_the_other_side_is_noticed(conn, monkeypatch):
    def other(plan: LeftJoin, _: frozenset[str]) -> Plan:
        pairs = zip(plan.left.columns, plan.right.columns, strict=True)
        return Project(plan.right, tuple(Item(one, column(there)) for one, there in pairs))

    monkeypatch.setattr(rule, "_padded", other)
    plan = Aggregate(LEFT, ("r_a",), (COUNTED,))
    assert _exists(conn, LOOKING, lambda _: zset(conn, padded_always(plan)) != zset(conn, plan))
