"""A script's own statements where its tables have stream tables, beside a twin where they have none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.regress.scripts import Statement
from tests.regress.trial import Trial

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA = "pgtrickle_beside"
MOST_ROWS = 2_000

# What writes, or may: the twins have to agree upon it.
_CHANGES = re.compile(
    r"^(insert|update|delete|merge|copy|truncate|with|execute|call|do|select|fetch|commit|end)\b", re.IGNORECASE
)
_COUNTS = re.compile(r"^(insert|update|delete|merge|copy)\b", re.IGNORECASE)
# What only reads, or concerns the session alone.
_IDLE = re.compile(
    r"^(begin|start|commit|end|rollback|abort|savepoint|release|set|reset|show|declare|fetch|move|close|prepare|deallocate"
    r"|explain|values|table|analyze)\b",
    re.IGNORECASE,
)
_UNDOES = re.compile(r"^(rollback|abort)\b", re.IGNORECASE)

_TABLES = """
    SELECT c.oid, c.oid::regclass::text, c.relname::text
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 AND NOT c.relispartition
       AND n.nspname NOT LIKE 'pgtrickle%' AND pg_table_is_visible(c.oid)
       AND to_regclass('pgtrickle_beside.s_' || c.oid || '_0') IS NULL
     ORDER BY c.oid
"""
# What can be grouped by, and joined.
_PLAIN = """
    SELECT a.attname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND t.typcategory IN ('N', 'S', 'D', 'B', 'E')
     ORDER BY a.attnum
"""
_MADE = "SELECT pgt_relid::regclass::text FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a statement ended: the error's SQLSTATE, or how many rows it says that it wrote."""

    sqlstate: str
    rows: int | None
    message: str = ""

    @property
    def told(self) -> tuple[str, int | None]:
        return self.sqlstate, self.rows


class Beside:
    """Carries out statements on both sides; ``kept`` counts the looks at stream tables that were right."""

    def __init__(self, conn: Connection, twin: Connection, mode: str) -> None:
        self._conn = conn
        self._twin = twin
        self._mode = mode
        self._tried = set[int]()
        conn.execute(f"CREATE SCHEMA {SCHEMA}")

    def run(self, script: Iterable[Statement]) -> Iterator[Trial]:
        """What became of each statement that changes something, or may."""
        for statement in script:
            if _CHANGES.match(statement.text):
                self._ours(partial(self._make, statement.text))
            elif not _IDLE.match(statement.text):
                self._ours(self._drop)
            elif _UNDOES.match(statement.text):
                self._tried.clear()
            yield from self._carried_out(statement)

    def _carried_out(self, statement: Statement) -> Iterator[Trial]:
        here, there = _outcome(self._conn, statement), _outcome(self._twin, statement)
        if not _CHANGES.match(statement.text):
            return
        if here.told != there.told:
            yield Trial("failed", statement.text, f"{here}\n{there} where there are no stream tables")
            self._meet_again(statement, here)
            return
        wrong = list[str]()
        if not self._ours(lambda: wrong.extend(self._wrong())):
            return
        yield Trial("wrong" if wrong else "kept", statement.text, "\n".join(wrong))
        if wrong:
            self._ours(self._drop)

    def _meet_again(self, statement: Statement, here: Outcome) -> None:
        """After a statement that failed on our side alone."""
        if here.sqlstate == "00000":
            return
        if self._conn.info.transaction_status is TransactionStatus.IDLE:
            self._ours(self._drop)
            _outcome(self._conn, statement)
        else:
            self._conn.execute("ROLLBACK")
            self._twin.execute("ROLLBACK")

    def _ours(self, act: Callable[[], None]) -> bool:
        """Do something of our own, as a superuser, amid the script's statements; whether it could be done."""
        if self._conn.info.transaction_status not in {TransactionStatus.IDLE, TransactionStatus.INTRANS}:
            return False
        with suppress(psycopg.Error), self._conn.transaction(), _as_superuser(self._conn):
            act()
            return True
        return False

    def _make(self, text: str) -> None:
        """Stream tables on the tables that a statement names."""
        words = set(re.findall(r"\w+", text.lower()))
        for oid, table, name in self._conn.execute(_TABLES).fetchall():
            if oid in self._tried or name.lower() not in words:
                continue
            self._tried.add(oid)
            for place, query in enumerate(self._queries(oid, table)):
                with suppress(psycopg.Error), self._conn.transaction():
                    pg_trickle.create_stream_table(
                        self._conn, f"{SCHEMA}.s_{oid}_{place}", query, schedule=None, refresh_mode=self._mode
                    )

    def _queries(self, oid: int, table: str) -> list[str]:
        rows = self._conn.execute(f"SELECT FROM {table} LIMIT {MOST_ROWS}".encode()).rowcount
        if rows == MOST_ROWS:
            return []
        plain = [sql.Identifier(name) for (name,) in self._conn.execute(_PLAIN, (oid,))]
        parts = {"t": sql.SQL(table), "first": plain[0], "last": plain[-1]} if plain else {"t": sql.SQL(table)}
        texts = ("SELECT * FROM {t}",) + (
            (
                "SELECT {first} AS g, count(*) AS n, count({last}) AS m, max({last}) AS x FROM {t} GROUP BY {first}",
                "SELECT a.{first} AS g, b.{last} AS h FROM {t} AS a LEFT JOIN {t} AS b ON a.{first} = b.{first}",
            )
            if plain
            else ()
        )
        return [sql.SQL(text).format(**parts).as_string(self._conn) for text in texts]

    def _drop(self) -> None:
        for (name,) in self._conn.execute(_MADE).fetchall():
            with suppress(psycopg.Error), self._conn.transaction():
                pg_trickle.drop_stream_table(self._conn, name, cascade=True)
        self._tried.clear()

    def _wrong(self) -> Iterator[str]:
        for (name,) in self._conn.execute(_MADE).fetchall():
            try:
                with self._conn.transaction():
                    if self._mode != "IMMEDIATE":
                        self._conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
                    found = differences(self._conn, name)[:3]
            except psycopg.Error as error:
                yield f"{name}: {error}"
            else:
                yield from (f"{name}: {difference}" for difference in found)


def _outcome(conn: Connection, statement: Statement) -> Outcome:
    try:
        if statement.rows is None:
            cursor = conn.execute(statement.text.encode(), prepare=False)
        else:
            cursor = conn.cursor()
            with cursor.copy(statement.text.encode()) as copy:
                copy.write(statement.rows.encode())
    except psycopg.Error as error:
        return Outcome(error.sqlstate or "", None, str(error))
    return Outcome("00000", cursor.rowcount if _COUNTS.match(statement.text) else None)


@contextmanager
def _as_superuser(conn: Connection) -> Iterator[None]:
    found = conn.execute("SELECT session_user::text, current_setting('role')").fetchone()
    assert found
    conn.execute("RESET SESSION AUTHORIZATION; RESET ROLE")
    yield
    for setting, value in zip(("SESSION AUTHORIZATION", "ROLE"), found, strict=True):
        conn.execute(sql.SQL(f"SET {setting} {{}}").format(sql.Identifier(value)))
