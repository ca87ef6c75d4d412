"""What holds between refreshes: however changes are divided among them, and when what was done is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings

import pg_trickle
from tests.refresh.workload.cases import Case, Commit, cases
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.runner import NoQuery, Runner
from tests.refresh.workload.sessions import Sessions
from tests.refresh.workload.shrink import raise_small
from tests.refresh.workload.tables import Table
from tests.upkeep import last_refresh

Connection = psycopg.Connection[tuple[Any, ...]]
pytestmark = [pytest.mark.property, pytest.mark.slow]
# Of the cases that test_property.py carries out step by step, a share for each way of dividing them.
FEW = max(5, settings().max_examples // 10)


@pytest.fixture
def sessions(database) -> Sessions:
    # However programs run: here each stands from its first refresh on.
    return Sessions(database, "SET pg_trickle.keep_plans = 'always'")


class Batches(Runner):
    """A case's statements by themselves, divided into batches in some way."""

    @property
    def statements(self) -> list[str]:
        return [one for step in self.case.steps if isinstance(step, Commit) for one in step.statements]

    def refresh_all(self) -> int:
        """The number of rows written to stream tables whose contents are certain to the letter."""
        rows = 0
        for name, query in self.case.streams:
            pg_trickle.refresh_stream_table(self.conn, name)
            self.check(name)
            rows += 0 if any(one.loose for one in query.columns) else last_refresh(self.conn, name)[1]
        return rows

    def in_small_steps(self) -> None:
        """A refresh after every statement; the runner compares with the query, which knows of no steps."""
        for statement in self.statements:
            self._write(self.conn, statement)
            self.refresh_all()

    def at_once(self) -> None:
        """A single refresh for all of it."""
        for statement in self.statements:
            self._write(self.conn, statement)
        self.refresh_all()

    def there_and_back(self) -> None:
        """All tables get back their old rows before the refresh, which then has nothing to write."""
        self._save()
        for statement in self.statements:
            self._write(self.conn, statement)
        self._restore()
        assert self.refresh_all() == 0, "rows were written although nothing has changed in the end"

    def there_and_back_with_a_refresh_between(self) -> None:
        """After two refreshes everything is as it was."""
        self._save()
        before = self._contents()
        for statement in self.statements:
            self._write(self.conn, statement)
        self.refresh_all()
        self._restore()
        self.refresh_all()
        assert self._contents() == before, "the stream table differs although the tables don't"

    def _save(self) -> None:
        for table in self.case.tables:
            self.conn.execute(f"CREATE TEMPORARY TABLE saved_{table.name} AS SELECT {_listed(table)} FROM {table.name}")

    def _restore(self) -> None:
        with self.conn.transaction():
            for table in self.case.tables:
                self.conn.execute(f"DELETE FROM {table.name}")
                self.conn.execute(
                    f"INSERT INTO {table.name} ({_listed(table)}) SELECT {_listed(table)} FROM saved_{table.name}"
                )

    def _contents(self) -> dict[str, list[tuple[Any, ...]]]:
        certain = {name: query for name, query in self.case.streams if not any(one.loose for one in query.columns)}
        return {name: self.conn.execute(f"SELECT s::text FROM {name} AS s ORDER BY 1").fetchall() for name in certain}

    def remove(self) -> None:
        super().remove()
        for table in self.case.tables:
            self.conn.execute(f"DROP TABLE IF EXISTS saved_{table.name}")


def _listed(table: Table) -> str:
    return ", ".join(one.sql for one in table.columns)


HOW = {
    "a refresh after every statement": Batches.in_small_steps,
    "one refresh for everything": Batches.at_once,
    "there and back": Batches.there_and_back,
    "there and back with a refresh between": Batches.there_and_back_with_a_refresh_between,
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@afresh(FEW)
@given(case=cases())
def test_what_holds_between_refreshes(sessions, how: Callable[[Batches], None], case: Case):
    trouble = _trouble(sessions, case, how)
    if trouble is not None:
        raise_small(case, trouble, lambda other: _trouble(sessions, other, how))


def _trouble(sessions: Sessions, case: Case, how: Callable[[Batches], None]) -> Exception | None:
    runner = Batches(*sessions.pair(), case)
    try:
        runner.create()
        how(runner)
    except (psycopg.Error, AssertionError, NoQuery) as exc:
        return exc
    finally:
        runner.remove()
    return None
