"""The random queries reach what they are to reach: every operator on every other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product

import pytest
from hypothesis import HealthCheck, find, given, settings

from tests.refresh.workload.queries import OPERATORS, paths, queries
from tests.refresh.workload.randomness import afresh
from tests.refresh.workload.sources import Path
from tests.refresh.workload.tables import Column, Relation
from tests.refresh.workload.types import BOOL, INT, JSONB, MOMENT, TEXT
from tests.refresh.workload.values import Query, chains

pytestmark = pytest.mark.property
RELATIONS = (
    Relation("r", (Column("id", INT), Column("k", INT), Column("t", TEXT), Column("at", MOMENT))),
    Relation("s", (Column("k", INT), Column("b", BOOL), Column("j", JSONB))),
)
PAIRS = frozenset(product(OPERATORS, repeat=2))
# What `make fuzz` draws; for this no server is needed.
SAMPLE = 5000
FINDING = settings(afresh(200), derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def test_paths_go_through_all_pairs_evenly() -> None:
    seen: Counter[tuple[str, ...]] = Counter()

    @settings(afresh(SAMPLE), derandomize=True, database=None)
    @given(path=paths)
    def each(path: Path) -> None:
        seen.update(pairwise(path))

    each()
    assert PAIRS - seen.keys() == set()
    usual = sum(seen.values()) / len(PAIRS)
    assert max(seen.values()) < 3 * usual


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_is_built_on_every_other(operator: str) -> None:
    for below in OPERATORS:
        find(queries(RELATIONS, (operator, below)), _has((operator, below)), settings=FINDING)


def _has(pair: Path) -> Callable[[Query], bool]:
    return lambda query: pair in set(chains(query.built, 2))
