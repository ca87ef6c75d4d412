"""A query as a stream table, while the tables that it reads change at random."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import psycopg

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.regress.changes import Changes

Connection = psycopg.Connection[tuple[Any, ...]]
Verdict = Literal["kept", "refused", "undecided", "spelled", "slow", "wrong", "failed"]

NAME = "pgtrickle_tried"
PROBE = "pgtrickle_probe"
MOST_ROWS = 30_000
ROUNDS = 3

# Its answer is another one under another search path, which is pinned when a stream table is computed.
_BY_SEARCH_PATH = re.compile(r"\bpg_get_\w+def\b|::\s*reg\w+|\bformat_type\b", re.IGNORECASE)
_SOURCES = """
    WITH RECURSIVE read AS (
        SELECT d.refobjid AS oid FROM pg_rewrite AS r
          JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
           AND d.refclassid = 'pg_class'::regclass
         WHERE r.ev_class = %s::regclass
        UNION
        SELECT d.refobjid FROM read JOIN pg_rewrite AS r ON r.ev_class = read.oid
          JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
           AND d.refclassid = 'pg_class'::regclass
    )
    SELECT c.oid::regclass::text, c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.oid >= 16384
      FROM read JOIN pg_class AS c USING (oid) WHERE c.relkind <> 'v' ORDER BY 1
"""
# Of equal values that read otherwise a group shows any (docs/concepts.md); numbers by themselves are looked after.
_HAS_COMPOSITES = """
    SELECT EXISTS (SELECT FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
                     LEFT JOIN pg_type AS e ON e.oid = t.typelem
                    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND 'c' IN (t.typtype, e.typtype))
"""
_NOTES = """
    SELECT p.plan -> 'ties' FROM pgtrickle.pgt_stream_tables AS s JOIN pgtrickle.pgt_plans AS p USING (pgt_id)
     WHERE s.pgt_name = %s
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a query.

    ``undecided`` where the stream table differs, but had said that it may; ``spelled`` where it shows an equal value
    that reads otherwise; ``slow`` where a statement took longer than it may.
    """

    verdict: Verdict
    query: str
    detail: str = ""


def tried(conn: Connection, query: str, mode: str, chance: Random) -> Trial | None:
    """Try a query; None if it reads no table, or what PostgreSQL doesn't take for a query of a view."""
    found = _looked_at(conn, query)
    if found is None:
        return None
    query, tables = found
    try:
        with conn.transaction():
            pg_trickle.create_stream_table(conn, NAME, query, schedule=None, refresh_mode=mode)
            wrong = differences(conn, NAME)
    except psycopg.Error as error:
        is_refused = (error.sqlstate or "").startswith(("0A", "42")) or not _can_be_run(conn, query)
        return Trial("refused" if is_refused else _verdict_on_error(error), query, str(error))
    changes = Changes(conn, chance, tables, lambda act: _fails_without(conn, query, act))
    try:
        for _ in range(0 if wrong else ROUNDS):
            wrong = _round(conn, mode, tables, changes)
            if wrong:
                break
        detail = "\n".join(map(str, [*wrong[:5], *changes.done]))
        return Trial(_verdict(conn, query) if wrong else "kept", query, detail if wrong else "")
    except psycopg.Error as error:
        verdict = _verdict_on_error(error) if _can_be_run(conn, query) else "kept"
        return Trial(verdict, query, "\n".join([str(error), *changes.done]))
    finally:
        pg_trickle.drop_stream_table(conn, NAME, cascade=True)


def _verdict_on_error(error: psycopg.Error) -> Verdict:
    return "slow" if isinstance(error, psycopg.errors.QueryCanceled) else "failed"


def _verdict(conn: Connection, query: str) -> Verdict:
    """What it means that the stream table differs from its query."""
    if conn.execute(_NOTES, (NAME,)).fetchone() != ([],):
        return "undecided"
    if conn.execute(_HAS_COMPOSITES, (NAME,)).fetchone() == (True,) and _is_equal(conn, query):
        return "spelled"
    return "wrong"


def _is_equal(conn: Connection, query: str) -> bool:
    differing = f"(TABLE {NAME} EXCEPT ALL ({query})) UNION ALL (({query}) EXCEPT ALL TABLE {NAME})"
    try:
        with conn.transaction():
            return not conn.execute(differing.encode(), prepare=False).fetchall()
    except psycopg.Error:
        # Of a type that knows no equality.
        return False


def _fails_without(conn: Connection, query: str, act: Callable[[], None]) -> bool:
    """Whether a statement, or the query after it, fails where there is no stream table."""
    try:
        with conn.transaction(force_rollback=True):
            pg_trickle.drop_stream_table(conn, NAME, cascade=True)
            act()
            conn.execute(query.encode(), prepare=False)
    except psycopg.Error:
        return True
    return False


def _round(conn: Connection, mode: str, tables: list[str], changes: Changes) -> list[tuple[str, int, int]]:
    """Change each table and compare, in one transaction, so that the time stands still."""
    for table in tables:
        with conn.transaction():
            changes.of(table)
            if mode == "IMMEDIATE" and (wrong := differences(conn, NAME)):
                return wrong
    with conn.transaction():
        if mode != "IMMEDIATE":
            conn.execute("SELECT pgtrickle.refresh_stream_table(%s)", (NAME,))
        return differences(conn, NAME)


def _looked_at(conn: Connection, query: str) -> tuple[str, list[str]] | None:
    """The query with names for its columns, and the tables that it reads."""
    if _BY_SEARCH_PATH.search(query):
        return None
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("SET LOCAL statement_timeout = '1500ms'")
            query = _named(conn, query)
            conn.execute(f"CREATE VIEW {PROBE} AS {query}".encode(), prepare=False)
            sources = conn.execute(_SOURCES, (PROBE,)).fetchall()
            rows = conn.execute(f"SELECT * FROM {PROBE} LIMIT {MOST_ROWS}".encode()).fetchall()
    except psycopg.Error:
        return None
    if not sources or len(rows) == MOST_ROWS or not all(is_table for _, is_table in sources):
        return None
    return query, [name for name, _ in sources]


def _can_be_run(conn: Connection, query: str) -> bool:
    """Whether the query itself can still be run: not if it divides by what has become zero."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(query.encode(), prepare=False)
    except psycopg.Error:
        return False
    return True


def _named(conn: Connection, query: str) -> str:
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(f"CREATE VIEW {PROBE} AS {query}".encode(), prepare=False)
        return query
    except psycopg.errors.DuplicateColumn:
        with conn.transaction(force_rollback=True):
            width = len(conn.execute(query.encode(), prepare=False).description or ())
        return f"SELECT * FROM ({query}) AS q ({', '.join(f'c{place}' for place in range(width))})"
