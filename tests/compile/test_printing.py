"""What is printed reads back as the same expression, or as one with more parentheses."""

from __future__ import annotations

import pytest

from pg_trickle.parse.canonical import parse_select
from pg_trickle.parse.tree import is_faithful, printed, shielded

EXPRESSIONS = (
    "(a OR b) IS NULL",
    "(a AND b) IS NOT NULL",
    "(NOT a) IS NULL",
    "NOT (a IS NULL)",
    "(NOT ((a OR b) IS NULL)) IS NOT NULL",
    "(a OR b) IN (c, (a AND c) IS NULL)",
    "(a = b) = ANY (c)",
    "(NOT a) = ANY (c)",
    "(a < b) BETWEEN (a = 1) AND (b = 2)",
    "(a = b) IS DISTINCT FROM (b IS NULL)",
    "(a OR b) IS TRUE",
    "(a IS DISTINCT FROM b) IS NOT TRUE",
    "(a OR b) IN (SELECT c)",
)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_parentheses_are_kept(text: str) -> None:
    node = parse_select(f"SELECT {text}").target_list[0].res_target.val
    assert any(is_faithful(one, printed(node)) for one in (node, shielded(node)))


def test_different_expressions_are_printed_differently() -> None:
    nodes = [parse_select(f"SELECT {text}").target_list[0].res_target.val for text in EXPRESSIONS]
    assert len(set(map(printed, nodes))) == len(nodes)
