"""Where a statement finds what changed in a source.

A deferred refresh reads change buffers up to its frontier.  Maintenance inside the writing statement
reads what that very statement changed, or, when several sources are being written, what was held back.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from pg_trickle.algebra.source import Source
from pg_trickle.render.parts import CHANGES_SCHEMA, WEIGHT

DELTA = "__pgt_delta"


@dataclass(frozen=True, slots=True)
class Buffers:
    """The change buffers: what this snapshot sees and the last one didn't, and of the refreshing
    transaction's own changes those that came after its last refresh (docs/internals.md §2).
    """

    def rows(self, source: Source, captured: sql.Composable) -> sql.Composable:
        """The change rows of a source, not netted; ``captured`` is the select list, with a comma at its end."""
        return sql.SQL(
            "SELECT {captured}w AS {w} FROM {buffer}"
            " WHERE xid >= pg_snapshot_xmin($1)"
            " AND CASE WHEN xid = $2 THEN seq > ($3 ->> {oid})::bigint ELSE NOT pg_visible_in_snapshot(xid, $1) END"
        ).format(
            captured=captured,
            w=WEIGHT,
            buffer=sql.Identifier(CHANGES_SCHEMA, source.buffer),
            oid=sql.Literal(str(source.oid)),
        )


@dataclass(frozen=True, slots=True)
class Statement:
    """What the statement that fires the trigger changed: the engine puts a WITH query of that name in front."""

    def rows(self, source: Source, captured: sql.Composable) -> sql.Composable:
        """The change rows of the one source that changes."""
        return sql.SQL("SELECT {captured}w AS {w} FROM {delta}").format(
            captured=captured, w=WEIGHT, delta=sql.Identifier(DELTA)
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What earlier statements of this transaction changed, and nobody has worked off yet."""

    stream_table: int

    def rows(self, source: Source, captured: sql.Composable) -> sql.Composable:
        """The change rows of a source that were held back."""
        return sql.SQL("SELECT {captured}w AS {w} FROM {held} WHERE xid = pg_current_xact_id()").format(
            captured=captured,
            w=WEIGHT,
            held=sql.Identifier(CHANGES_SCHEMA, f"held_{self.stream_table}_{source.oid}"),
        )


Feed = Buffers | Statement | Held
BUFFERS = Buffers()
