"""Random changes of any table: rows go and come back, come twice, and get values of other rows, or none."""

from __future__ import annotations

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
# Where it isn't the stream table's doing that a statement can't be carried out.
_HARMLESS = (psycopg.errors.IntegrityError, psycopg.errors.DataError, psycopg.errors.ProgrammingError)
_OURS = "pgtrickle_changes."


class Changes:
    """Changes one table after another; ``done`` are the statements that were carried out."""

    def __init__(self, conn: Connection, chance: Random) -> None:
        self._conn = conn
        self._chance = chance
        self.done: list[str] = []

    def of(self, table: str) -> bool:
        """Change some rows of a table, named as ``regclass`` prints it; whether the statement could be carried out.

        Raises psycopg.Error for what fails in a maintenance.
        """
        columns = [sql.Identifier(name) for (name,) in self._conn.execute(_COLUMNS, (table,))]
        if not columns:
            return False
        statement = self._statement(table, columns).as_string(self._conn)
        try:
            with self._conn.transaction():
                self._conn.execute(statement.encode(), prepare=False)
        except _HARMLESS as error:
            if _OURS in (error.diag.context or "") and not isinstance(error, psycopg.errors.DataError):
                raise
            return False
        self.done.append(statement)
        return True

    def _statement(self, table: str, columns: list[sql.Identifier]) -> sql.Composed:
        number = sql.Literal(self._chance.choice((1, 2, 5)))
        parts = {
            "t": sql.SQL(table),
            "c": sql.SQL(", ").join(columns),
            "one": self._chance.choice(columns),
            "n": number,
            "gone": self._gone(table, columns),
        }
        some = "(SELECT ctid FROM {t} ORDER BY random() LIMIT {n})"
        text = self._chance.choice((
            f"WITH d AS (DELETE FROM {{t}} WHERE ctid IN {some} RETURNING {{c}}) INSERT INTO {{gone}} SELECT * FROM d",
            "WITH d AS (DELETE FROM {gone} RETURNING *) INSERT INTO {t} ({c}) OVERRIDING SYSTEM VALUE SELECT * FROM d",
            "INSERT INTO {t} ({c}) OVERRIDING SYSTEM VALUE SELECT {c} FROM {t} ORDER BY random() LIMIT {n}",
            f"UPDATE {{t}} SET {{one}} = (SELECT {{one}} FROM {{t}} ORDER BY random() LIMIT 1) WHERE ctid IN {some}",
            f"UPDATE {{t}} SET {{one}} = NULL WHERE ctid IN {some}",
        ))  # fmt: skip
        return sql.SQL(text).format(**parts)

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
