"""Where a statement finds what changed in a source.

A deferred refresh reads change buffers up to its frontier.  Maintenance inside the writing statement
reads what that very statement changed, or, when several sources are being written, what was held back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from pg_trickle.algebra.source import Source
from pg_trickle.render.parts import CHANGES_SCHEMA, WEIGHT, listed

DELTA = "__pgt_delta"
# What a statement that changed rows took away, and what it brought.
BEFORE, AFTER = "__pgt_before", "__pgt_after"
# A program that stands knows what has changed, and has TRUE or FALSE in its place (install/sql/41_standing.sql).  It is
# longer than any name, and has quotes in it, so that neither a name nor a string can contain it.
_GATE = sql.SQL("coalesce(pg_catalog.jsonb_exists_any($3 -> 'changed', ARRAY[{oids}]), TRUE)")


@dataclass(frozen=True, slots=True)
class Buffers:
    """The change buffers: what this snapshot sees and the last one didn't, and of the refreshing
    transaction's own changes those that came after its last refresh (docs/internals.md §2).

    ``sifted`` is for the program that serves whatever has changed: $3 also says what has, the planner sees it,
    and what begins with the changes of anything else is neither planned nor taken for many rows.
    """

    sifted: bool = False

    def gate(self, sources: Iterable[Source]) -> sql.Composable | None:
        """Whether any of the sources has changed, if that is to be asked; it is known when the statement is planned."""
        oids = sorted({str(source.oid) for source in sources})
        if not self.sifted or not oids:
            return None
        return _GATE.format(oids=listed(map(sql.Literal, oids)))

    def rows(self, source: Source, captured: sql.Composable) -> sql.Composable:
        """The change rows of a source, not netted; ``captured`` is the select list, with a comma at its end."""
        return sql.SQL(
            "SELECT {captured}w AS {w} FROM {buffer}"
            # A program that stands puts other words in the place of these (install/sql/41_standing.sql).
            " WHERE (xid >= pg_snapshot_xmax($1) OR xid = ANY (ARRAY(SELECT pg_snapshot_xip($1) UNION ALL SELECT $2)))"
            " AND (xid IS DISTINCT FROM $2 OR seq > ($3 ->> {oid})::bigint)"
        ).format(
            captured=captured,
            w=WEIGHT,
            buffer=sql.Identifier(CHANGES_SCHEMA, source.buffer),
            oid=sql.Literal(str(source.oid)),
        )


@dataclass(frozen=True, slots=True)
class Statement:
    """What the statement that fires the trigger changed: the engine puts a WITH query of that name in front.

    ``is_net`` where that needs no netting: a single row, or rows that only came, or only went.  ``side``: only what an
    update brought (1), or only what it took away (-1).
    """

    delta: str = DELTA
    is_net: bool = False
    side: int = 0

    def gate(self, sources: Iterable[Source]) -> None:
        """It has changed, or there would be no maintenance."""

    def rows(self, source: Source, captured: sql.Composable) -> sql.Composable:
        """The change rows of the one source that changes."""
        one_side = sql.SQL(" WHERE w = {side}").format(side=sql.Literal(self.side)) if self.side else sql.SQL("")
        return sql.SQL("SELECT {captured}w AS {w} FROM {delta}{one_side}").format(
            captured=captured, w=WEIGHT, delta=sql.Identifier(self.delta), one_side=one_side
        )


@dataclass(frozen=True, slots=True)
class Held:
    """What earlier statements of this transaction changed, and nobody has worked off yet."""

    stream_table: int

    def gate(self, sources: Iterable[Source]) -> None:
        """Nobody tells which of them have changed."""

    def rows(self, source: Source, captured: sql.Composable) -> sql.Composable:
        """The change rows of a source that were held back."""
        return sql.SQL("SELECT {captured}w AS {w} FROM {held} WHERE xid = pg_current_xact_id()").format(
            captured=captured,
            w=WEIGHT,
            held=sql.Identifier(CHANGES_SCHEMA, f"held_{self.stream_table}_{source.oid}"),
        )


Feed = Buffers | Statement | Held
BUFFERS = Buffers()
SIFTED = Buffers(sifted=True)
