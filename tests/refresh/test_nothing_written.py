"""Rows that stay as they are aren't written: by nothing that changed, nor by what changed in vain, nor by recomputing.

Whoever reads a stream table's changes, and the disk, would have them for nothing.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.render import direct, onesided, parts, settled, single, stage
from pg_trickle.testing.oracle import assert_fresh
from tests.upkeep import last_refresh

Connection = psycopg.Connection[tuple[Any, ...]]

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, g int, x int, f float8);
INSERT INTO t SELECT n, n % 3, n % 5, n FROM generate_series(1, 30) AS n;
CREATE TABLE u (id int PRIMARY KEY, name text); INSERT INTO u SELECT n, 'u' || n FROM generate_series(0, 4) AS n;
"""
QUERIES = {
    "counters": "SELECT g, count(*) AS n, sum(x) AS s FROM t GROUP BY g",
    "counters_in_a_state": "SELECT g, avg(x) AS a FROM t GROUP BY g HAVING count(*) > 1",
    "all_rows": "SELECT count(*) AS n, sum(x) AS s FROM t",
    "extremes": "SELECT g, min(x) AS least, max(x) AS most FROM t GROUP BY g",
    "read_again": "SELECT g, string_agg(x::text, ',' ORDER BY x) AS l, sum(f) AS s FROM t GROUP BY g",
    "different": "SELECT DISTINCT g, x FROM t",
    "joined": "SELECT u.name, count(t.id) AS n FROM u LEFT JOIN t ON t.x = u.id GROUP BY u.name",
    "joined_rows": "SELECT u.name, t.g FROM u JOIN t ON t.x = u.id",
    "places": "SELECT id, rank() OVER (PARTITION BY g ORDER BY f) AS place FROM t",
    "first": "SELECT x FROM t ORDER BY x DESC, id LIMIT 4",
    "first_of_each": "SELECT DISTINCT ON (g) g, f FROM t ORDER BY g, f DESC",
    "united": "SELECT x AS k FROM t UNION SELECT id FROM u",
    "groups_of_groups": "SELECT s, count(*) AS n FROM (SELECT g, sum(x) AS s FROM t GROUP BY g) AS q GROUP BY s",
}
# The rows of t are others after each, but no query shows it: of a group, x changes places.
IN_VAIN = (
    "UPDATE t SET x = x",
    "UPDATE t SET x = x + 1 WHERE id = 7; UPDATE t SET x = x - 1 WHERE id = 7",
    "INSERT INTO t VALUES (99, 1, 1, 1); DELETE FROM t WHERE id = 99",
    "DELETE FROM t WHERE id = 5; INSERT INTO t SELECT 5, 5 % 3, 5 % 5, 5",
)
IN_TURN = "UPDATE t SET x = CASE id WHEN 3 THEN 1 ELSE 3 END WHERE id IN (3, 6)"


@pytest.fixture
def conn(db: Connection) -> Connection:
    db.execute(SETUP.encode())
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    return db


def _rows(conn: Connection, name: str) -> list[tuple[Any, ...]]:
    """Which versions of which rows a stream table and its states have."""
    states = conn.execute(
        """SELECT s.value ->> 'name' FROM pgtrickle.pgt_plans AS p JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id)
             CROSS JOIN LATERAL jsonb_array_elements(p.plan -> 'states') AS s WHERE st.pgt_name = %s""",
        (name,),
    )
    tables = [sql.Identifier("public", name), *(sql.Identifier("pgtrickle_changes", state) for (state,) in states)]
    versions = sql.SQL("SELECT {t}::regclass::text, ctid::text, xmin::text FROM {table}")
    listed = [versions.format(t=sql.Literal(table.as_string(conn)), table=table) for table in tables]
    return sorted(row for one in listed for row in conn.execute(one).fetchall())


def _written(conn: Connection, change: str) -> set[str]:
    """The stream tables in which a refresh after the change writes, or counts, any row."""
    before = {name: _rows(conn, name) for name in QUERIES}
    conn.execute(change.encode())
    for name in QUERIES:
        pg_trickle.refresh_stream_table(conn, name)
        assert_fresh(conn, name)
    return {name for name in QUERIES if _rows(conn, name) != before[name] or last_refresh(conn, name)[1] != 0}


@pytest.mark.parametrize("change", ["", *IN_VAIN])
def test_what_changed_in_vain_has_nothing_written(conn: Connection, change: str) -> None:
    assert _written(conn, change) == set()


def test_of_what_changed_what_shows_alike_is_not_written(conn: Connection) -> None:
    # Both rows are of a group; only the first of all and what is counted by x tell one from the other.
    assert conn.execute("SELECT count(DISTINCT g) FROM t WHERE id IN (3, 6)").fetchone() == (1,)
    conn.execute("UPDATE t SET x = CASE id WHEN 3 THEN 3 ELSE 1 END WHERE id IN (3, 6)")
    for name in QUERIES:
        pg_trickle.refresh_stream_table(conn, name)
    assert _written(conn, IN_TURN) == set()


def test_recomputing_writes_what_differs(conn: Connection) -> None:
    before = {name: conn.execute(f"SELECT ctid, xmin FROM {name} ORDER BY 1".encode()).fetchall() for name in QUERIES}
    for name in QUERIES:
        pg_trickle.reinitialize_stream_table(conn, name)
        pg_trickle.refresh_stream_table(conn, name)
        assert last_refresh(conn, name)[:2] == ("FULL", 0)
    after = {name: conn.execute(f"SELECT ctid, xmin FROM {name} ORDER BY 1".encode()).fetchall() for name in QUERIES}
    assert after == before


def test_rows_that_are_written_though_nothing_differs_are_noticed(db: Connection, monkeypatch) -> None:
    for module in (direct, onesided, parts, settled, single, stage):
        monkeypatch.setattr(module, "differ", lambda *_: sql.SQL("TRUE"))
    db.execute(SETUP.encode())
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("UPDATE t SET x = CASE id WHEN 3 THEN 3 ELSE 1 END WHERE id IN (3, 6)")
    for name in QUERIES:
        pg_trickle.refresh_stream_table(db, name)
    assert _written(db, IN_TURN) != set()
