"""No operator is without its law: whoever adds one to the closed union has to add plans of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from pg_trickle.algebra.operators import Operator
from pg_trickle.algebra.plan import Plan, distinct
from pg_trickle.algebra.recompute import Recompute
from pg_trickle.algebra.source import Opaque, Unwatched
from pg_trickle.algebra.states import old
from pg_trickle.rewrite.passes import optimised
from tests.algebra.plans import PLANS
from tests.algebra.test_found_once import JOINS, arranged
from tests.algebra.test_known_before import PLANS as KEYED
from tests.algebra.test_known_before import arranged as told
from tests.algebra.test_recursion_law import PLANS as RECURSIONS

# What they give is known by a text alone, and what it gave before by a stage: tests/refresh compares those.
WITHOUT_A_LAW = {Recompute, Unwatched, Opaque}


def _tried() -> Iterator[Plan]:
    """All plans of which some law is tested, with the changes and old states that it is about."""
    for plan in PLANS.values():
        yield from (plan, plan.delta(), old(plan), optimised(plan), optimised(plan.delta()))
    yield from (arranged(PLANS[title]) for title in JOINS)
    yield from map(told, KEYED.values())
    for recursion in RECURSIONS.values():
        yield from (recursion, recursion.base, recursion.step)


def test_every_operator_is_in_a_plan_whose_law_is_tested():
    tried = {type(part) for plan in _tried() for part in distinct(plan)}
    assert set(get_args(Operator)) - tried == WITHOUT_A_LAW


@pytest.mark.parametrize("plan", [Recompute(Unwatched(), "SELECT 1", (), ""), Opaque("SELECT 1", ())])
def test_what_has_no_law_has_no_delta(plan):
    with pytest.raises(AssertionError):
        plan.delta()
