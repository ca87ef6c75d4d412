"""A change cut to what finds partners: ``ΔL ⋈ R′ − ΔL ⋈ ΔR = D ⋈ R′ − D ⋈ ΔR``, ``D = ΔL ⋉ (R′ + ΔR)``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given
from psycopg import sql

from pg_trickle.algebra.join import Join, Partners
from pg_trickle.algebra.linear import Filter, UnionAll
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.source import Source, State
from pg_trickle.rewrite import sifted as module
from pg_trickle.rewrite.known_before import known_before
from pg_trickle.rewrite.sifted import sifted
from pg_trickle.rewrite.specialise import specialised
from tests.algebra.plans import R, S, equal, predicate, projected
from tests.algebra.sources import SOURCES, contents, fill, prepare, zset

SOME_R = Filter(R, (predicate(sql.SQL("{} > 0"), "r_b"),))
ON = (equal("r_a", "s_a"),)
PLANS: dict[str, Plan] = {
    "on the right": Join(R, S, ON),
    "on the left": Join(S, R, ON),
    "filtered": Join(SOME_R, S, ON),
    "by two columns": Join(R, S, (*ON, equal("r_b", "s_b"))),
    "a condition more": Join(R, S, (*ON, predicate(sql.SQL("{} < {}"), "r_b", "s_b"))),
    "renamed": Join(projected(R, ("r_a", "r_a"), ("other", "r_b")), S, ON),
}


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


@pytest.fixture(autouse=True, scope="module")
def stored() -> Iterator[None]:
    """The second table is what is stored."""
    with patch.object(module, "_is_stored", lambda plan, _: plan is S):
        yield


def _cut(plan: Plan) -> Plan:
    assert len(_cuts(plan)) == 1
    return sifted(plan.delta(), {State("state_1_1")})


@pytest.mark.property
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@given(r=contents, s=contents)
def test_what_has_no_partner_is_in_no_term(conn, plan, r, s):
    cut = _cut(plan)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, cut) == zset(conn, plan.delta())
        assert zset(conn, known_before(cut)) == zset(conn, plan.delta())


@pytest.mark.property
@given(r=contents)
def test_nothing_is_left_of_it_where_the_other_side_stayed(conn, r):
    def is_changed(table: Source | State) -> bool:
        return table == SOURCES["r"]

    plan = PLANS["on the right"]
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r})
        assert zset(conn, specialised(_cut(plan), is_changed)) == zset(conn, specialised(plan.delta(), is_changed))


@pytest.mark.property
@pytest.mark.parametrize("is_shared", [True, False])
@given(r=contents, s=contents)
def test_other_changes_in_the_statement_stay_whole(conn, is_shared, r, s):
    change = R.delta()
    moved = projected(S.delta(), ("r_a", "s_a"), ("r_b", "s_b"), ("r_x", "s_x"))
    parts = (Partners(change, S, ON), change if is_shared else R.delta(), moved)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        expected: Counter[object] = Counter()
        for part in parts:
            expected.update(zset(conn, part))
        whole = UnionAll(UnionAll(parts[0], parts[1]), parts[2])
        assert zset(conn, whole) == {row: weight for row, weight in expected.items() if weight}


def test_what_is_not_told_by_columns_of_its_own_is_left():
    renamed = Join(projected(R, ("other", "r_a")), S, (equal("other", "s_a"),))
    joined = Join(PLANS["on the right"], projected(R, ("other", "r_b")), (equal("s_b", "other"),))
    assert not _cuts(renamed)
    assert len(_cuts(Join(joined, S, (equal("other", "s_a"),)))) == 1


def _cuts(plan: Plan) -> list[Partners]:
    made = sifted(plan.delta(), {State("state_1_1")})
    return [node for node in distinct(made) if isinstance(node, Partners)]
