"""Is a stream table what its query says?  PostgreSQL itself is asked, in one statement and so in one snapshot."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pg_trickle.errors import InvalidDefinition

Difference = tuple[str, int, int]

_DEFINITION: LiteralString = """
    SELECT s.pgt_schema, s.pgt_name, n.nspname, v.relname,
           ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute AS a
                  WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
      FROM pgtrickle.pgt_stream_tables AS s
      JOIN pg_catalog.pg_class         AS v ON v.oid = s.definition_view
      JOIN pg_catalog.pg_namespace     AS n ON n.oid = v.relnamespace
     WHERE s.pgt_relid = pg_catalog.to_regclass(%s)::pg_catalog.oid
"""

# Rows are compared by their text: every type has one, and it tells values apart that are equal
# without being the same (1.0 and 1.00).  The columns of a stream table that was given a new query
# may have another order.
_DIFFERENCES: LiteralString = """
    WITH
    have AS (SELECT __pgt::text AS line, count(*) AS n FROM (SELECT {columns} FROM {table}) AS __pgt GROUP BY 1),
    want AS (SELECT __pgt::text AS line, count(*) AS n FROM (SELECT {columns} FROM {view}) AS __pgt GROUP BY 1)
    SELECT coalesce(have.line, want.line), coalesce(have.n, 0), coalesce(want.n, 0)
      FROM have FULL JOIN want ON have.line = want.line
     WHERE have.n IS DISTINCT FROM want.n
     ORDER BY 1
     LIMIT 20
"""


_TIES: LiteralString = """
    SELECT t.note
      FROM pgtrickle.pgt_stream_tables AS s
      JOIN pgtrickle.pgt_plans AS p USING (pgt_id)
     CROSS JOIN LATERAL pg_catalog.jsonb_array_elements_text(p.plan -> 'ties') AS t(note)
     WHERE s.pgt_relid = pg_catalog.to_regclass(%s)::pg_catalog.oid
"""


def differences(conn: psycopg.Connection[Any], name: str) -> list[Difference]:
    """The rows that a stream table has too often or too seldom: row, copies it has, copies its query gives."""
    found = conn.execute(_DEFINITION, (name,)).fetchone()
    if found is None:
        raise InvalidDefinition(f'"{name}" is not a stream table', sqlstate="42809")
    schema, table, view_schema, view, columns = found
    rows = conn.execute(
        sql.SQL(_DIFFERENCES).format(
            table=sql.Identifier(schema, table),
            view=sql.Identifier(view_schema, view),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        )
    )
    return [(line, have, want) for line, have, want in rows]


def assert_fresh(conn: psycopg.Connection[Any], name: str) -> None:
    """Fail unless the stream table equals its query, as multisets of rows, and the engine says so too."""
    wrong = differences(conn, name)
    if wrong:
        lines = (f"  {line}: {have} in the table, {want} in the query" for line, have, want in wrong)
        notes = (f"  {note}" for (note,) in conn.execute(_TIES, (name,)))
        raise AssertionError(f"stream table {name} differs from its query\n" + "\n".join([*lines, *notes]))
    verdict = conn.execute("SELECT missing, extra, ok FROM pgtrickle.verify_stream_table(%s)", (name,)).fetchone()
    if verdict != (0, 0, True):
        raise AssertionError(f"stream table {name} is right, but verify_stream_table says {verdict}")
