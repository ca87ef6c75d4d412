"""Of the harness itself: scripts are taken apart as psql does, and a stream table that is wrong is noticed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from tests.regress import trial
from tests.regress.changes import KEPT
from tests.regress.scripts import Statement, statements
from tests.regress.trial import tried

Connection = psycopg.Connection[tuple[Any, ...]]

SCRIPT = r"""
-- a comment; with a semicolon
\getenv abs_srcdir PG_ABS_SRCDIR
\set filename :abs_srcdir '/data/onek.data'
CREATE TEMP TABLE t (a int, b text) ON COMMIT PRESERVE ROWS;
COPY t FROM :'filename';
/* no statement */ COPY t (a, b) FROM stdin;
1	x;y
2	\N
\.
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$;
SELECT a FROM t WHERE b = ';' \gset
EXPLAIN (COSTS OFF) SELECT b FROM t;
SELECT a FROM t FOR UPDATE;
"""


def test_a_script_is_taken_apart(tmp_path: Path) -> None:
    script = tmp_path / "script.sql"
    script.write_text(SCRIPT)
    found = list(statements(script, Path("/there")))
    assert found == [
        Statement("CREATE TABLE t (a int, b text)"),
        Statement("COPY t FROM '/there/data/onek.data'"),
        Statement("COPY t (a, b) FROM stdin", "1\tx;y\n2\t\\N\n"),
        Statement("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$"),
        Statement("SELECT a FROM t WHERE b = ';'"),
        Statement("EXPLAIN (COSTS OFF) SELECT b FROM t"),
        Statement("SELECT a FROM t FOR UPDATE"),
    ]
    assert [one.query for one in found[4:]] == ["SELECT a FROM t WHERE b = ';'", "SELECT b FROM t", None]


@pytest.fixture
def conn(db: Connection) -> Connection:
    db.execute(
        f"CREATE SCHEMA {KEPT}; CREATE TABLE t (a int, b text, c int GENERATED ALWAYS AS (a * 2) STORED)".encode()
    )
    db.execute("INSERT INTO t SELECT n, 'x' || n % 3 FROM generate_series(1, 9) AS n")
    return db


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
@pytest.mark.parametrize(
    ("query", "verdict"),
    [
        ("SELECT b, count(*) FROM t GROUP BY b", "kept"),
        ("SELECT x.*, y.* FROM t AS x JOIN t AS y USING (a)", "kept"),
        ("SELECT a FROM t LIMIT 2", "refused"),
        ("SELECT 1 / (a - a) FROM t", None),
        ("SELECT relname FROM pg_class", None),
        ("SELECT nonsense FROM t", None),
    ],
)
def test_what_becomes_of_a_query(conn: Connection, query: str, verdict: str | None, mode: str) -> None:
    found = tried(conn, query, mode, Random(1))
    assert (found and found.verdict) == verdict
    assert conn.execute("SELECT count(*) FROM pgtrickle.pgt_stream_tables").fetchone() == (0,)


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_one_that_is_wrong_is_noticed(conn: Connection, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """As if it were never refreshed: compared with what it was before."""

    def former(conn: Connection, name: str) -> list[tuple[str, int, int]]:
        conn.execute("CREATE TABLE IF NOT EXISTS former AS SELECT count(*), sum(a), min(b) FROM t")
        now = conn.execute("TABLE former EXCEPT ALL SELECT count(*), sum(a), min(b) FROM t").fetchall()
        return [(str(row), 1, 0) for row in now]

    monkeypatch.setattr(trial, "differences", former)
    found = [tried(conn, "SELECT count(*), sum(a), min(b) FROM t", mode, Random(seed)) for seed in range(3)]
    assert "wrong" in {one.verdict for one in found if one}
    assert any("UPDATE" in one.detail or "INSERT" in one.detail for one in found if one)
