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
    "turned round": "SELECT id FROM events WHERE ts + interval '30 ms' > now()"
    " AND extract(epoch FROM now() - ts) < 0.05"
    " AND age(now(), ts) < interval '1 day' AND local::timestamptz > now() - interval '40 ms'",
    "of today": "SELECT id FROM events WHERE ts::date = CURRENT_DATE AND date_trunc('hour', ts) <= now()"
    " AND now() - local < interval '10 ms'",
    "named": "WITH t AS (SELECT now() - interval '30 ms' AS since, now() AS n)"
    " SELECT e.id FROM events e CROSS JOIN t WHERE e.ts > t.since AND (e.ts < t.n OR e.kind = 'a')",
    "named beside": "SELECT k.kind FROM kinds k, (SELECT now() AS n) t"
    " WHERE EXISTS (SELECT FROM events e WHERE e.kind = k.kind AND e.ts BETWEEN t.n - interval '9 ms' AND t.n)",
    "of a subquery": "SELECT k.kind, e.id FROM kinds k LEFT JOIN events e"
    " ON e.kind = k.kind AND e.ts > (SELECT now() - interval '20 ms') WHERE k.ends > (SELECT now()) OR e.id < 9",
    "in ranges": "SELECT id FROM (SELECT id, tstzrange(ts, ts + interval '30 ms') AS r FROM events) AS q"
    " WHERE r @> now()",
    "null passes": "SELECT id, ts FROM events WHERE (ts > now()) IS NOT TRUE",
    "local": "SELECT id FROM events WHERE local < LOCALTIMESTAMP(3)"
    " AND local > (now() AT TIME ZONE 'Pacific/Apia') - interval '9 days'",
    "dates": "SELECT id FROM events WHERE d = CURRENT_DATE AND local::time < LOCALTIME AND d < CURRENT_DATE + 1",
    "counts": "SELECT kind, count(*) AS n, max(id) AS last FROM events WHERE ts < now() GROUP BY kind",
    "total": "SELECT count(*) AS n, sum(id) AS s FROM events WHERE ts < now()",
    "distinct": "SELECT DISTINCT kind FROM events WHERE ts > now()",
    "having": "SELECT kind, max(ts) AS last FROM events GROUP BY kind"
    " HAVING max(ts) - interval '150 ms' < now() AND count(*) > 1",
    "having a late one": "SELECT kind, max(ts) AS last, min(ts) > now() AS to_come FROM events GROUP BY kind"
    " HAVING max(ts) > now() - interval '20 ms' OR age(now(), min(ts)) < interval '30 ms'",
    "groups of late ones": "SELECT q.k FROM (SELECT id % 9 AS k, max(ts) AS t FROM events GROUP BY 1) q"
    " WHERE q.t BETWEEN now() - interval '30 ms' AND now()",
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
    "left": "SELECT k.kind, e.id FROM kinds k LEFT JOIN events e ON e.kind = k.kind AND e.ts < now()",
    "left in part": "SELECT k.kind, e.id FROM kinds k LEFT JOIN events e ON e.kind = k.kind"
    " AND (e.ts < now() - interval '20 ms' OR e.id < 9) AND k.ends > now()",
    "full": "SELECT k.kind, e.id FROM kinds k FULL JOIN (SELECT *, ts < now() AS over FROM events) e"
    " ON e.kind = k.kind AND e.over",
    "left about both": "SELECT k.kind, e.id FROM kinds k LEFT JOIN events e"
    " ON e.kind = k.kind AND e.ts < now() - k.lasts",
    "right about both": "SELECT k.kind, e.id FROM kinds k RIGHT JOIN events e ON e.kind = k.kind"
    " AND (e.ts < now() - k.lasts OR k.ends < now())",
    "full about both": "SELECT k.kind, e.id FROM kinds k FULL JOIN events e"
    " ON e.kind = k.kind AND e.ts < now() - k.lasts",
    "lateral about both": "SELECT k.kind, e.id FROM kinds k LEFT JOIN LATERAL"
    " (SELECT * FROM events e WHERE e.kind = k.kind) e ON e.ts < now() - k.lasts",
    "by case": "SELECT kind, sum(CASE WHEN ts < now() THEN 1 ELSE 0 END) AS past, count(*) AS n,"
    " avg(CASE WHEN ts > now() - interval '50 ms' AND id > 9 THEN id END) AS young FROM events GROUP BY kind",
    "gathered in part": "SELECT kind, array_agg(id ORDER BY id) FILTER (WHERE ts < now()) AS past,"
    " string_agg(CASE WHEN ts > now() THEN 'x' ELSE '-' END, '' ORDER BY id, ts) AS line FROM events GROUP BY kind",
    "grouped": "SELECT CASE WHEN ts < now() - interval '30 ms' THEN 'old' WHEN ts < now() THEN 'new' ELSE 'none' END"
    " AS age, kind, count(*) AS n, max(id) AS last FROM events GROUP BY 1, kind HAVING count(*) > 1",
    "over groups": "SELECT kind, max(ts) > now() + interval '280 ms' AS active, min(ts) < now() AS begun FROM events"
    " GROUP BY kind",
    "over matches": "SELECT k.kind,"
    " COALESCE((SELECT max(e.ts) FROM events e WHERE e.kind = k.kind) > now(), false) AS a,"
    " (SELECT bool_or(e.ts < now() - k.lasts) FROM events e WHERE e.kind = k.kind) AS b FROM kinds k",
    "beside windows": "SELECT id, ts < now() AS over,"
    " row_number() OVER (PARTITION BY kind, ts < now() ORDER BY id) AS n,"
    " sum(CASE WHEN ts < now() THEN 1 END) OVER (PARTITION BY kind ORDER BY id) AS past FROM events",
    "told once": "SELECT DISTINCT kind, ts < now() AS over FROM events",
    "told first": "SELECT DISTINCT ON (kind) kind, id, ts < now() AS over FROM events ORDER BY kind, ts < now(), id",
    "first by time": "SELECT id FROM events ORDER BY (ts < now()) DESC, id LIMIT 7",
    "days": "SELECT id, CURRENT_DATE - d AS days, date_trunc('hour', now()) - interval '1 h' AS at FROM events",
    "calendar": "SELECT c.day, count(e.id) AS n FROM generate_series(CURRENT_DATE - 3, CURRENT_DATE, interval '1 day')"
    " AS c(day) LEFT JOIN events e ON e.d = c.day GROUP BY c.day",
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


