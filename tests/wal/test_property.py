"""Random stream tables equal their queries after every refresh also where changes come from the WAL."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import psycopg
import pytest
from hypothesis import given, settings

import pg_trickle
from tests.refresh.test_property import judged
from tests.refresh.workload.cases import Case, cases
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.runner import Runner
from tests.refresh.workload.sessions import Sessions
from tests.refresh.workload.values import Query

pytestmark = [pytest.mark.property, pytest.mark.slow]

# What the worker does, not after every commit.
DRAIN = "SELECT pgtrickle_changes.worker_drain_wal(NULL)"


class FromTheWal(Runner):
    """Captures from the WAL what can be, and does the worker's part now and then."""

    modes: ClassVar[Counter[str]] = Counter()

    def create_stream_table(self, name: str, query: Query) -> None:
        for table in self.case.tables:
            self.conn.execute(f"ALTER TABLE {table.name} REPLICA IDENTITY FULL")
        try:
            with self.conn.transaction():
                pg_trickle.create_stream_table(self.conn, name, query.sql, schedule=None, cdc_mode="wal")
        except psycopg.errors.FeatureNotSupported as exc:
            if "WAL" not in str(exc):
                raise
            super().create_stream_table(name, query)

    def check(self, name: str) -> None:
        super().check(name)
        row = self.conn.execute(
            """SELECT concat_ws(' ', h.refresh_mode, h.initiated_by, (
                          SELECT string_agg(DISTINCT s.cdc_mode, '+') FROM pgtrickle.list_sources(%s) AS s))
                 FROM pgtrickle.pgt_refresh_history AS h WHERE h.pgt_name = %s ORDER BY h.refresh_id DESC LIMIT 1""",
            (name, name),
        ).fetchone()
        self.modes.update(row or ())
        if self.modes.total() % 3 == 0:
            self.conn.execute(DRAIN)


@pytest.mark.usefixtures("db")
def test_stream_tables_equal_their_queries(database, major):
    sessions = Sessions(database)

    # Each takes longer than with triggers, and how rows get into the buffers is all that differs.
    @afresh(max(10, settings().max_examples // 8))
    @given(case=cases(moving=True, major=major))
    def each(case: Case) -> None:
        judged(sessions, case, FromTheWal)

    FromTheWal.modes.clear()
    each()
    print(FromTheWal.modes.most_common())
    assert FromTheWal.modes["DIFFERENTIAL MANUAL wal"] > 0
