"""Conditions on the time are maintained as time passes, whether rows change or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import last_refresh

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

TABLES = """
CREATE TABLE events (id int, ts timestamptz, kind text, d date, local timestamp);
CREATE INDEX ON events (ts);
CREATE TABLE kinds (kind text PRIMARY KEY, lasts interval, ends timestamptz);
INSERT INTO kinds VALUES ('a', '30 ms', clock_timestamp() + '40 ms'), ('b', '80 ms', NULL), ('c', NULL, 'infinity');
"""
# Rows whose moment is just over, or just to come: each refresh finds other ones.
ROWS = """
INSERT INTO events SELECT n, t, (ARRAY['a', 'b', 'c', NULL])[1 + n % 4], t::date, t::timestamp
  FROM (SELECT n, CASE WHEN n % 17 > 0 THEN clock_timestamp() + n * interval '7 ms' - interval '100 ms' END AS t
          FROM generate_series(1, 60) AS n) AS r
"""
QUERIES = {
    "past": "SELECT id, ts FROM events WHERE ts <= now()",
    "window": "SELECT id, kind FROM events"
    " WHERE ts > now() - interval '50 ms' AND kind <> 'c' AND ts < now() + interval '50 ms'",
    "between": "SELECT id FROM events"
    " WHERE ts BETWEEN CURRENT_TIMESTAMP - interval '60 ms' AND transaction_timestamp()",
    "either": "SELECT id FROM events WHERE kind = 'a' OR ts > now() OR NOT ts > now() - interval '1 hour'",
    "expression": "SELECT id FROM events WHERE now() - ts < interval '20 ms'",
    "null passes": "SELECT id, ts FROM events WHERE (ts > now()) IS NOT TRUE",
    "local": "SELECT id FROM events WHERE local < LOCALTIMESTAMP(3)"
    " AND local > (now() AT TIME ZONE 'Pacific/Apia') - interval '9 days'",
    "dates": "SELECT id FROM events WHERE d = CURRENT_DATE AND local::time < LOCALTIME AND d < CURRENT_DATE + 1",
    "counts": "SELECT kind, count(*) AS n, max(id) AS last FROM events WHERE ts < now() GROUP BY kind",
    "total": "SELECT count(*) AS n, sum(id) AS s FROM events WHERE ts < now()",
    "distinct": "SELECT DISTINCT kind FROM events WHERE ts > now()",
    "having": "SELECT kind, max(ts) AS last FROM events GROUP BY kind"
    " HAVING max(ts) - interval '150 ms' < now() AND count(*) > 1",
    "join": "SELECT e.id, k.lasts FROM events e JOIN kinds k ON k.kind = e.kind AND e.ts > now() - k.lasts",
    "both sides": "SELECT e.id, k.kind FROM events e JOIN kinds k USING (kind) WHERE k.ends > now() AND e.ts < now()",
    "outer": "SELECT k.kind, e.id FROM kinds k LEFT JOIN (SELECT * FROM events WHERE ts < now()) e ON e.kind = k.kind",
    "exists": "SELECT k.kind FROM kinds k WHERE EXISTS (SELECT FROM events e WHERE e.kind = k.kind AND e.ts > now())",
    "correlated": "SELECT k.kind FROM kinds k"
    " WHERE NOT EXISTS (SELECT FROM events e WHERE e.kind = k.kind AND e.ts > now() - k.lasts)",
    "single": "SELECT k.kind, (SELECT max(e.id) FROM events e WHERE e.kind = k.kind AND e.ts < now()) AS last"
    " FROM kinds k",
    "first": "SELECT id, ts FROM events WHERE ts > now() ORDER BY ts, id LIMIT 3",
    "ranked": "SELECT id, rank() OVER (PARTITION BY kind ORDER BY id) AS r FROM events WHERE ts < now()",
    "except": "SELECT id FROM events EXCEPT SELECT id FROM events WHERE ts < now()",
    "union": "SELECT id FROM events WHERE ts > now() UNION ALL SELECT -id FROM events WHERE ts <= now()",
    "shown": "SELECT id, now() AS at, CURRENT_DATE - d AS days FROM events WHERE id < 5",
    "told": "SELECT id, CASE WHEN ts > now() THEN 'to come' WHEN ts IS NOT NULL THEN 'over' END AS state FROM events",
    "filtered": "SELECT kind, count(*) FILTER (WHERE ts < now()) AS past FROM events GROUP BY kind",
    "filters": "SELECT kind, count(*) FILTER (WHERE ts < now()) AS past, count(*) AS n, sum(id) AS s,"
    " count(*) FILTER (WHERE ts > now() - interval '50 ms' AND id > 9) AS young,"
    " max(id) FILTER (WHERE ts < now()) AS m,"
    " sum(id) FILTER (WHERE ts < now() - interval '20 ms') AS o, min(id) FILTER (WHERE id < 40) AS f"
    " FROM events GROUP BY kind",
    "filtered values": "SELECT count(DISTINCT kind) FILTER (WHERE ts > now()) AS k, count(DISTINCT kind) AS every,"
    " avg(id) FILTER (WHERE ts <= now()) AS a, bool_or(kind = 'a') FILTER (WHERE ts <= now()) AS b FROM events",
    "filtered sets": "SELECT kind, d, count(*) FILTER (WHERE ts < now()) AS past FROM events GROUP BY ROLLUP (kind, d)",
    "filter in having": "SELECT kind, count(*) AS n FROM events GROUP BY kind"
    " HAVING count(*) FILTER (WHERE ts < now() - interval '30 ms') > 3 AND max(ts) > now() - interval '1 h'",
    "filtered matches": "SELECT k.kind, count(e.id) FILTER (WHERE e.ts < now() - k.lasts) AS past, count(e.id) AS n"
    " FROM kinds k LEFT JOIN events e ON e.kind = k.kind GROUP BY k.kind",
    "gathered": "SELECT kind, count(*) FILTER (WHERE ts < now()) AS past, array_agg(id ORDER BY id) AS ids"
    " FROM events GROUP BY kind",
    "matched": "SELECT k.kind, e.id FROM kinds k LEFT JOIN events e ON e.kind = k.kind AND e.ts < now() - k.lasts",
    "told in part": "SELECT k.kind, q.over FROM kinds k JOIN"
    " (SELECT kind, ts < now() AS over FROM events) q USING (kind)",
    "by a subquery": "SELECT id FROM events WHERE ts < (SELECT now() - max(k.lasts) FROM kinds k)",
    "view": "SELECT kind, count(*) AS n FROM recent GROUP BY kind",
}  # fmt: skip


def name_of(query: str) -> str:
    return query.replace(" ", "_")


@pytest.mark.versions
def test_as_time_passes(db: Connection, assert_fresh: Oracle) -> None:
    """Refreshed at different moments, each equals its query at that moment, and nothing is recomputed for it."""
    db.execute(TABLES)
    db.execute("CREATE VIEW recent AS SELECT * FROM events WHERE ts >= now() - interval '70 ms'")
    db.execute(ROWS)
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name_of(name), query, schedule=None, refresh_mode="DIFFERENTIAL")
    for step in (
        "SELECT 1",
        "UPDATE events SET ts = clock_timestamp() + interval '20 ms' WHERE id % 5 = 0",
        "DELETE FROM events WHERE id % 7 = 0",
        "UPDATE kinds SET ends = clock_timestamp() + interval '60 ms' WHERE kind = 'b'",
        f"{ROWS}; DELETE FROM kinds WHERE kind = 'a'",
        "SELECT 1",
    ):
        db.execute(step.encode())
        for name in QUERIES:
            with db.transaction():
                pg_trickle.refresh_stream_table(db, name_of(name))
                assert_fresh(db, name_of(name))
    modes = db.execute("SELECT DISTINCT refresh_mode FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'MANUAL'")
    assert modes.fetchall() == [("DIFFERENTIAL",)]
    (written,) = db.execute(
        "SELECT sum(rows_out) FROM pgtrickle.pgt_refresh_history WHERE rows_in = 0 AND initiated_by = 'MANUAL'"
    ).fetchone() or (0,)
    assert written > 0, "time moved nothing: the test proves nothing"


def test_without_an_index_and_far_apart(db: Connection, assert_fresh: Oracle) -> None:
    """The last refresh may be long ago: what has passed since is found from there."""
    db.execute(
        "CREATE TABLE t (id int, ts timestamptz);"
        "INSERT INTO t SELECT n, now() - n * interval '1 h' FROM generate_series(1, 99) AS n"
    )
    pg_trickle.create_stream_table(db, "s", "SELECT id FROM t WHERE ts > now() - interval '50 hours'", schedule=None)
    with db.transaction():
        # As if it had been refreshed 20 hours ago, when rows 1 to 20 were still to come and up to 69 were in.
        db.execute("UPDATE pgtrickle.pgt_stream_tables SET frontier_time = frontier_time - interval '20 h'")
        db.execute("INSERT INTO s SELECT n FROM generate_series(50, 69) AS n")
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")
    assert db.execute("SELECT count(*) FROM s").fetchone() == (49,)


@pytest.mark.parametrize("query", ["SELECT id FROM t WHERE statement_timestamp() > ts", "SELECT id, age(ts) FROM t"])
def test_time_that_no_refresh_shares_is_recomputed(db: Connection, query: str) -> None:
    db.execute("CREATE TABLE t (id int, ts timestamptz); INSERT INTO t VALUES (1, now())")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        pg_trickle.create_stream_table(db, "s", query, refresh_mode="DIFFERENTIAL")
    pg_trickle.create_stream_table(db, "s", query)
    pg_trickle.refresh_stream_table(db, "s")
    assert last_refresh(db, "s")[0] == "FULL"


def test_a_part_that_shows_the_time_is_run_at_each_refresh_though_nothing_changed(db: Connection) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    query = "SELECT t.id, q.at FROM t JOIN (SELECT id, now() AS at FROM t WHERE id > 1) AS q USING (id)"
    pg_trickle.create_stream_table(db, "s", query, schedule=None, refresh_mode="DIFFERENTIAL")
    tree = db.execute("SELECT plan #> '{explain,tree}' FROM pgtrickle.pgt_plans").fetchone() or ([],)
    assert [line["cost"] for line in tree[0] if line["operator"] == "Query"] == [
        "all rows that this part reads, at each refresh"
    ]
    pg_trickle.refresh_stream_table(db, "s")
    assert last_refresh(db, "s") == ("DIFFERENTIAL", 2, None)


def test_no_statement_tells_that_time_has_passed(db: Connection) -> None:
    db.execute("CREATE TABLE t (id int, ts timestamptz)")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="IMMEDIATE"):
        pg_trickle.create_stream_table(db, "s", "SELECT id FROM t WHERE ts < now()", refresh_mode="IMMEDIATE")


def test_explain_says_how(db: Connection) -> None:
    db.execute("CREATE TABLE t (id int, ts timestamptz)")
    pg_trickle.create_stream_table(
        db, "s", "SELECT id FROM t WHERE ts > now() - interval '1 hour' AND now() - ts < interval '5 h'"
    )
    (told,) = db.execute(
        "SELECT string_agg(x::text, E'\\n') FROM pgtrickle.explain_stream_table('s') AS x"
    ).fetchone() or ("",)
    assert "Filter by time" in told
    assert "a range of ts" in told
    assert "reading all" in told
    assert "condition on time" in told


def test_filters_on_the_time_are_maintained(db: Connection) -> None:
    db.execute(TABLES)
    for name in ("filtered", "filters", "filtered values", "filtered sets", "filter in having", "filtered matches"):
        pg_trickle.create_stream_table(db, name_of(name), QUERIES[name], schedule=None, refresh_mode="DIFFERENTIAL")
    trees = db.execute("SELECT plan #> '{explain,tree}' FROM pgtrickle.pgt_plans").fetchall()
    assert not [line for (tree,) in trees for line in tree if line["operator"] == "Query"]


def test_a_filter_on_the_time_beside_a_type_of_ones_own(db: Connection, assert_fresh: Oracle) -> None:
    """Where time alone brings rows, nothing says of which type the NULLs are that they have of it."""
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE t (id int, ts timestamptz, m mood)")
    db.execute(
        "INSERT INTO t SELECT n, clock_timestamp() + n * interval '20 ms', 'glad' FROM generate_series(1, 9) AS n"
    )
    for name, others in (
        ("plain", "max(m) AS m"),
        ("once", "count(DISTINCT m) FILTER (WHERE ts < now()) AS m, min(m)"),
    ):
        query = f"SELECT count(*) FILTER (WHERE ts < now()) AS n, {others} FROM t"
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
        for _ in range(3):
            with db.transaction():
                pg_trickle.refresh_stream_table(db, name)
                assert_fresh(db, name)


def test_the_worker_goes_by_the_clock(db: Connection, worker: Any) -> None:
    """Nobody writes, and yet rows come and go; and what reads them follows."""
    db.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('default_schedule_seconds', '0.05')")
    db.execute("CREATE TABLE t (id int, ts timestamptz)")
    pg_trickle.create_stream_table(db, "s", "SELECT id FROM t WHERE ts < now()")
    pg_trickle.create_stream_table(db, "above", "SELECT count(*) AS n FROM s")
    db.execute("INSERT INTO t SELECT n, clock_timestamp() + n * interval '150 ms' FROM generate_series(1, 4) AS n")
    worker.wait_for(lambda: db.execute("SELECT n FROM above").fetchone() == (4,))
    (growing,) = db.execute(
        """SELECT count(*) FROM pgtrickle.pgt_refresh_history
            WHERE pgt_name = 's' AND initiated_by = 'SCHEDULER' AND rows_in = 0 AND rows_out > 0"""
    ).fetchone() or (0,)
    assert growing >= 2
