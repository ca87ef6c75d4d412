"""How the command line shows an error: message, where, why, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg

from pg_trickle.cli.output import printable
from pg_trickle.errors import NotInstalled, PgTrickleError


def report(error: PgTrickleError | psycopg.Error, query: str | None = None) -> str:
    """The error for people; ``query`` is the text that its position counts in, if the error doesn't bring one."""
    return printable("\n".join(_lines(error if isinstance(error, PgTrickleError) else translate(error, query), query)))


def translate(error: psycopg.Error, query: str | None = None) -> PgTrickleError:
    """A server's error, or one of the connection to it, as one of ours."""
    diag = error.diag
    if diag.message_primary is None:
        # The connection failed: there is no server to say more.
        return PgTrickleError(
            str(error).strip(),
            sqlstate=error.sqlstate or "08001",
            hint="Is the server running, and the connection string (--dsn) right?",
        )
    if diag.sqlstate in ("3F000", "42P01") and re.search(r"\Wpgtrickle(\.gate)?\W", diag.message_primary):
        # Whatever was called, in whatever language the server says so.
        return NotInstalled(
            "pg_trickle is not installed in this database",
            hint="Install it with pgtrickle install or CREATE EXTENSION pg_trickle, or connect (--dsn) to where it is.",
        )
    return PgTrickleError(
        diag.message_primary,
        sqlstate=diag.sqlstate,
        detail=diag.message_detail,
        hint=diag.message_hint,
        position=_position(diag, query),
    )


def _position(diag: psycopg.errors.Diagnostic, query: str | None) -> int | None:
    """Where in ``query`` the error lies: the server counts in the statement that holds it."""
    if query is None or diag.internal_query is None or diag.internal_position is None:
        return None
    start = diag.internal_query.find(query)
    inside = int(diag.internal_position) - start
    return inside if start >= 0 and 1 <= inside <= len(query) else None


def _lines(error: PgTrickleError, query: str | None) -> Iterator[str]:
    yield f"error: {error.message} ({error.sqlstate})"
    if query is not None and error.position is not None:
        yield from _caret(query, error.position)
    if error.detail:
        yield f"detail: {error.detail}"
    if error.hint:
        yield f"hint: {error.hint}"


def _caret(query: str, position: int) -> Iterator[str]:
    before = query[: position - 1]
    start = before.rfind("\n") + 1
    line = query[start:].split("\n", 1)[0]
    # Tabs are kept, so that the caret stands under its character.
    margin = "".join("\t" if char == "\t" else " " for char in before[start:])
    yield f"  {line}"
    yield f"  {margin}^"
