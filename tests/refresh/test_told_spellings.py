"""Random queries that tell equal values apart: what they show of a group reads as a row does that is there."""

from __future__ import annotations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.immediate.test_property import ImmediateRunner
from tests.refresh.test_property import judged
from tests.refresh.workload.cases import Case, cases
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.runner import Runner
from tests.refresh.workload.sessions import Sessions
from tests.refresh.workload.spelling import unsettled
from tests.refresh.workload.types import INT, TELLING

pytestmark = [pytest.mark.property, pytest.mark.slow]
FEW = max(10, settings().max_examples // 10)
TYPES = (INT, *TELLING)
# What makes one of equal rows, and what may read it.
MERGING = st.sampled_from(["grouped", "grouped", "distinct", "union", "intersect", "except", "grouping sets"])
PATHS = st.tuples(st.sampled_from(["plain", "grouped"]), MERGING) | st.tuples(MERGING)


class Told(Runner):
    """Compares while all that is equal reads the same."""

    def check(self, name: str) -> None:
        query = unsettled(self.case.tables)
        if query is None or self.conn.execute(query).fetchone() is None:
            event("compared")
            super().check(name)


class ToldAtOnce(Told, ImmediateRunner):
    """The same after every statement."""


@pytest.fixture
def sessions(database) -> Sessions:
    return Sessions(database)


@pytest.mark.parametrize("kind", [Told, ToldAtOnce], ids=["refreshed", "at once"])
@afresh(FEW)
@given(case=cases(TYPES, along=PATHS))
def test_what_tells_equal_values_apart_tells_of_rows_that_are_there(sessions: Sessions, kind: type[Runner], case: Case):
    judged(sessions, case, kind)
