"""The sessions in which random cases are carried out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from tests.conftest import Database
from tests.refresh.workload.types import PREPARATION

Connection = psycopg.Connection[tuple[Any, ...]]
Pair = tuple[Connection, Connection]
CASES = 10


class Sessions:
    """Two sessions of a database with the types of random tables, in which nobody waits long for the other.

    They are new ones every few cases: a session keeps the plans of functions that are gone, and looks through all of
    them at each DDL statement.  After forty cases it takes nearly twice as long over one, and hundreds never end.
    """

    def __init__(self, database: Database, *settings: str, types: Iterable[str] = PREPARATION) -> None:
        self._database = database
        self._settings = ("SET lock_timeout = '200ms'", *settings)
        self._cases = 0
        self._pair = self._connected()
        for statement in types:
            self._pair[0].execute(statement)

    def pair(self) -> Pair:
        """The sessions for a case."""
        self._cases += 1
        if self._cases % CASES == 0:
            for one in self._pair:
                one.close()
            self._pair = self._connected()
        return self._pair

    def _connected(self) -> Pair:
        made = self._database.connect(), self._database.connect()
        for one in made:
            for statement in self._settings:
                one.execute(statement)
        return made
