"""Every error of pg_trickle: few classes, by what the user should do, each with PostgreSQL's own SQLSTATE."""

from __future__ import annotations

from typing import Any

EXCERPT = 60
LEAD = 20


def _excerpt(query: str, place: int) -> str:
    """What a text says at a place, from the beginning of the line if that isn't far, else from some word before."""
    line = query.rfind("\n", 0, place) + 1
    start = line if place - line <= LEAD else query.find(" ", place - LEAD, place) + 1
    return " ".join(query[start:].split())[:EXCERPT]


class PgTrickleError(Exception):
    """A message with its SQLSTATE, an explanation and a way out.

    ``position`` counts characters from 1 in the query that the error is about.
    """

    sqlstate = "XX000"

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str | None = None,
        detail: str | None = None,
        hint: str | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate or type(self).sqlstate
        self.detail = detail
        self.hint = hint
        self.position = position

    def to_json(self) -> dict[str, Any]:
        """The error as the bridge and ``--json`` show it."""
        return {
            "sqlstate": self.sqlstate,
            "message": self.message,
            "detail": self.detail,
            "hint": self.hint,
            "position": self.position,
        }


class UnsupportedQuery(PgTrickleError):
    """A construct without a delta rule.  The query still works in FULL mode; under AUTO too, unless ``only_full``.

    ``by_itself``: nothing that happens to rows tells when the result changes, but whoever looks sees what it is.
    Such a query works in DIFFERENTIAL mode as well, run anew and compared by each refresh.
    """

    sqlstate = "0A000"

    def __init__(
        self,
        construct: str,
        reason: str,
        *,
        hint: str | None = None,
        position: int | None = None,
        only_full: bool = False,
        by_itself: bool = False,
    ) -> None:
        super().__init__(
            f"{construct} can't be maintained incrementally",
            detail=reason,
            hint=hint or "Use refresh_mode => 'FULL' or 'AUTO', or write the query without it.",
            position=position,
        )
        self.construct = construct
        self.reason = reason
        self.way_out = hint
        self.only_full = only_full
        self.by_itself = by_itself
        self.near: str | None = None

    def stands_in(self, view: str, position: int | None) -> None:
        """It was found in the text of a view, which the query names at a position."""
        self.reason = self.detail = f"{self.reason} It stands in view {view}."
        self.position = position

    def stands_near(self, query: str, position: int | None) -> None:
        """Keep what the query says there, or, where nothing nearer is known, at a position."""
        self.position = self.position or position
        if self.position is not None:
            self.near = _excerpt(query, self.position - 1)


class Undetermined(UnsupportedQuery):
    """A construct whose result isn't decided by the rows that the query reads: no rule can ever maintain it."""


class Overgrown(UnsupportedQuery):
    """A query that is too long for rules once all that it names is written out; as it stands it isn't."""


class InvalidDefinition(PgTrickleError):
    """A name, argument or query that can't be accepted."""

    sqlstate = "22023"


class SourceChanged(PgTrickleError):
    """The catalog changed between reading it and using what was read; try again."""

    sqlstate = "40001"


class NotInstalled(PgTrickleError):
    """pg_trickle, or a part of it, isn't there."""

    sqlstate = "55000"


class QueryTooComplex(PgTrickleError):
    """A query beyond the compiler's limits."""

    sqlstate = "54000"
