"""Expressions of random queries."""

from __future__ import annotations

from dataclasses import dataclass

from tests.refresh.workload.types import Type


@dataclass(frozen=True)
class Value:
    """An expression: its text, and what is known of its result."""

    sql: str
    type: Type
    loose: bool = False
