"""What parsing a SELECT makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from postgast.pg_query_pb2 import SelectStmt

from pg_trickle.algebra.plan import Plan
from pg_trickle.parse.scope import Context
from pg_trickle.scalar import Column


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed SELECT: its plan, and its output columns by the names the query gives them.

    ``borrowed``: of the whole query, what takes its order from a subquery that may lose it.
    """

    plan: Plan
    outputs: tuple[tuple[str, Column], ...]
    borrowed: tuple[str, ...] = ()


ParseQuery = Callable[[SelectStmt, Context], Query]
