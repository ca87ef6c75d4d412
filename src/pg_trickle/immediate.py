"""Programs that run inside the writing statement (docs/decisions/0010, docs/internals.md §10).

The deltas are those of a refresh.  Only where the changes of a source are found differs: they are
the statement's own transition tables, or what other statements under way have left to be worked off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pg_trickle import programs
from pg_trickle.render.feed import Held, Statement


@dataclass(frozen=True, slots=True)
class Immediate:
    """How a stream table is maintained inside a statement.

    ``sources`` holds the program for a statement that changes just that source: each text goes on after
    ``WITH __pgt_delta AS (…)``.  ``held`` is for changes of any sources, read from where they were held back.
    """

    sources: dict[int, programs.Program]
    held: programs.Program

    def to_json(self) -> dict[str, Any]:
        """As the engine reads it."""
        return {
            "sources": {str(oid): list(program) for oid, program in self.sources.items()},
            "held": list(self.held),
        }


def immediate(definition: programs.Definition, sources: dict[int, tuple[str, ...]], stream_table: int) -> Immediate:
    """The programs for the statements of each source."""
    return Immediate(
        sources={oid: programs.differential(definition, frozenset((oid,)), Statement())[0] for oid in sources},
        held=programs.differential(definition, None, Held(stream_table))[0],
    )
