"""Tables and states by their names in the database."""

from __future__ import annotations

from psycopg import sql

from pg_trickle.algebra.source import Field, Source, State
from pg_trickle.render.parts import CHANGES_SCHEMA


def relation(table: Source | State) -> sql.Identifier:
    """The table's qualified name."""
    if isinstance(table, State):
        return sql.Identifier(CHANGES_SCHEMA, table.name)
    return sql.Identifier(table.schema, table.name)


def attributes(fields: tuple[Field, ...]) -> sql.Composed:
    """A table's columns under the plan's names, with a comma behind each."""
    return sql.Composed(
        [
            sql.SQL("{attribute} AS {name}, ").format(
                attribute=sql.Identifier(field.attribute), name=sql.Identifier(field.column.name)
            )
            for field in fields
        ]
    )