@pytest.mark.parametrize("mood", ["mood", "moods", "nullif(mood, 'sad')", "coalesce(mood, mine)", "public.best(kind)"])
def test_time_alone_passes_beside_values_of_a_type_of_the_users(
    db: Connection, assert_fresh: Oracle, mood: str
) -> None:
    """Only the distinct values move, and nothing else says of which type the others are."""
    db.execute(
        "CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN public.mine AS public.mood NOT NULL;"
        "CREATE TABLE t (g int, id int, ts timestamptz, mood public.mood, mine public.mine, moods public.mood[],"
        " kind text);"
        "CREATE FUNCTION public.best(text) RETURNS public.mood IMMUTABLE LANGUAGE sql AS 'SELECT $1::public.mood';"
        "INSERT INTO t SELECT n % 3, n % 7, now() - n * interval '1 h', (ARRAY['sad', 'ok', 'happy'])[1 + n % 3]::mood,"
        " 'ok', ARRAY['sad']::mood[], 'ok' FROM generate_series(1, 40) AS n"
    )
    pg_trickle.create_stream_table(
        db,
        "s",
        "SELECT g, count(DISTINCT id) FILTER (WHERE ts > now() - interval '10 hours') AS young,"
        f" max({mood}) AS best FROM t GROUP BY g",
        schedule=None,
        refresh_mode="DIFFERENTIAL",
    )
    with db.transaction():
        # As if it had been refreshed 20 hours ago, when nothing was young.
        db.execute("UPDATE pgtrickle.pgt_stream_tables SET frontier_time = frontier_time - interval '20 h'")
        db.execute("SELECT pgtrickle.refresh_stream_table('s')")
    pg_trickle.refresh_stream_table(db, "s")
    assert last_refresh(db, "s")[0] == "DIFFERENTIAL"


@pytest.mark.parametrize("query", ["SELECT id FROM t WHERE statement_timestamp() > ts", "SELECT age(xmin) FROM t"])
@pytest.mark.parametrize("mode", ["AUTO", "DIFFERENTIAL"])
def test_time_that_no_refresh_shares_is_recomputed(db: Connection, query: str, mode: str) -> None:
    db.execute("CREATE TABLE t (id int, ts timestamptz); INSERT INTO t VALUES (1, now())")
    pg_trickle.create_stream_table(db, "s", query, refresh_mode=mode)
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
        db, "s", "SELECT id FROM t WHERE ts > now() - interval '1 hour' AND justify_days(now() - ts) < interval '5 h'"
    )
    (told,) = db.execute(
        "SELECT string_agg(x::text, E'\\n') FROM pgtrickle.explain_stream_table('s') AS x"
    ).fetchone() or ("",)
    assert "Filter by time" in told
    assert "a range of ts" in told
    assert "reading all" in told
    assert "condition on time" in told


def test_only_what_moves_all_the_time_is_run_again(db: Connection) -> None:
    db.execute(TABLES)
    db.execute("CREATE VIEW recent AS SELECT * FROM events WHERE ts >= now() - interval '70 ms'")
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name_of(name), query, schedule=None, refresh_mode="DIFFERENTIAL")
    again = db.execute(
        """SELECT s.pgt_name FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables AS s USING (pgt_id),
                  jsonb_array_elements(plan #> '{explain,tree}') AS line
            WHERE line ->> 'operator' = 'Query'"""
    )
    assert sorted(again.fetchall()) == [("by_a_subquery",), ("shown",)]


