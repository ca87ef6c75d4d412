"""Random changes of any tables: rows go and come back, come twice, and get values of other rows, or none."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[tuple[Any, ...]]

KEPT = "pgtrickle_gone"
"""The schema of what was taken away, to be put back."""

_COLUMNS = """
    SELECT a.attname FROM pg_attribute AS a
     WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum
"""
# One on which ON CONFLICT may go.
_KEY = """
    SELECT ARRAY(SELECT a.attname FROM unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
                   JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                  WHERE k.place <= i.indnkeyatts ORDER BY k.place)
      FROM pg_index AS i
     WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indisvalid AND i.indimmediate
       AND i.indpred IS NULL AND i.indexprs IS NULL
     ORDER BY i.indexrelid LIMIT 1
"""
# Where it isn't the stream table's doing that a statement can't be carried out.
_HARMLESS = (
    psycopg.errors.IntegrityError,
    psycopg.errors.DataError,
    psycopg.errors.ProgrammingError,
    psycopg.errors.NotSupportedError,
    psycopg.errors.TriggeredDataChangeViolation,
    psycopg.errors.ObjectNotInPrerequisiteState,
)
_OURS = "pgtrickle_changes."

_SOME = "(SELECT ctid FROM {t} ORDER BY random() LIMIT {n})"
_ANOTHERS = "(SELECT {one} FROM {t} ORDER BY random() LIMIT 1)"
_TAKE = f"DELETE FROM {{t}} WHERE ctid IN {_SOME} RETURNING {{c}}"
_KEEP = "INSERT INTO {gone} SELECT {c} FROM d"
_PUT = "INSERT INTO {t} ({c}) OVERRIDING SYSTEM VALUE"
_BOTH = (
    "(SELECT {c} FROM {t} ORDER BY random() LIMIT {n}) UNION ALL (SELECT {c} FROM {gone} ORDER BY random() LIMIT {n})"
)
_OTHER = (
    "UPDATE {other} SET {other_one} = (SELECT {other_one} FROM {other} ORDER BY random() LIMIT 1)"
    " WHERE ctid IN (SELECT ctid FROM {other} ORDER BY random() LIMIT {n})"
)
# What clashes with a row that has come meanwhile stays away.
_RETURN = f"WITH d AS (DELETE FROM {{gone}} RETURNING *) {_PUT} SELECT {{c}} FROM d ON CONFLICT DO NOTHING"

_COMMON = (
    f"WITH d AS ({_TAKE}) {_KEEP}",
    _RETURN,
    f"{_PUT} SELECT {{c}} FROM {{gone}} ORDER BY random() LIMIT 1",
    f"{_PUT} SELECT {{c}} FROM {{t}} ORDER BY random() LIMIT {{n}}",
    f"UPDATE {{t}} SET {{one}} = {_ANOTHERS} WHERE ctid IN {_SOME}",
    f"UPDATE {{t}} SET {{one}} = NULL WHERE ctid IN {_SOME}",
)
_RARE = (
    # Nothing comes of them.
    f"UPDATE {{t}} SET {{one}} = {{one}} WHERE ctid IN {_SOME}",
    "UPDATE {t} SET {one} = NULL WHERE false",
    "DELETE FROM {t} WHERE false",
    f"{_PUT} SELECT {{c}} FROM {{t}} WHERE false",
    # A key gets another value, or all columns do.
    "UPDATE {t} SET {one} = (SELECT {one} FROM {gone} ORDER BY random() LIMIT 1)"
    " WHERE ctid IN (SELECT ctid FROM {t} ORDER BY random() LIMIT 1)",
    "UPDATE {t} SET ({c}) = (SELECT {c} FROM {gone} ORDER BY random() LIMIT 1)"
    " WHERE ctid IN (SELECT ctid FROM {t} ORDER BY random() LIMIT 1)",
    # Several kinds in one statement.
    f"{_PUT} {_BOTH} {{on_conflict}}",
    "MERGE INTO {t} AS target USING ("
    "SELECT {c}, ctid AS pgtrickle_at, tableoid AS pgtrickle_in, row_number() OVER () AS pgtrickle_place"
    " FROM (SELECT {c}, ctid, tableoid FROM {t} ORDER BY random() LIMIT 3) AS few"
    " UNION ALL (SELECT {c}, NULL, NULL, NULL FROM {gone} ORDER BY random() LIMIT 1)"
    ") AS source ON target.ctid = pgtrickle_at AND target.tableoid = pgtrickle_in"
    " WHEN MATCHED AND pgtrickle_place = 1 THEN DELETE"
    f" WHEN MATCHED THEN UPDATE SET {{one}} = {_ANOTHERS}"
    " WHEN NOT MATCHED THEN INSERT ({c}) OVERRIDING SYSTEM VALUE VALUES ({c})",
    f"WITH d AS ({_TAKE}), k AS ({_KEEP}) {_OTHER}",
    f"WITH i AS ({_PUT} {_BOTH} ON CONFLICT DO NOTHING) {_OTHER}",
    # All go, and perhaps come back.
    "INSERT INTO {gone} SELECT {c} FROM {t}; TRUNCATE {t}",
    f"INSERT INTO {{gone}} SELECT {{c}} FROM {{t}}; TRUNCATE {{t}}; {_RETURN}",
    f"WITH d AS (DELETE FROM {{t}} RETURNING {{c}}) {_KEEP}",
    "COPY {t} ({c}) FROM STDIN",
)
_COPIED = (
    "COPY (SELECT {c} FROM {t} ORDER BY random() LIMIT {n}) TO STDOUT",
    "COPY (SELECT {c} FROM {gone} ORDER BY random() LIMIT {n}) TO STDOUT",
)


class Changes:
    """Changes one of ``tables`` after another; ``done`` are the statements that were carried out.

    ``is_blameless`` says, of a statement that failed in a maintenance, whether the query fails after it, too.
    """

    def __init__(
        self, conn: Connection, chance: Random, tables: list[str], is_blameless: Callable[[Callable[[], None]], bool]
    ) -> None:
        self._conn = conn
        self._chance = chance
        self._tables = tables
        self._is_blameless = is_blameless
        self.done: list[str] = []

    def of(self, table: str) -> None:
        """Change some rows of a table, named as ``regclass`` prints it, by some statements, of which some are undone.

        Raises psycopg.Error for what fails in a maintenance.
        """
        if not self._columns(table):
            return
        steps = self._chance.choice((1, 1, 1, 2, 3))
        for _ in range(steps):
            self._carry_out(*self._statement(table), undone=steps > 1 and self._chance.random() < 0.3)

    def _carry_out(self, statement: str, copied: str | None, *, undone: bool) -> None:
        seed = self._chance.random()

        def act() -> None:
            # The same rows, where it is done again.
            self._conn.execute("SELECT setseed(%s)", (seed,))
            if copied is None:
                self._conn.execute(statement.encode(), prepare=False)
                return
            with self._conn.cursor().copy(copied.encode()) as rows:
                lines = list(rows)
            with self._conn.cursor().copy(statement.encode()) as copy:
                for line in lines:
                    copy.write(line)

        try:
            with self._conn.transaction(force_rollback=undone):
                act()
        except _HARMLESS as error:
            if _OURS in (error.diag.context or "") and not self._is_blameless(act):
                self.done.append(f"{statement} -- failed")
                raise
            return
        self.done.append(f"{statement}{' -- rolled back' if undone else ''}")

    def _statement(self, table: str) -> tuple[str, str | None]:
        """A statement and, of COPY FROM, the one that gives the rows."""
        columns = self._columns(table)
        other = self._chance.choice(self._tables)
        parts = {
            "t": sql.SQL(table),
            "c": sql.SQL(", ").join(columns),
            "one": self._chance.choice(columns),
            "n": sql.Literal(self._chance.choice((1, 2, 5))),
            "gone": self._gone(table, columns),
            "other": sql.SQL(other),
            "other_one": self._chance.choice(self._columns(other) or columns),
        }
        parts["on_conflict"] = self._on_conflict(table, parts)
        text = self._chance.choice(_COMMON if self._chance.random() < 0.5 else _RARE)
        copied = self._chance.choice(_COPIED) if text.startswith("COPY") else None

        def written(text: str) -> str:
            return sql.SQL(text).format(**parts).as_string(self._conn)

        return written(text), copied and written(copied)

    def _on_conflict(self, table: str, parts: dict[str, sql.Composable]) -> sql.Composable:
        found = self._conn.execute(_KEY, (table,)).fetchone()
        if found is None or self._chance.random() < 0.3:
            return sql.SQL("ON CONFLICT DO NOTHING")
        key = sql.SQL(", ").join(map(sql.Identifier, found[0]))
        return sql.SQL(f"ON CONFLICT ({{key}}) DO UPDATE SET {{one}} = {_ANOTHERS}").format(key=key, **parts)

    def _columns(self, table: str) -> list[sql.Identifier]:
        return [sql.Identifier(name) for (name,) in self._conn.execute(_COLUMNS, (table,))]

    def _gone(self, table: str, columns: list[sql.Identifier]) -> sql.Identifier:
        gone = sql.Identifier(KEPT, table.replace('"', "")[-60:])
        self._conn.execute(
            sql.SQL("CREATE TABLE IF NOT EXISTS {gone} AS SELECT {columns} FROM {table} WITH NO DATA").format(
                gone=gone,
                columns=sql.SQL(", ").join(columns),
                table=sql.SQL(table),
            )
        )
        return gone
