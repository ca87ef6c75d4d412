"""Random stream tables over random tables equal their queries after every refresh, whatever was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, assume, event, given, settings

from tests.refresh.workload.cases import Case, cases, script
from tests.refresh.workload.runner import NoQuery, Runner
from tests.refresh.workload.shrink import shrunk
from tests.refresh.workload.types import PREPARATION

Connection = psycopg.Connection[tuple[Any, ...]]
pytestmark = [pytest.mark.property, pytest.mark.slow]


@pytest.fixture
def sessions(database) -> tuple[Connection, Connection]:
    """Two sessions, in which nobody waits long for the other."""
    one, other = database.connect(), database.connect()
    for statement in PREPARATION:
        one.execute(statement)
    for session in (one, other):
        session.execute("SET lock_timeout = '200ms'")
    return one, other


# Hypothesis finds cases; what makes one small is ours, because it knows what a step is.
@settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(case=cases())
def test_stream_tables_equal_their_queries(sessions, case: Case):
    trouble = carried_out(sessions, case, event)
    if trouble is None:
        return
    assume(not isinstance(trouble, NoQuery))
    small = shrunk(case, lambda other: _kind(carried_out(sessions, other)) == _kind(trouble))
    final = carried_out(sessions, small)
    raise AssertionError(f"{final}\n\n{script(small)}\n") from final


def carried_out(
    sessions: tuple[Connection, Connection], case: Case, tell: Callable[[str], object] = len
) -> Exception | None:
    """What went wrong with a case, if anything did."""
    runner = Runner(*sessions, case)
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
