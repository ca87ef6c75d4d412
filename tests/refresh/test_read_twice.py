"""What a query reads twice by name has its stages once, whatever stands around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.refresh.recursions import TABLES
from tests.refresh.test_recursion import START, STEPS, refreshed
from tests.upkeep import check_reason

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

GROUPS = "WITH w AS (SELECT a, count(*) AS n, max(b) AS m FROM edges GROUP BY a)"
# How many stages each has: what the names stand for, and what is made of them.
QUERIES = {
    f"{GROUPS} SELECT x.a, y.n FROM w AS x JOIN w AS y ON x.n = y.n AND x.a < y.a": 1,
    f"{GROUPS} SELECT w.a FROM w WHERE w.n = (SELECT max(v.n) FROM w AS v)": 2,
    f"{GROUPS} SELECT w.a FROM w WHERE w.n > 1 OR EXISTS (SELECT FROM w AS v WHERE v.a = w.m)": 1,
    f"{GROUPS} SELECT w.a FROM w WHERE w.a NOT IN (SELECT v.m FROM w AS v WHERE v.n > 1)": 1,
    f"{GROUPS} SELECT w.a, v.n FROM w LEFT JOIN w AS v ON v.a = w.m": 1,
    f"{GROUPS} SELECT w.a, v.n FROM w FULL JOIN w AS v ON v.a = w.m": 1,
    f"{GROUPS} SELECT a FROM w UNION ALL SELECT m FROM w WHERE n > 1": 1,
    f"{GROUPS} SELECT a FROM w EXCEPT SELECT m FROM w": 2,
    f"{GROUPS} SELECT r.id, q.n FROM roots AS r, LATERAL (SELECT w.n FROM w WHERE w.a = r.id UNION ALL"
    " SELECT v.m FROM w AS v WHERE v.m = r.kind) AS q": 2,
    f"{GROUPS}, v AS (SELECT w.n, count(*) AS c FROM w GROUP BY w.n)"
    " SELECT w.a, x.c, y.c AS d FROM w JOIN v AS x ON x.n = w.n LEFT JOIN v AS y ON y.n = x.c": 2,
    "WITH w AS (SELECT a, b, rank() OVER (PARTITION BY a ORDER BY b) AS r FROM edges)"
    " SELECT x.a, x.r, y.b FROM w AS x JOIN w AS y ON y.a = x.b": 1,
    "WITH w AS (SELECT DISTINCT a, b FROM edges) SELECT x.a, y.b FROM w AS x JOIN w AS y ON y.a = x.b": 1,
    "WITH w AS (SELECT a, b FROM edges ORDER BY a, b LIMIT 3) SELECT x.a, y.b FROM w AS x CROSS JOIN w AS y": 1,
    "SELECT x.a, y.n FROM counted AS x JOIN counted AS y ON y.a = x.m": 1,
    "SELECT x.id, y.kind FROM kept AS x LEFT JOIN kept AS y ON y.id = x.kind": 1,
    "WITH RECURSIVE w AS (SELECT 1 AS id UNION SELECT e.b FROM w JOIN edges AS e ON e.a = w.id)"
    " SELECT x.id, y.id AS other FROM w AS x JOIN w AS y ON x.id < y.id": 1,
    "WITH RECURSIVE w AS (SELECT 1.0 AS id UNION SELECT e.b FROM w JOIN edges AS e ON e.a = w.id)"
    " SELECT x.id, y.id AS other FROM w AS x JOIN w AS y ON x.id < y.id": 1,
}


def test_what_is_read_twice_is_kept_once(db: Connection, assert_fresh: Oracle) -> None:
    db.execute((TABLES + START).encode())
    db.execute("CREATE VIEW counted AS SELECT a, count(*) AS n, max(b) AS m FROM edges GROUP BY a")
    db.execute("CREATE MATERIALIZED VIEW kept AS SELECT * FROM roots")
    for place, (query, stages) in enumerate(QUERIES.items()):
        pg_trickle.create_stream_table(db, f"st{place}", query, schedule=None)
        assert _stages(db, f"st{place}") == stages, query
    for step in STEPS:
        db.execute(step.encode())
        db.execute("REFRESH MATERIALIZED VIEW kept")
        for place in range(len(QUERIES)):
            refreshed(db, f"st{place}", assert_fresh)


def _stages(conn: Connection, name: str) -> int:
    row = conn.execute(
        "SELECT jsonb_array_length(plan -> 'states') FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables"
        " USING (pgt_id) WHERE pgt_name = %s",
        (name,),
    ).fetchone()
    assert row is not None
    found: int = row[0]
    return found


def test_what_is_named_too_often_is_run_and_kept_where_a_stream_table_is_between(
    db: Connection, assert_fresh: Oracle
) -> None:
    """The way out that the note tells."""
    db.execute((TABLES + START).encode())
    first = "SELECT DISTINCT ON (x.a) x.a, y.b FROM {0} AS x JOIN {0} AS y ON y.a = x.a ORDER BY x.a, y.b"
    rows = "SELECT x.a, y.b FROM {0} AS x JOIN {0} AS y ON y.a = x.a AND y.b = x.b"

    def chain(bottom: str, number: int) -> str:
        parts = [f"w0 AS ({bottom})", *(f"w{n} AS ({rows.format(f'w{n - 1}')})" for n in range(1, number + 1))]
        return f"WITH {', '.join(parts)} SELECT * FROM w{number}"

    pg_trickle.create_stream_table(db, "whole", chain(first.format("edges"), 9), schedule=None)
    assert "is named very often" in str(db.execute("SELECT pgtrickle.explain_stream_table('whole')").fetchall())
    pg_trickle.create_stream_table(db, "half", chain(first.format("edges"), 5), schedule=None)
    pg_trickle.create_stream_table(db, "other", chain("SELECT * FROM half", 4), schedule=None)
    assert "is named very often" not in str(db.execute("SELECT pgtrickle.explain_stream_table('other')").fetchall())
    for step in STEPS:
        db.execute(step.encode())
        for name in ("whole", "half", "other"):
            refreshed(db, name, assert_fresh)


def test_changes_of_what_is_named_twice_at_each_level_do_not_multiply(db: Connection) -> None:
    """A row that changed would be millions of rows, of which two are left."""
    db.execute("CREATE TABLE pairs (a int, b int); INSERT INTO pairs SELECT i, i FROM generate_series(1, 9) AS i")
    for join in ("JOIN", "LEFT JOIN"):
        rows = f"SELECT x.a, y.b FROM {{0}} AS x {join} {{0}} AS y ON y.a = x.a"
        levels = [f"w{n} AS ({rows.format('pairs' if n == 1 else f'w{n - 1}')})" for n in range(1, 5)]
        query = f"WITH {', '.join(levels)} SELECT * FROM w4"
        pg_trickle.create_stream_table(db, f"at_once_{join[0].lower()}", query, refresh_mode="IMMEDIATE")
        pg_trickle.create_stream_table(db, f"later_{join[0].lower()}", query, schedule=None)
    for step in (
        "UPDATE pairs SET b = b + 1 WHERE a < 3",
        "INSERT INTO pairs VALUES (20, 1), (NULL, 3); DELETE FROM pairs WHERE a = 5",
        "UPDATE pairs SET a = 7 WHERE a = 8",
        "UPDATE pairs SET a = 8 WHERE ctid = (SELECT max(ctid) FROM pairs WHERE a = 7)",
    ):
        db.execute(step.encode())
        for name in ("at_once_j", "later_j", "at_once_l", "later_l"):
            if name.startswith("later"):
                pg_trickle.refresh_stream_table(db, name)
                check_reason(db, name)
            assert differences(db, name) == [], (name, step)


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_changes_of_many_figures_beside_each_other_do_not_multiply(db: Connection, mode: str) -> None:
    """Each is a row that goes and one that comes; the row of them all would be 3¹⁷ rows, of which two are left."""
    db.execute("CREATE TABLE pairs (a int, b int); INSERT INTO pairs SELECT i, i FROM generate_series(1, 20) AS i")
    figures = ", ".join(f"(SELECT sum(b) FROM pairs WHERE a <> {n}) AS s{n}" for n in range(18))
    pg_trickle.create_stream_table(db, "figures", f"SELECT {figures}", schedule=None, refresh_mode=mode)
    for step in (
        "UPDATE pairs SET b = b + 1",
        "INSERT INTO pairs VALUES (30, 7)",
        "DELETE FROM pairs WHERE a > 3",
        "DELETE FROM pairs",
    ):
        db.execute(step.encode())
        if mode == "DIFFERENTIAL":
            pg_trickle.refresh_stream_table(db, "figures")
            check_reason(db, "figures")
        assert differences(db, "figures") == [], step
