"""Whatever is refused, or recomputed for want of a rule: what, where, why, and what to write instead."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pg_trickle
from pg_trickle import compile as compiler
from pg_trickle.errors import UnsupportedQuery
from pg_trickle.parse import fallback
from tests.compile.requests import SHOP, request, table
from tests.compile.test_refusals import REFUSED

PACKAGE = Path(pg_trickle.__file__).parent
RAISED = {"UnsupportedQuery", "Undetermined", "Overgrown"}
CALLS = [
    (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED
]
VIEW = table(91, "seen", "id integer!", ("id",), kind="view")


def literals(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may be, with its holes as letters."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from literals(one)
            yield from literals(other)


@pytest.mark.parametrize(("place", "call"), CALLS, ids=[place for place, _ in CALLS])
def test_each_place_that_refuses_says_what_and_why(place: str, call: ast.Call) -> None:
    construct, reason, *rest = call.args
    assert not rest
    for text in literals(construct):
        assert text, place
        assert not text.endswith("."), place
    for text in literals(reason):
        assert text.endswith((".", ")")), f"{place}: a reason is a sentence"
        assert not text[0].isupper() or text[:3].isupper(), f"{place}: it goes on after the construct"
    for hint in (one.value for one in call.keywords if one.arg == "hint"):
        for text in literals(hint):
            assert text[0].isupper(), f"{place}: a hint is a sentence"
            assert text.endswith("."), f"{place}: a hint is a sentence"


@pytest.mark.parametrize("query", REFUSED, ids=range(len(REFUSED)))
def test_what_is_shown_says_where_and_what_to_do(monkeypatch, query: str) -> None:
    shown: list[UnsupportedQuery] = []
    for module, name, place in ((fallback, "_recomputed", 4), (compiler, "_recomputing", 1)):
        monkeypatch.setattr(module, name, _noting(shown, place, getattr(module, name)))
    compiler.compile(request(query))
    assert shown
    for refusal in shown:
        assert refusal.construct
        assert refusal.reason
        assert refusal.hint
        assert refusal.position is not None, refusal.construct
        assert 1 <= refusal.position <= len(query)


def _noting(shown: list[UnsupportedQuery], place: int, whole: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which notes the refusal that it is given at a place."""

    def made(*given: Any) -> Any:
        shown.append(given[place])
        return whole(*given)

    return made


def test_what_a_view_hides_is_told_where_the_query_names_the_view() -> None:
    view = replace(VIEW, definition="SELECT o.id FROM public.orders o WHERE o.id > 1 LIMIT 3")
    query = "SELECT o.paid, s.id FROM public.orders o JOIN public.seen s ON s.id = o.id"
    plan = compiler.compile(request(query, (*SHOP, view), "paid boolean; id integer"))
    assert plan.refusal is not None
    assert plan.refusal.construct == "LIMIT without ORDER BY"
    assert plan.refusal.reason.endswith("It stands in view public.seen.")
    assert plan.refusal.near is not None
    assert "public.seen s" in plan.refusal.near


def test_a_function_is_told_where_it_is_called() -> None:
    plan = compiler.compile(request("SELECT o.id, random() AS r FROM public.orders o"))
    assert plan.refusal is not None
    assert plan.refusal.near is not None
    assert "random() AS r" in plan.refusal.near
