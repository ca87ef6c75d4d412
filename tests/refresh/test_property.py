"""Random stream tables over random tables equal their queries after every refresh, whatever was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
from hypothesis import event, given, settings

from tests.refresh.workload.cases import Case, Refresh, cases, pairs
from tests.refresh.workload.queries import OPERATORS
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.runner import HARMLESS, NoQuery, Runner
from tests.refresh.workload.sessions import Sessions
from tests.refresh.workload.shrink import raise_small
from tests.refresh.workload.types import CITEXT, FOLDED, FOLDING, INT, PREPARATION, TEXT

Chain = tuple[str, ...]
pytestmark = [pytest.mark.property, pytest.mark.slow]


# Values that are equal by their collation alone are a server's own matter, and so have a share of the examples.
FEW = max(10, settings().max_examples // 8)
MOST = max(20, settings().max_examples * 4 // 5)
COLLATED = (INT, TEXT, FOLDED, FOLDED, CITEXT)


def test_stream_tables_equal_their_queries(database, major):
    sessions, visited = Sessions(database), Counter[Chain]()

    @afresh(MOST)
    @given(case=cases(moving=True, major=major))
    def each(case: Case) -> None:
        visited.update(judged(sessions, case))

    each()
    total = len(OPERATORS) ** 2
    print(f"{len(visited)} pairs of operators, one on another, were visited ({total} can be):", visited.most_common())
    assert len(visited) > min(MOST, total) / 2


@pytest.mark.versions(icu=True)
def test_stream_tables_equal_their_queries_where_a_collation_makes_texts_equal(database, major):
    sessions = Sessions(database, types=(*PREPARATION, *FOLDING))

    @afresh(FEW)
    @given(case=cases(COLLATED, moving=True, major=major))
    def each(case: Case) -> None:
        judged(sessions, case)

    each()


class AlteringRunner(Runner):
    """What alterations lead to: of IMMEDIATE stream tables writers may be stopped; ON CONFLICT may lose its key."""

    harmless = (
        *HARMLESS,
        psycopg.errors.SerializationFailure,
        psycopg.errors.ObjectNotInPrerequisiteState,
        psycopg.errors.InvalidColumnReference,
    )

    def _refresh(self, step: Refresh) -> None:
        try:
            super()._refresh(step)
        except psycopg.errors.FeatureNotSupported:
            # A source has children again, which IMMEDIATE can't follow.
            self.conn.execute("ROLLBACK")
            for name in self.queries:
                self._switch(name, "AUTO")
        except self.harmless:
            self.conn.execute("ROLLBACK")


def test_stream_tables_equal_their_queries_where_tables_are_altered_and_modes_switched(database, major):
    sessions = Sessions(database)

    @afresh(FEW)
    @given(case=cases(moving=True, major=major, altering=True))
    def each(case: Case) -> None:
        judged(sessions, case, AlteringRunner)

    each()


def judged(sessions: Sessions, case: Case, kind: type[Runner] = Runner) -> set[Chain]:
    """The operators that stood on one another in a case that went well; a small one that didn't, if it didn't."""
    trouble = carried_out(sessions, case, event, kind)
    if isinstance(trouble, NoQuery):
        event(f"left alone: {trouble}"[:60])
    if trouble is not None:
        raise_small(case, trouble, lambda other: carried_out(sessions, other, kind=kind), _kind)
    return pairs(case)


def carried_out(
    sessions: Sessions, case: Case, tell: Callable[[str], object] = len, kind: type[Runner] = Runner
) -> Exception | None:
    """What went wrong with a case, if anything did."""
    runner = kind(*sessions.pair(), case)
    try:
        for construct in runner.create():
            tell(f"refused: {construct}")
        runner.run()
    except (psycopg.Error, AssertionError, NoQuery) as exc:
        return exc
    finally:
        runner.remove()
    return None


def _kind(trouble: Exception | None) -> tuple[object, ...]:
    """What two failures have in common when they are the same one."""
    if isinstance(trouble, psycopg.Error):
        return (trouble.sqlstate, trouble.diag.message_primary)
    return (type(trouble), str(trouble).split(" ", 4)[1:4])
