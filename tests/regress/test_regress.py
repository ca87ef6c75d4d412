"""Of the harness itself: scripts are taken apart as psql does, and a stream table that is wrong is noticed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing import EmbeddedServer
from tests.conftest import Database
from tests.regress import trial
from tests.regress.__main__ import RENEWED_AFTER, TEMPLATE, prepare, run
from tests.regress.changes import KEPT, Changes
from tests.regress.scripts import Statement, statements
from tests.regress.trial import NAME, tried
from tests.regress.twin import Beside

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


def test_queries_are_tried_with_what_the_script_has_set(server: EmbeddedServer, tmp_path: Path) -> None:
    number = RENEWED_AFTER + 2
    queries = "".join(f"SELECT a + {place} AS b FROM t;\n" for place in range(number))
    (tmp_path / "sql").mkdir()
    script = tmp_path / "sql" / "settings.sql"
    script.write_text(
        f"CREATE SCHEMA there; CREATE TABLE there.t (a int); INSERT INTO there.t VALUES (1);\n"
        f"SET search_path = there;\n{queries}"
    )
    prepare(server, tmp_path)
    found = list(run(server, tmp_path, "settings", "DIFFERENTIAL", Random(1)))
    server.drop_database(TEMPLATE)
    assert [one.verdict for one in found] == ["kept"] * number


@pytest.fixture
def twin(bare_database: Database) -> Connection:
    return bare_database.connect()


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


@pytest.mark.parametrize(
    ("error", "verdict"), [(psycopg.errors.QueryCanceled, "slow"), (psycopg.errors.InternalError, "failed")]
)
def test_one_that_takes_long_has_not_failed(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error], verdict: str
) -> None:
    def create(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pg_trickle, "create_stream_table", create)
    found = tried(conn, "SELECT a FROM t", "DIFFERENTIAL", Random(1))
    assert found
    assert found.verdict == verdict


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


def test_tables_are_changed_in_every_way(conn: Connection) -> None:
    conn.execute("CREATE TABLE keyed (k int PRIMARY KEY, v text); INSERT INTO keyed SELECT a, b FROM t")
    changes = Changes(conn, Random(1), ["t", "keyed"], lambda _: False)
    for _ in range(200):
        with conn.transaction():
            changes.of("keyed")
            changes.of("t")
    done = "\n".join(changes.done)
    for way in (
        "DELETE FROM keyed WHERE ctid",
        "DELETE FROM keyed RETURNING",
        "DELETE FROM keyed WHERE false",
        'INSERT INTO keyed ("k", "v")',
        'INSERT INTO t ("a", "b")',
        "ON CONFLICT DO NOTHING",
        'ON CONFLICT ("k") DO UPDATE SET',
        "MERGE INTO keyed",
        "MERGE INTO t",
        'UPDATE keyed SET "k" = "k"',
        'UPDATE keyed SET ("k", "v") = (SELECT',
        'UPDATE keyed SET "v" = NULL WHERE ctid',
        "FROM d) UPDATE t SET",
        "ON CONFLICT DO NOTHING) UPDATE t SET",
        "TRUNCATE keyed",
        'COPY keyed ("k", "v") FROM STDIN',
        "-- rolled back",
    ):
        assert way in done


def test_a_statement_that_the_maintenance_alone_lets_fail_is_told(conn: Connection) -> None:
    query = "SELECT b, count(*) AS n FROM t GROUP BY b"
    pg_trickle.create_stream_table(conn, NAME, query, schedule=None, refresh_mode="IMMEDIATE")
    conn.execute(f"ALTER TABLE {NAME} ADD CHECK (n = 3)")
    changes = Changes(conn, Random(1), ["t"], lambda act: trial._fails_without(conn, query, act))

    def change() -> None:
        for _ in range(20):
            changes.of("t")

    with pytest.raises(psycopg.errors.CheckViolation):
        change()


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_a_statement_after_which_the_query_fails_is_not(conn: Connection, mode: str) -> None:
    query = "SELECT (SELECT x.b FROM t AS x WHERE x.a = y.a) AS b FROM t AS y"
    found = [tried(conn, query, mode, Random(seed)) for seed in range(3)]
    assert {one.verdict for one in found if one} == {"kept"}


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_an_equal_key_that_reads_otherwise_is_not_called_wrong(conn: Connection, mode: str) -> None:
    conn.execute("CREATE TYPE price AS (amount numeric); CREATE TABLE sold (price price)")
    conn.execute("INSERT INTO sold VALUES (ROW(1.0)), (ROW(1.00)), (ROW(1.000)), (ROW(2))")
    query = "SELECT price, count(*) AS n FROM sold GROUP BY price"
    found = [tried(conn, query, mode, Random(seed)) for seed in range(8)]
    assert {one.verdict for one in found if one} == {"kept", "spelled"}


TWINS = [
    Statement("CREATE TABLE u (k int PRIMARY KEY, v text)"),
    Statement("INSERT INTO u SELECT n, 'x' || n % 3 FROM generate_series(1, 9) AS n"),
    Statement("SELECT count(*) FROM u"),
    Statement("INSERT INTO u VALUES (1, 'again')"),
    Statement("BEGIN"),
    Statement("DELETE FROM u WHERE k < 4"),
    Statement("ROLLBACK"),
    Statement("ALTER TABLE u ALTER v TYPE varchar"),
    Statement("COPY u FROM stdin", "10\tx\n11\t\\N\n"),
    Statement("UPDATE u SET v = NULL WHERE v = 'x2'"),
]


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_statements_do_what_they_do_in_a_twin(db: Connection, twin: Connection, mode: str) -> None:
    found = list(Beside(db, twin, mode).run(TWINS))
    assert [one.query.split()[0] for one in found] == ["INSERT", "SELECT", "INSERT", "DELETE", "COPY", "UPDATE"]
    assert {one.verdict for one in found} == {"kept"}
    assert db.execute("SELECT count(*) FROM pgtrickle.pgt_stream_tables").fetchone() == (3,)


@pytest.mark.parametrize(
    ("tampering", "verdicts"),
    [
        ("ALTER TABLE {} ADD CHECK (k <> 10)", ["failed", "kept"]),
        ("DELETE FROM {} WHERE k = 5", ["wrong", "kept"]),
    ],
)
def test_a_statement_that_does_not_is_told(
    db: Connection, twin: Connection, tampering: str, verdicts: list[str]
) -> None:
    sides = Beside(db, twin, "IMMEDIATE")
    assert {one.verdict for one in sides.run([*TWINS[:3]])} == {"kept"}
    (name,) = db.execute("SELECT min(pgt_relid)::regclass::text FROM pgtrickle.pgt_stream_tables").fetchall()[0]
    db.execute(tampering.format(name).encode())
    assert [one.verdict for one in sides.run(TWINS[8:])] == verdicts
    assert db.execute("TABLE u").rowcount == twin.execute("TABLE u").rowcount == 11
