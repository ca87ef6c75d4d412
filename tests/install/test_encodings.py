"""Databases that aren't in UTF8: installing, compiling, refreshing, looking."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.install.install import install
from pg_trickle.testing.oracle import assert_fresh
from pg_trickle.worker.loop import Worker

WORKER_ROLE = "pgtrickle_worker"
ENCODINGS = ["LATIN1", "EUC_JP", "SQL_ASCII"]
QUERY = "SELECT k, {word} AS w, sum(v) AS v FROM t WHERE name <> 'x' GROUP BY k"
JOINED = "SELECT a.id, b.name FROM t AS a JOIN t AS b ON b.k = a.id"
WORDS = {"LATIN1": "é÷", "EUC_JP": "日×", "SQL_ASCII": "é…"}


@pytest.fixture(params=ENCODINGS)
def place(request, server):
    """A database of that encoding, with pg_trickle: its name, a superuser's connection, and a word of its language."""
    name = f"encoded_{request.param.lower()}"
    with server.connect() as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C' LOCALE_PROVIDER libc").format(
                sql.Identifier(name), request.param
            )
        )
    conn = psycopg.connect(server.dsn(name), autocommit=True, client_encoding="UTF8")
    try:
        if request.param == "LATIN1":
            install(conn)
        else:
            conn.execute("CREATE EXTENSION pg_trickle")
        conn.execute("SELECT pgtrickle.grant_worker(%s)", (WORKER_ROLE,))
        conn.execute("CREATE TABLE t (id int PRIMARY KEY, k int, v int, name text)")
        yield name, conn, WORDS[request.param]
    finally:
        conn.close()
        server.drop_database(name)


def test_stream_tables_work_there(place, server):
    name, conn, word = place
    query = QUERY.format(word=f"'{word}'::text")
    worker = Worker(server.dsn(name, WORKER_ROLE))
    worker.start()
    try:
        worker.wait_for(lambda: worker.is_active)
        conn.execute("SELECT pgtrickle.create_stream_table('s', %s)", (query,))
        conn.execute("SELECT pgtrickle.create_stream_table('r', 'SELECT id, random() AS r FROM t', NULL, 'FULL')")
        pg_trickle.create_stream_table(conn, "j", JOINED, refresh_mode="DIFFERENTIAL")
        pg_trickle.create_stream_table(conn, f'"{word}"', "SELECT k, w FROM s")
        conn.execute("INSERT INTO t VALUES (1, 1, 1, %s), (2, 1, 1, 'x')", (word,))
        conn.execute("UPDATE t SET name = 'y' WHERE id = 2")
        worker.wait_until_idle()
        for table in ("s", "j", f'"{word}"'):
            assert_fresh(conn, table)
        assert conn.execute("SELECT w FROM s").fetchone() == (word,)
    finally:
        worker.stop()
    (shown,) = conn.execute("SELECT pgtrickle.explain_stream_table('j')").fetchone()
    assert "JOIN" in shown
    lines = [line for (line,) in conn.execute("SELECT tree_line FROM pgtrickle.dependency_tree()")]
    assert "`-- public.s" in lines


def test_a_client_of_another_encoding_compiles_itself(db, database):
    """psycopg reads jsonb as UTF-8, whatever was agreed."""
    db.execute('CREATE TABLE "é" (id int PRIMARY KEY, name text)')
    with psycopg.connect(database.dsn, autocommit=True, client_encoding="LATIN1") as conn:
        pg_trickle.create_stream_table(conn, "s", """SELECT id, name || 'ü' AS n FROM "é" """)
        conn.execute("""INSERT INTO "é" VALUES (1, 'ö')""")
        conn.execute('ALTER TABLE "é" RENAME name TO "nö"')
        pg_trickle.refresh_stream_table(conn, "s")
    assert_fresh(db, "s")
