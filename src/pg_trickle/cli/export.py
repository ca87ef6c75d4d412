"""``pgtrickle export``."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from pg_trickle.cli import output
from pg_trickle.cli.options import Dsn, Name, connect
from pg_trickle.errors import InvalidDefinition

# With nothing but pg_catalog on the path, the server prints the query with every name qualified.
DEFINITION: LiteralString = """
    SELECT pg_catalog.format('%%I.%%I', s.pgt_schema, s.pgt_name) AS name,
           pg_catalog.rtrim(pg_catalog.pg_get_viewdef(s.definition_view), '; ') AS query,
           s.schedule, s.refresh_mode, s.diamond_consistency, s.diamond_schedule_policy, s.cdc_mode, s.append_only,
           s.tier
      FROM pgtrickle.pgt_stream_tables AS s
     WHERE s.pgt_relid = %s
"""


def export(name: Name, dsn: Dsn = "") -> None:
    """Print the SQL that makes a stream table anew.

    Example: pgtrickle export order_totals > order_totals.sql
    """
    with connect(dsn) as conn:
        output.line(definition(conn, name))


def definition(conn: psycopg.Connection[Any], name: str) -> str:
    """The statements that make a stream table as it is, wherever its sources are."""
    (relation,) = conn.execute("SELECT %s::pg_catalog.regclass::pg_catalog.oid", (name,)).fetchone() or (None,)
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET LOCAL search_path = pg_catalog")
        row = cursor.execute(DEFINITION, (relation,)).fetchone()
    if row is None:
        raise InvalidDefinition(
            f'"{name}" is not a stream table', sqlstate="42809", hint="List those you may see with: pgtrickle list"
        )
    tier = row.pop("tier")
    statements = [_call(conn, "create_stream_table", row)]
    if tier != "hot":
        statements.append(_call(conn, "alter_stream_table", {"name": row["name"], "tier": tier}))
    return "\n".join(statements)


def _call(conn: psycopg.Connection[Any], function: str, arguments: dict[str, Any]) -> str:
    named = [
        sql.SQL("    {name} => {value}").format(name=sql.Identifier(name), value=sql.Literal(value))
        for name, value in arguments.items()
    ]
    call = sql.SQL("SELECT {function}(\n{arguments});").format(
        function=sql.Identifier("pgtrickle", function), arguments=sql.SQL(",\n").join(named)
    )
    return call.as_string(conn)
