"""Rows that changed themselves aren't looked up where R has a key: ``(ΔL ▷ ΔR) ⋈ R′ − ΔL ⋈ ΔR⁻``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from pg_trickle.algebra.join import Gone, Join, Untouched
from pg_trickle.algebra.linear import Filter
from pg_trickle.algebra.mark import Flipped, Mark, anti_join, mark, semi_join
from pg_trickle.algebra.outer_join import LeftJoin
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.rewrite import known_before as module
from pg_trickle.rewrite.found_once import found_once
from pg_trickle.rewrite.known_before import known_before
from pg_trickle.rewrite.specialise import specialised
from tests.algebra.plans import R, S, T, equal, predicate
from tests.algebra.sources import SOURCES, Contents, Row, contents, fill, keys, prepare, rows, zset
from tests.algebra.test_broken_laws import LOOKING, _exists

KEYED_R, KEYED_S, KEYED_T = (replace(one, keys=((one.columns[0].name,),)) for one in (R, S, T))
SOME_S = Filter(KEYED_S, (predicate(sql.SQL("{} > 0"), "s_b"),))
BY_KEY = (equal("r_a", "s_a"),)
BY_OTHER = (equal("r_b", "s_a"),)
LATER = (*BY_OTHER, predicate(sql.SQL("{} < {}"), "r_a", "s_b"))
MET = mark("met")

PLANS: dict[str, Plan] = {
    "key on the right": Join(R, KEYED_S, BY_OTHER),
    "key on the left": Join(KEYED_S, R, BY_OTHER),
    "keys on both sides": Join(KEYED_R, KEYED_S, BY_KEY),
    "filtered": Join(R, SOME_S, BY_OTHER),
    "a condition more": Join(R, KEYED_S, LATER),
    "itself": Join(R, KEYED_T, (equal("r_b", "t_a"),)),
    "three": Join(Join(R, SOME_S, BY_OTHER), KEYED_T, (equal("s_b", "t_a"),)),
    "left join": LeftJoin(R, KEYED_S, BY_OTHER),
    "left join of what has the key": LeftJoin(KEYED_S, R, BY_OTHER),
    "semi-join": semi_join(KEYED_S, R, BY_OTHER, MET),
    "semi-join of filtered": semi_join(SOME_S, R, BY_OTHER, MET),
    "semi-join with a condition more": semi_join(KEYED_S, R, LATER, MET),
    "anti-join": anti_join(KEYED_S, R, BY_OTHER, MET),
    "mark": Mark(KEYED_S, R, BY_OTHER, MET),
}

_entry = st.tuples(keys, rows.map(lambda found: found[:2]))


def _keyed(entries: list[tuple[int | None, list[Row]]], told: Contents) -> Contents:
    """Contents in which no two rows agree in the first column, neither before nor after."""
    by_key = {key: [(key, row[1], row[2], row[3]) for row in found] for key, found in entries}
    pairs = [(found[0], found[-1]) for found in by_key.values() if len(found) == 2]
    alone = [found[0] for found in by_key.values() if len(found) == 1]
    come, stay, go = (alone[first::3] for first in range(3))
    return replace(told, stay=stay, go=go + [old for old, _ in pairs], come=come + [new for _, new in pairs])


keyed_contents = st.builds(_keyed, st.lists(_entry, max_size=6), contents)


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


def arranged(plan: Plan) -> Plan:
    return found_once(specialised(known_before(plan.delta()), lambda _: True))


def told(plan: Plan) -> list[Untouched]:
    return [node for node in distinct(plan) if isinstance(node, Untouched)]


@pytest.mark.property
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@given(r=keyed_contents, s=keyed_contents)
def test_the_change_is_the_same(conn, plan, r, s):
    less = arranged(plan)
    assert told(less)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, less) == zset(conn, plan.delta())


BROKEN: dict[str, tuple[str, Callable[..., Plan]]] = {
    "looked up as well": ("Untouched", lambda change, *_: change),
    "what came is taken for what there was": ("Gone", lambda change: change),
    "nothing was there": ("Gone", lambda change: Filter(change, (predicate(sql.SQL("FALSE")),))),
}


@pytest.mark.parametrize("title", ["key on the right", "key on the left", "filtered", "three", "semi-join"])
@pytest.mark.parametrize(("part", "wrong"), BROKEN.values(), ids=BROKEN)
def test_a_part_that_is_wrong_is_noticed(conn, monkeypatch, title, part, wrong):
    monkeypatch.setattr(module, part, wrong)
    plan = PLANS[title]
    less = arranged(plan)
    assert _exists(conn, LOOKING, lambda _: zset(conn, less) != zset(conn, plan.delta()), keyed_contents)


def test_what_the_filter_leaves_out_is_not_looked_up_either():
    (one,) = told(arranged(PLANS["filtered"]))
    assert one.change == KEYED_S.delta()


def test_without_a_key_all_is_looked_up():
    assert not told(arranged(Join(R, S, BY_OTHER)))
    assert not told(arranged(Join(R, replace(S, keys=(("s_a", "s_b"),)), BY_OTHER)))
    assert not told(arranged(Join(R, KEYED_S, (equal("r_a", "s_b"),))))
    numbers = replace(S, keys=(("s_x",),))
    assert not told(arranged(Join(R, numbers, (equal("r_x", "s_x"),))))


@pytest.mark.parametrize("name", SOURCES)
def test_where_one_side_has_changed_nothing_is_different(name):
    delta = PLANS["filtered"].delta()

    def alone(plan: Plan) -> Plan:
        return specialised(plan, lambda table: table == SOURCES[name])

    assert alone(known_before(delta)) == alone(delta)


def test_parts_that_the_delta_shares_stay_shared():
    less = known_before(PLANS["three"].delta())
    assert len([node for node in distinct(less) if isinstance(node, Gone)]) == 2
    assert len({id(node) for node in distinct(less) if node == R.delta()}) == 1
    flipped = known_before(PLANS["semi-join"].delta())
    assert len([node for node in distinct(flipped) if isinstance(node, Flipped)]) == 2
