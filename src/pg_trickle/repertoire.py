"""What a server can store of what the compiler says: not every encoding has a sigma.

SQL text and names come from the server, so it can store them.  What the compiler says in its own words, rules
above all, is written in ASCII where the database isn't in UTF8.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

# The parts of a plan that are words (docs/internals.md §5).
WORDS = ("explain", "refusal", "undetermined", "indexes", "immediate_refusal", "ties")

ASCII = str.maketrans(
    {
        "Δ": "d",
        "Σ": "sum ",
        "σ": "select",
        "π": "project",
        "γ": "group",
        "δ": "distinct",
        "τ": "limit",
        "ω": "window",
        "φ": "fix",
        "θ": "t",
        "⋈": "JOIN",
        "⋉": "SEMIJOIN",
        "▷": "ANTIJOIN",
        "⟕": "LEFT JOIN",
        "⟗": "FULL JOIN",
        "↗": "LATERAL",
        "′": "'",
        "°": "'",
        "²": "^2",
        "⁺": "+",
        "ⁿ": "^n",
        "−": "-",
        "–": "-",
        "×": "x",
        "·": "*",
        "÷": "/",
        "…": "...",
        "∅": "{}",
        "∈": "in",
        "⊆": "in",
        "≠": "<>",
        "⟹": "=>",
        "→": "->",
    }
)
_AS_IT_IS = partial(json.dumps, ensure_ascii=False)


def stored_plan(conn: psycopg.Connection[Any], plan: dict[str, Any]) -> Jsonb:
    """A plan as a parameter that the connection's database can store."""
    if _is_utf8(conn):
        return Jsonb(plan)
    return Jsonb({**plan, **{part: _plain(plan[part]) for part in WORDS}}, dumps=_AS_IT_IS)


def stored_words(conn: psycopg.Connection[Any], document: dict[str, Any]) -> Jsonb:
    """The same for what is words alone, such as an error."""
    return Jsonb(document) if _is_utf8(conn) else Jsonb(_plain(document), dumps=_AS_IT_IS)


def _is_utf8(conn: psycopg.Connection[Any]) -> bool:
    return conn.info.parameter_status("server_encoding") == "UTF8"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.translate(ASCII)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
