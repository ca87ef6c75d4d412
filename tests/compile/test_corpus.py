"""Golden cases: what the compiler makes of a query changes only on purpose."""

from __future__ import annotations

import pytest

from tests.compile import corpus

CASES = list(corpus.cases())


@pytest.fixture(scope="session", autouse=True)
def rewritten(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--rewrite"):
        for name in sorted({case.file for case in CASES}):
            corpus.rewrite(name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_compiler_makes_what_it_made(case, request):
    if not request.config.getoption("--rewrite"):
        assert corpus.told(case.query) == case.expected


def test_titles_are_unique():
    titles = [str(case) for case in CASES]
    assert len(titles) == len(set(titles))
