"""What rows of a change share is looked up once: ``ΔL ⋈ R = ΔL ⋈ (R ⋉ ΔL)``, and only where that spares something."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from psycopg import sql

from pg_trickle.algebra.join import Join, Partners
from pg_trickle.algebra.linear import Filter
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.render import select
from pg_trickle.render.partners import partners
from pg_trickle.rewrite.found_once import found_once
from pg_trickle.rewrite.specialise import specialised
from tests.algebra.plans import PLANS, R_S, R, S, any_plan, equal, predicate, projected
from tests.algebra.sources import SOURCES, contents, fill, prepare, zset
from tests.algebra.test_broken_laws import LOOKING, _exists

JOINS = ("join", "self join", "join of three", "join of filtered", "filter over a join", "aggregate over a join")
KEYED_R, KEYED_S = replace(R, keys=(("r_a",),)), replace(S, keys=(("s_a",),))


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


def arranged(plan: Plan) -> Plan:
    return found_once(_delta(plan))


def _delta(plan: Plan) -> Plan:
    return specialised(plan.delta(), lambda _: True)


def looked_up(plan: Plan) -> list[Partners]:
    return [node for node in distinct(plan) if isinstance(node, Partners)]


@pytest.mark.property
@pytest.mark.parametrize("plan", [PLANS[title] for title in JOINS], ids=JOINS)
@given(r=contents, s=contents)
def test_what_rows_of_a_change_share_may_be_looked_up_once(conn, plan, r, s):
    once = arranged(plan)
    assert looked_up(once)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, once) == zset(conn, plan.delta())


@pytest.mark.property
@given(plan=any_plan(), r=contents, s=contents)
def test_the_delta_stays_the_same_however_operators_are_composed(conn, plan, r, s):
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, arranged(plan)) == zset(conn, plan.delta())


@pytest.mark.parametrize(
    ("text", "by"),
    [("SELECT DISTINCT ", "SELECT "), (") AS k", " LIMIT 1) AS k")],
    ids=["once for each row of the change", "of one key alone"],
)
def test_partners_that_come_otherwise_are_noticed(conn, monkeypatch, text, by):
    def broken(plan, change, rows, add):
        return partners(plan, change, rows, lambda body: add(_Changed(body.as_string(None).replace(text, by, 1))))

    monkeypatch.setattr(select, "partners", broken)
    plan = PLANS["join"]
    assert _exists(conn, LOOKING, lambda _: zset(conn, arranged(plan)) != zset(conn, plan.delta()))


class _Changed(sql.Composable):
    def as_bytes(self, context=None):
        return str(self._obj).encode()


def test_rows_that_several_refer_to_are_looked_up_once():
    lines = replace(R, keys=(("r_b",),))
    assert looked_up(arranged(Join(lines, KEYED_S, (equal("r_a", "s_a"),))))


def test_an_updates_two_images_share_the_many_rows_that_they_find():
    terms = looked_up(arranged(Join(KEYED_R, S, (equal("r_a", "s_a"),))))
    assert [one.input for one in terms] == [S, KEYED_R] == [S, replace(R, keys=(("r_a",),))]


def test_a_key_that_finds_one_row_is_looked_up_as_it_comes():
    by_key = (equal("r_a", "s_a"),)
    assert not looked_up(arranged(Join(KEYED_R, KEYED_S, by_key)))
    kept = Filter(KEYED_R, (predicate(sql.SQL("{} > 0"), "r_b"),))
    assert not looked_up(arranged(Join(kept, KEYED_S, by_key)))
    some = projected(KEYED_R, ("r_a", "r_a"), ("r_b", "r_b"))
    assert not looked_up(arranged(Join(some, KEYED_S, by_key)))


def test_several_tables_of_which_a_key_finds_one_row_are_joined_as_they_are():
    two = Join(KEYED_S, replace(R, fields=R.fields[:1], keys=(("r_a",),)), (equal("s_b", "r_a"),))
    lines = projected(R, ("l_a", "r_a"), ("l_b", "r_b"))
    change = arranged(Join(lines, two, (equal("l_b", "s_a"),)))
    assert two not in [one.input for one in looked_up(change)]


def test_what_comes_and_goes_together_looks_several_tables_up_once():
    two = Join(KEYED_S, replace(R, fields=R.fields[:1], keys=(("r_a",),)), (equal("s_b", "r_a"),))
    lines = projected(replace(R, keys=(("r_b", "r_x"),)), ("l_a", "r_a"), ("r_b", "r_b"))
    change = arranged(Join(lines, two, (equal("r_b", "s_a"),)))
    assert two in [one.input for one in looked_up(change)]


def test_what_nothing_equates_is_not_looked_up():
    assert not looked_up(arranged(PLANS["cross join"]))
    assert not looked_up(arranged(PLANS["join with any condition"]))


def test_numbers_that_are_equal_but_not_identical_are_looked_up_as_they_come():
    assert not looked_up(arranged(PLANS["join over numbers of different scale"]))


def test_a_change_of_which_only_the_key_is_read_is_looked_up_as_it_comes():
    keys_alone = replace(R, fields=R.fields[:1])
    change = specialised(Join(keys_alone, S, (equal("r_a", "s_a"),)).delta(), lambda table: table == SOURCES["r"])
    assert not looked_up(found_once(change))


def test_parts_that_the_delta_shares_stay_shared():
    once = arranged(R_S)
    changes = {id(node) for node in distinct(once) if not hasattr(node, "input") and not hasattr(node, "left")}
    assert len(changes) == len([n for n in distinct(_delta(R_S)) if not hasattr(n, "input") and not hasattr(n, "left")])
