"""Materialized views and foreign tables: no trigger watches them, so each refresh compares them with what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

TABLES = """
CREATE TABLE sold (id int, item text, price numeric, secret text);
CREATE TABLE items (item text PRIMARY KEY, kind text);
INSERT INTO sold VALUES (1, 'a', 1.0, ''), (1, 'a', 1.0, ''), (2, 'b', NULL, ''), (3, NULL, 3, '');
INSERT INTO items VALUES ('a', 'x'), ('b', 'y');
"""
MATERIALIZED = "CREATE MATERIALIZED VIEW there AS SELECT id, item, price, secret FROM sold"
QUERIES = {
    "rows": "SELECT id, item, price FROM there",
    "some": "SELECT item, price FROM there WHERE id > 1 AND price IS NOT NULL",
    "sums": "SELECT item, count(*) AS n, sum(price) AS price, max(id) AS last FROM there GROUP BY item",
    "kinds": "SELECT i.kind, t.id, t.price FROM items i JOIN there t ON t.item = i.item",
    "outer_rows": "SELECT i.item, t.price FROM items i LEFT JOIN there t ON t.item = i.item AND t.id < 5",
    "twice": "SELECT a.id, b.item FROM there a JOIN there b ON a.id = b.id + 1",
    "counted": "SELECT count(*) AS n FROM there",
}
CHANGES = (
    "INSERT INTO sold VALUES (1, 'a', 1.0, ''), (4, 'b', 4, '')",
    "UPDATE items SET kind = 'z' WHERE item = 'a'; DELETE FROM sold WHERE ctid = '(0,1)'",
    "UPDATE sold SET price = 1.00, item = 'b' WHERE id = 1",
    "UPDATE sold SET secret = 'of no matter'",
    "TRUNCATE sold",
    "INSERT INTO sold SELECT n % 7, 'a', n % 3, '' FROM generate_series(1, 50) AS n",
)


def refreshed(db: Connection, assert_fresh: Oracle, names: Any) -> None:
    for name in names:
        pg_trickle.refresh_stream_table(db, name)
        assert_fresh(db, name)
    modes = db.execute(
        "SELECT DISTINCT refresh_mode, reason FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'MANUAL'"
    )
    assert modes.fetchall() == [("DIFFERENTIAL", None)]


@pytest.mark.versions
def test_materialized_views(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(TABLES)
    db.execute(MATERIALIZED)
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    pg_trickle.create_stream_table(db, "above", "SELECT last, count(*) AS n FROM sums GROUP BY last", schedule=None)
    for change in CHANGES:
        db.execute(change.encode())
        refreshed(db, assert_fresh, QUERIES)
        db.execute("REFRESH MATERIALIZED VIEW there")
        refreshed(db, assert_fresh, [*QUERIES, "above"])
    refreshed(db, assert_fresh, QUERIES)
    (written,) = db.execute(
        "SELECT sum(h.rows_out) FROM"
        " (SELECT rows_out FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 7) AS h"
    ).fetchone() or (None,)
    assert written == 0, "nothing had changed, and yet rows were written"


def test_foreign_tables(db: Connection, database: Any, assert_fresh: Oracle) -> None:
    """In the same server: what matters is that nothing tells of changes, and that NOT NULL is not enforced."""
    db.execute("CREATE EXTENSION postgres_fdw")
    db.execute(TABLES)
    options = {"host": db.info.host, "port": str(db.info.port), "dbname": database.name}
    listed = sql.SQL(", ").join(sql.SQL("{k} {v}").format(k=sql.SQL(k), v=sql.Literal(v)) for k, v in options.items())
    db.execute(sql.SQL("CREATE SERVER loop FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({o})").format(o=listed))
    db.execute("CREATE USER MAPPING FOR postgres SERVER loop OPTIONS (user 'postgres')")
    db.execute(
        "CREATE FOREIGN TABLE there (id int, item text NOT NULL, price numeric, secret text)"
        " SERVER loop OPTIONS (table_name 'sold')"
    )
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    for change in CHANGES:
        db.execute(change.encode())
        refreshed(db, assert_fresh, QUERIES)


def test_explain_says_so(db: Connection) -> None:
    db.execute(TABLES)
    db.execute(MATERIALIZED)
    pg_trickle.create_stream_table(db, "s", QUERIES["kinds"])
    (told,) = db.execute(
        "SELECT string_agg(x::text, E'\\n') FROM pgtrickle.explain_stream_table('s') AS x"
    ).fetchone() or ("",)
    assert "No trigger watches materialized view public.there" in told
    assert "read as a whole at each refresh" in told
    assert db.execute("SELECT source_table, cdc_mode FROM pgtrickle.list_sources('s') ORDER BY 1").fetchall() == [
        ("public.items", "trigger"),
        ("public.there", "none"),
    ]
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="IMMEDIATE"):
        pg_trickle.create_stream_table(db, "t", QUERIES["rows"], refresh_mode="IMMEDIATE")


def test_the_worker_looks_again(db: Connection, worker: Any) -> None:
    db.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('default_schedule_seconds', '0.05')")
    db.execute(TABLES)
    db.execute(MATERIALIZED)
    pg_trickle.create_stream_table(db, "s", QUERIES["counted"])
    db.execute("INSERT INTO sold VALUES (9, 'z', 0, ''); REFRESH MATERIALIZED VIEW there")
    worker.wait_for(lambda: db.execute("SELECT n FROM s").fetchone() == (5,))


def test_only_what_the_owner_may_read(db: Connection, database: Any) -> None:
    database.make_role("author")
    db.execute(TABLES)
    db.execute(MATERIALIZED)
    db.execute("GRANT SELECT (id, item) ON there TO author; GRANT CREATE ON SCHEMA public TO author")
    db.execute(
        "GRANT USAGE ON SCHEMA pgtrickle TO author; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO author"
    )
    author = database.connect("author")
    pg_trickle.create_stream_table(author, "s", "SELECT id, item FROM there WHERE id < 3", refresh_mode="DIFFERENTIAL")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pg_trickle.create_stream_table(author, "t", "SELECT secret FROM there")
    db.execute("REVOKE SELECT (item) ON there FROM author; REFRESH MATERIALIZED VIEW there")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pg_trickle.refresh_stream_table(author, "s")
