"""The law of all operators: old + Δ − new is empty."""

from __future__ import annotations

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Consolidate, Filter, Negate, UnionAll
from pg_trickle.algebra.mark import Flipped, Mark
from pg_trickle.algebra.outer_join import FullJoin
from pg_trickle.algebra.plan import Plan, distinct, inputs, names
from pg_trickle.algebra.source import Changes, Empty, Source
from pg_trickle.algebra.states import old
from pg_trickle.algebra.window import Window
from pg_trickle.render import turned
from pg_trickle.rewrite.passes import optimised
from pg_trickle.rewrite.specialise import specialised
from pg_trickle.uniqueness import is_net, keys
from tests.algebra.outline import outline
from tests.algebra.plans import ASKED, ASKED_BY_MATCH, PLANS, T, any_plan, equal, projected
from tests.algebra.sources import SOURCES, Contents, contents, fill, net_change, prepare, scan, weighted, zset

UNCHANGED = Contents([(1, 1, "1.0", "1"), (None, 2, None, "[]")], [], [], [], [], [0])


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


def surplus(plan: Plan) -> Plan:
    """What old and change together have more, or less, than new."""
    note(outline(plan))
    return UnionAll(UnionAll(old(plan), plan.delta()), Negate(plan))


@pytest.mark.property
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@given(r=contents, s=contents)
def test_old_plus_delta_is_new(conn, plan, r, s):
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, surplus(plan)) == {}


MATCHED = [title for title, plan in PLANS.items() if any(isinstance(part, Flipped) for part in distinct(plan.delta()))]


@pytest.mark.property
@pytest.mark.parametrize("title", MATCHED)
@given(r=contents, s=contents)
def test_old_plus_delta_is_new_when_more_than_a_few_may_have_turned(conn, title, monkeypatch, r, s):
    monkeypatch.setattr(turned, "FEW", sql.Literal(0))
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, surplus(PLANS[title])) == {}


@pytest.mark.property
@given(plan=any_plan(), r=contents, s=contents)
def test_old_plus_delta_is_new_however_operators_are_composed(conn, plan, r, s):
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, surplus(plan)) == {}


@pytest.mark.property
@pytest.mark.parametrize(("plan", "asks"), [(ASKED, Join), (ASKED_BY_MATCH, Mark)], ids=["by a key", "by a match"])
@given(r=contents, s=contents)
def test_groups_that_nobody_asks_for_may_be_left_out(conn, plan, asks, r, s):
    fewer = optimised(plan)
    groups = [node for node in distinct(fewer) if isinstance(node, Aggregate)]
    assert any(isinstance(below, asks) for one in groups for below in distinct(one.input))
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, fewer) == zset(conn, plan)
        assert zset(conn, surplus(fewer)) == {}


@pytest.mark.property
@given(plan=any_plan(), r=contents, s=contents)
def test_rewriting_changes_neither_the_query_nor_its_delta(conn, plan, r, s):
    better = optimised(plan)
    assert names(better) == names(plan)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, better) == zset(conn, plan)
        assert zset(conn, better.delta()) == zset(conn, plan.delta())


@pytest.mark.property
@pytest.mark.parametrize(
    "title",
    [
        "left join with a match",
        "full join with a match on either side",
        "full join with all of one side",
        "join with a row that only decides",
        "join of a row that only decides",
        "join with a row that only decides by equality",
    ],
)
@given(r=contents, s=contents)
def test_a_join_made_one_of_another_kind_is_the_same(conn, title, r, s):
    plan = PLANS[title]
    better = optimised(plan)
    assert outline(better) != outline(plan)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, better) == zset(conn, plan)
        assert zset(conn, better.delta()) == zset(conn, plan.delta())


@pytest.mark.property
@given(r=contents)
def test_a_filter_over_a_window_is_part_of_it(conn, r):
    plan = projected(PLANS["filter over a window"], ("one", "r_b"), ("two", "n"))
    better = optimised(plan)
    (window,) = (node for node in distinct(better) if isinstance(node, Window))
    assert window.kept
    assert "place" not in names(window)
    assert not any(isinstance(node, Filter) for node in distinct(better))
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r})
        assert zset(conn, better) == zset(conn, plan)
        assert zset(conn, surplus(better)) == {}


def test_a_window_that_is_read_twice_keeps_its_rows():
    some = projected(PLANS["filter over a window"], ("one", "place"))
    whole = projected(PLANS["window"], ("one", "place"))
    both = UnionAll(some, whole)
    assert not any(node.kept for node in distinct(optimised(both)) if isinstance(node, Window))


@pytest.mark.property
@pytest.mark.parametrize("on", [(equal("r_a", "t_b"),), ()], ids=["by a key", "of everything"])
@given(r=contents)
def test_a_full_join_is_the_sum_of_its_parts(conn, on, r):
    join = FullJoin(PLANS["scan"], T, on)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r})
        assert zset(conn, join.split()) == zset(conn, join)


@pytest.mark.property
@given(plan=any_plan(), r=contents)
def test_a_delta_specialised_to_what_changed_is_the_same_delta(conn, plan, r):
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": UNCHANGED})
        special = specialised(plan.delta(), lambda table: table == SOURCES["r"])
        assert not any(part.table == SOURCES["s"] for part in _changes(special))
        expected = zset(conn, plan.delta())
        assert (expected if isinstance(special, Empty) else zset(conn, special)) == expected
        assert not (isinstance(special, Empty) and expected)


@pytest.mark.property
@given(plan=any_plan(), r=contents, s=contents)
def test_rows_told_apart_by_a_key_really_are(conn, plan, r, s):
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        rows = weighted(conn, Consolidate(plan))
        places = {one.name: place for place, one in enumerate(plan.columns)}
        for key in keys(plan):
            shown = [tuple(row[places[name]] for name in sorted(key)) for row in rows for _ in range(row[-1])]
            assert len(shown) == len(set(shown)), f"{sorted(key)} is no key"


@pytest.mark.property
@given(plan=any_plan(2), r=contents, s=contents)
def test_a_delta_taken_for_net_has_no_row_twice(conn, plan, r, s):
    change = plan.delta()
    if not is_net(change):
        return
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        rows = weighted(conn, change)
        assert len(rows) == len({row[:-1] for row in rows})
        assert all(row[-1] for row in rows)


@given(r=contents)
def test_changes_are_those_that_the_frontier_does_not_show(conn, r):
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r})
        assert zset(conn, scan("r", "r", "abxj").delta()) == net_change(r)


@given(plan=any_plan(), data=st.data())
def test_a_delta_never_asks_for_the_delta_of_a_delta(plan, data):
    assert names(plan.delta()) == names(plan)


def _changes(plan: Plan) -> list[Changes]:
    own = [plan] if isinstance(plan, Changes) and isinstance(plan.table, Source) else []
    return own + [one for below in inputs(plan) for one in _changes(below)]
