"""Every program of a plan is one that PostgreSQL takes, whichever sources it is for.

A program for the sources that have changed leaves out what begins with the changes of the others; few random writes
change just those, but each program can be prepared.
"""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given, settings

from tests.refresh.workload.cases import Case, cases
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.runner import NoQuery, Runner
from tests.refresh.workload.sessions import Sessions
from tests.refresh.workload.shrink import raise_small

pytestmark = [pytest.mark.property, pytest.mark.slow]
FEW = max(10, settings().max_examples // 8)


def test_every_program_can_be_prepared(database, major):
    sessions = Sessions(database)

    @afresh(FEW)
    @given(case=cases(moving=True, major=major))
    def each(case: Case) -> None:
        trouble = _trouble(sessions, case)
        if trouble is not None:
            raise_small(case, trouble, lambda other: _trouble(sessions, other))

    each()


def _trouble(sessions: Sessions, case: Case) -> Exception | None:
    runner = Runner(*sessions.pair(), case)
    try:
        runner.create()
        for (statement,) in runner.conn.execute(
            "SELECT s.text FROM pgtrickle.pgt_plans CROSS JOIN jsonb_each(plan #> '{programs,differential}') AS d"
            " CROSS JOIN jsonb_array_elements_text(d.value) AS s(text)"
        ).fetchall():
            runner.conn.execute(f"PREPARE p (pg_snapshot, xid8, jsonb, timestamptz) AS {statement}")
            runner.conn.execute("DEALLOCATE p")
    except (psycopg.Error, AssertionError, NoQuery) as exc:
        return exc
    finally:
        runner.remove()
    return None
