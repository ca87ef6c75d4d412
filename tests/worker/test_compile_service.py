from __future__ import annotations

import json
from typing import Any

import pytest

from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import InvalidDefinition
from pg_trickle.worker.compile_service import answer

REQUEST: dict[str, Any] = {
    "format": 1,
    "id": 7,
    "target": {"schema": "public", "name": "t"},
    "query": "SELECT 1 AS a",
    "columns": [],
    "relations": [],
    "functions": [],
}


def plan_of(request: CompileRequest) -> dict[str, Any]:
    return {"id": request.id}


def test_a_plan_is_the_answer_to_a_good_request():
    assert answer(json.dumps(REQUEST), plan_of).plan == {"id": 7}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '"x"',
        json.dumps({**REQUEST, "columns": 5}),
        json.dumps({**REQUEST, "target": []}),
        "{" * 99,
    ],
)
def test_what_is_not_a_request_gets_an_error(text):
    found = answer(text, plan_of)
    assert found.plan is None
    assert found.error is not None
    assert found.error["sqlstate"]


def test_a_request_too_large_to_be_read_gets_an_error():
    found = answer(None, plan_of)
    assert found.error is not None
    assert found.error["sqlstate"] == "54000"


def test_json_nested_beyond_reason_gets_an_error():
    found = answer("[" * 200_000, plan_of)
    assert found.error is not None


@pytest.mark.parametrize(
    ("raised", "sqlstate"),
    [
        (InvalidDefinition("no"), "22023"),
        (RecursionError(), "54000"),
        (MemoryError(), "54000"),
        (ZeroDivisionError(), "XX000"),
        (AssertionError(), "XX000"),
    ],
)
def test_whatever_the_compiler_raises_is_an_answer(raised, sqlstate, caplog):
    def compile_request(request: CompileRequest) -> dict[str, Any]:
        raise raised

    found = answer(json.dumps(REQUEST), compile_request)
    assert found.error is not None
    assert found.error["sqlstate"] == sqlstate
