from __future__ import annotations

import json
from typing import Any

import pytest

from pg_trickle.catalog.model import CompileRequest
from pg_trickle.errors import InvalidDefinition
from pg_trickle.worker.compiler import answer, answer_in_time
from pg_trickle.worker.compiler_process import CompilerProcess

COLUMN = {
    "name": "a",
    "type": "integer",
    "base": "int4",
    "spelled": None,
    "not_null": False,
    "identity": "equal",
    "orderable": True,
    "hashable": True,
    "scale": None,
}
REQUEST: dict[str, Any] = {
    "format": 1,
    "id": 7,
    "target": {"schema": "public", "name": "t"},
    "query": "SELECT 1 AS a",
    "columns": [COLUMN],
    "relations": [],
    "functions": [],
}


def plan_of(request: CompileRequest) -> dict[str, Any]:
    return {"id": request.id}


def test_a_plan_is_the_answer_to_a_good_request():
    assert answer(json.dumps(REQUEST), plan_of) == {"plan": {"id": 7}, "error": None}


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
    assert found["plan"] is None
    assert found["error"]["sqlstate"] == "22023"


def test_json_nested_beyond_reason_gets_an_error():
    found = answer("[" * 200_000, plan_of)
    assert found["error"]["sqlstate"] == "54000"


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
    assert found["error"]["sqlstate"] == sqlstate


def test_what_takes_too_long_is_broken_off():
    def compile_request(request: CompileRequest) -> dict[str, Any]:
        while True:
            pass

    found = answer_in_time(json.dumps(REQUEST), 0.05, compile_request)
    assert found["error"]["sqlstate"] == "54000"


@pytest.fixture
def compiler():
    made = CompilerProcess()
    yield made
    made.close()


def test_the_process_answers_whatever_comes(compiler):
    assert compiler.answer(json.dumps(REQUEST, indent=1))["error"] is None
    assert compiler.answer("nonsense")["error"]["sqlstate"] == "22023"
    assert compiler.answer(json.dumps({**REQUEST, "query": "DROP TABLE t"}))["plan"] is None
    assert compiler.answer(json.dumps(REQUEST))["error"] is None


def test_a_process_that_died_is_replaced(compiler):
    compiler.answer(json.dumps(REQUEST))
    compiler._process.kill()
    compiler._process.wait()
    assert compiler.answer(json.dumps(REQUEST))["error"] is None


def test_a_compilation_can_be_given_up(compiler):
    assert compiler.answer(json.dumps(REQUEST), give_up=lambda: True)["error"]["sqlstate"] == "54000"
    assert compiler.answer(json.dumps(REQUEST))["error"] is None