DAYS = {
    "days": ("SELECT id, CURRENT_DATE - d AS days FROM t", "UPDATE s SET days = days - 1"),
    "state": (
        "SELECT id, CASE WHEN d < CURRENT_DATE THEN 'over' END AS state FROM t",
        "UPDATE s SET state = NULL WHERE id = 1",
    ),
    "since": ("SELECT id FROM t WHERE d - CURRENT_DATE < 0", "DELETE FROM s WHERE id = 1"),
    "young": ("SELECT id FROM t WHERE age(d) < interval '2 days'", "INSERT INTO s VALUES (2)"),
    "age": ("SELECT id, age(d) AS a FROM t", "UPDATE s SET a = a - interval '1 day'"),
    "calendar": (
        "SELECT c.day, t.id FROM generate_series(date '2020-01-01', CURRENT_DATE, interval '1 day') AS c(day)"
        " LEFT JOIN t ON t.d = c.day",
        "DELETE FROM s WHERE day = CURRENT_DATE",
    ),
}


@pytest.mark.parametrize(("query", "as_yesterday"), DAYS.values(), ids=DAYS)
def test_another_day(db: Connection, assert_fresh: Oracle, query: str, as_yesterday: str) -> None:
    """Rows 0 to 3 are of today, yesterday and the days before; the last refresh was yesterday."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, d date)")
    db.execute("INSERT INTO t SELECT n, CURRENT_DATE - n FROM generate_series(0, 3) AS n")
    pg_trickle.create_stream_table(db, "s", query, schedule=None, refresh_mode="DIFFERENTIAL")
    with db.transaction():
        db.execute("UPDATE pgtrickle.pgt_stream_tables SET frontier_time = frontier_time - interval '1 day'")
        db.execute(as_yesterday.encode())
        pg_trickle.refresh_stream_table(db, "s")
        assert last_refresh(db, "s")[0] == "DIFFERENTIAL"
        assert_fresh(db, "s")


def test_a_day_is_the_creators_whoever_refreshes_and_reads(db: Connection) -> None:
    """In the time zone of the session that created it; between Kiritimati and Niue there is a day, and an hour."""
    db.execute("CREATE TABLE t (id int, ts timestamptz); SET TimeZone = 'Pacific/Kiritimati'")
    db.execute("INSERT INTO t SELECT n, CURRENT_DATE + n * interval '6 hours' FROM generate_series(-8, 8) AS n")
    query = "SELECT id FROM t WHERE ts::date = CURRENT_DATE"
    pg_trickle.create_stream_table(db, "s", query, schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("SET TimeZone = 'Pacific/Niue'; INSERT INTO t SELECT id + 100, ts FROM t WHERE id IN (-1, 0, 3)")
    with db.transaction():
        db.execute("UPDATE pgtrickle.pgt_stream_tables SET frontier_time = frontier_time - interval '1 day'")
        # As if it had been refreshed yesterday, when other rows were of the day.
        db.execute("DELETE FROM s; INSERT INTO s VALUES (-4), (-3), (-2), (-1)")
        pg_trickle.refresh_stream_table(db, "s")
    db.execute("SET TimeZone = 'Pacific/Kiritimati'")
    expected = db.execute(f"{query} ORDER BY id".encode()).fetchall()
    db.execute("SET TimeZone = 'Pacific/Niue'")
    assert db.execute("SELECT id FROM s ORDER BY id").fetchall() == expected
    assert len(expected) == 6
    assert last_refresh(db, "s")[0] == "DIFFERENTIAL"


def test_a_day_that_has_not_passed_reads_no_table(db: Connection) -> None:
    """What only another day changes is looked for once it has come: PostgreSQL asks that once, not for each row."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, d date)")
    pg_trickle.create_stream_table(db, "s", "SELECT id, CURRENT_DATE - d AS days FROM t", schedule=None)
    tree = db.execute("SELECT plan #> '{explain,tree}' FROM pgtrickle.pgt_plans").fetchone() or ([],)
    (line,) = [line for line in tree[0] if line["operator"] == "Column by time"]
    assert line["rule"].endswith("looked for when the hour or the day is another")
    assert line["cost"] == "|Δ|; all rows below, when the time of the condition is another"


def test_the_time_beside_a_type_of_ones_own(db: Connection, assert_fresh: Oracle) -> None:
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
    by_time = """SELECT count(*) > 1 FROM pgtrickle.pgt_refresh_history
                  WHERE pgt_name = 's' AND initiated_by = 'SCHEDULER' AND rows_in = 0 AND rows_out > 0"""
    for attempt in range(1, 30):
        # Where the machine is busy a row may be due before it is taken in.
        db.execute("INSERT INTO t SELECT %s, clock_timestamp() + %s * interval '100 ms'", (attempt, attempt))
        worker.wait_for(lambda: db.execute("SELECT n FROM above").fetchone() == (attempt,))  # noqa: B023
        if db.execute(by_time).fetchone() == (True,):
            return
    raise AssertionError("no row came by the clock alone")
