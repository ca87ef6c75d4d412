"""Rows that are grouped by, partitioned by and counted once each, by their fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.parse import canonical, distinct_arguments
from tests.upkeep import check_kept, is_noticed

Connection = psycopg.Connection[Any]

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, g int, a int, b text, n numeric);
INSERT INTO t SELECT i, i % 3, nullif(i % 4, 0), nullif('v' || i % 2, 'v1'), i % 2 FROM generate_series(1, 20) AS i;
INSERT INTO t VALUES (30, NULL, NULL, NULL, 1.00), (31, NULL, NULL, NULL, 1.0), (32, 0, 1, 'v0', NULL);
"""
COUNTED = "SELECT g, count(DISTINCT (a, b)) AS n FROM t GROUP BY g"
SETS = "SELECT a, count(DISTINCT (g, b)) AS n FROM t GROUP BY ROLLUP (a)"
QUERIES = (
    SETS,
    COUNTED,
    "SELECT count(DISTINCT ROW(a)) AS rows, count(DISTINCT a) AS values FROM t",
    "SELECT count(DISTINCT (a, b)) AS n, sum(a) AS s, count(DISTINCT (b, a)) AS m, count(*) AS c FROM t",
    "SELECT g, count(DISTINCT (g, a)) FILTER (WHERE b IS NULL) AS n, count(DISTINCT (a, n)) AS m, sum(a) AS s"
    " FROM t GROUP BY g",
    "SELECT g, count(DISTINCT (a, ROW(b, 1), n)) AS n, max(a) AS m FROM t GROUP BY g",
    "SELECT g, array_agg(id ORDER BY id) AS ids, count(DISTINCT (a, b)) AS n FROM t GROUP BY g",
    "SELECT count(*) AS n, sum(g) AS s FROM t GROUP BY ROW(a, b)",
    "SELECT ROW(a, b)::text AS r, count(*) AS n FROM t GROUP BY ROW(a, b) HAVING ROW(a, b)::text <> '(2,v0)'",
    "SELECT count(*) AS n FROM t GROUP BY ROW(a, ROW(b, 5), g), ROW(g)",
    "SELECT count(*) AS c, max(id) AS m FROM t GROUP BY ROW(n, g)",
    "SELECT sum(c) AS s FROM (SELECT ROW(g, a) AS r, count(*) AS c FROM t GROUP BY ROW(g, a)) AS q WHERE r > ROW(0, 1)",
    "SELECT id, rank() OVER (PARTITION BY ROW(a, b) ORDER BY id) AS r, count(*) OVER w AS n FROM t"
    " WINDOW w AS (PARTITION BY ROW(b, g))",
)
STEPS = (
    "INSERT INTO t VALUES (40, 0, NULL, NULL, 1), (41, 0, NULL, NULL, 1.000), (42, 1, 5, 'v0', 2)",
    "UPDATE t SET a = 1, b = NULL WHERE g = 1; DELETE FROM t WHERE id IN (1, 2, 30)",
    "UPDATE t SET g = g + 1; UPDATE t SET b = 'v0' WHERE a IS NULL",
    "DELETE FROM t WHERE a = 1; UPDATE t SET n = n + 0.00 WHERE id > 10",
    "DELETE FROM t",
)


@pytest.mark.versions
def test_rows_are_told_apart_by_their_fields(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES, STEPS)
    recomputed = "SELECT count(*) FROM pgtrickle.pgt_plans WHERE plan::text LIKE '%recomputed and diffed%'"
    assert db.execute(recomputed).fetchone() == (0,)


BREAKS: dict[str, tuple[str, object, str, Callable[..., Any]]] = {
    "a field left out of the groups": (
        "SELECT count(*) AS n FROM t GROUP BY ROW(a, b)", canonical, "fields",
        lambda whole: lambda node: whole(node)[:1]),
    "a row counted by its first field": (
        COUNTED, distinct_arguments, "_values", lambda whole: lambda plan, keys, wanted, rows, namer: whole(
            plan, keys, replace(wanted, arguments=wanted.arguments[:1]), rows, namer)),
    "a row counted that only gives a set of groups its own": (
        SETS, distinct_arguments, "_values", lambda whole: lambda plan, keys, wanted, rows, namer: whole(
            plan, keys, replace(wanted, conditions=()), rows, namer)),
}  # fmt: skip


@pytest.mark.parametrize(("query", "module", "name", "broken"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_noticed(db: Connection, monkeypatch, query, module, name, broken) -> None:
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    assert is_noticed(db, "st", STEPS)
