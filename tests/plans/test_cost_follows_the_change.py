"""What a refresh reads follows what changed, not how much there is.  Rows are counted: times depend on the machine."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

Connection = psycopg.Connection[Any]

ROWS = 30_000
TABLES = tuple(f"t{number}" for number in range(10))
CHAIN = "SELECT t0.id, t9.v FROM t9" + "".join(f" JOIN t{n} ON t{n}.next = t{n + 1}.id" for n in reversed(range(9)))
# Groups of which either column may be what another table or a further group asks for.
PAIRS = "(SELECT next, maybe, sum(v) AS s FROM t0 GROUP BY next, maybe)"

QUERIES = {
    "ten tables in a chain": CHAIN,
    "two tables": "SELECT t0.id, t1.v FROM t0 JOIN t1 ON t0.next = t1.id",
    "tables that only a third one connects": """
        SELECT t0.id, t2.v FROM t0, t2, t1 WHERE t0.next = t1.id AND t1.next = t2.id
        """,
    "the same condition in each arm of an OR": """
        SELECT t0.id, t1.v FROM t0, t1 WHERE (t0.next = t1.id AND t1.v < 3) OR (t0.next = t1.id AND t0.v > 5)
        """,
    "left join": "SELECT t0.id, t1.v FROM t0 LEFT JOIN t1 ON t0.next = t1.id AND t1.v < 5",
    "full join": "SELECT t0.id, t1.id AS other FROM t0 FULL JOIN t1 ON t0.next = t1.id",
    "exists": "SELECT id, v FROM t0 WHERE EXISTS (SELECT FROM t1 WHERE t1.next = t0.id AND t1.v > 3)",
    "not in": "SELECT id FROM t0 WHERE id NOT IN (SELECT next FROM t1 WHERE v < 5)",
    "not in, where NULLs may be": "SELECT id, maybe NOT IN (SELECT maybe FROM t1) AS out FROM t0",
    "whether there is any": "SELECT id FROM t0 WHERE EXISTS (SELECT FROM t1 WHERE v > 3)",
    "a match by more than equality": """
        SELECT id FROM t0 WHERE NOT EXISTS (SELECT FROM t1 WHERE t1.next = t0.next AND t1.v <> t0.v)
        """,
    "either of two matches": """
        SELECT id, v FROM t0
         WHERE EXISTS (SELECT FROM t1 WHERE t1.id = t0.next) OR next IN (SELECT id FROM t2 WHERE v > 9)
        """,
    "in groups": "SELECT id FROM t0 WHERE id IN (SELECT next FROM t1 GROUP BY next HAVING count(*) > 1)",
    "an aggregate for each row": "SELECT id, (SELECT sum(v) FROM t1 WHERE t1.next = t0.id) AS s FROM t0",
    "a row looked up": "SELECT id, (SELECT v FROM t1 WHERE t1.id = t0.next) AS v FROM t0",
    "the only row of some": """
        SELECT id, (SELECT t1.id FROM t1 WHERE t1.next = t0.id AND t1.id + 0 < 3000) AS other FROM t0
        """,
    "an array for each row": "SELECT id, ARRAY(SELECT v FROM t1 WHERE t1.next = t0.id ORDER BY v) AS a FROM t0",
    "the first row of each": """
        SELECT t0.id, s.id AS first FROM t0
          LEFT JOIN LATERAL (SELECT id FROM t1 WHERE t1.next = t0.id ORDER BY v, id LIMIT 1) AS s ON true
        """,
    "a range for each row": """
        SELECT t0.id, s.n FROM t0, LATERAL (SELECT count(*) AS n FROM t1 WHERE t1.next = t0.id AND t1.v < t0.v) AS s
        """,
    "group by": "SELECT v, count(*) AS n, sum(next) AS s FROM t0 GROUP BY v",
    "groups of a join, grouped again": """
        SELECT n, count(*) AS times
          FROM (SELECT t1.id, count(*) AS n FROM t0 JOIN t1 ON t0.next = t1.id GROUP BY t1.id) AS g
         GROUP BY n
        """,
    "distinct": "SELECT DISTINCT next, v FROM t0",
    "an extreme of each group": "SELECT maybe, max(v) AS most, min(id) AS first FROM t0 GROUP BY maybe",
    "groups joined by a part of their key": f"SELECT t2.v, g.s FROM {PAIRS} AS g JOIN t2 ON t2.id = g.maybe",
    "groups that may be missing": f"SELECT t2.id, g.s FROM t2 LEFT JOIN {PAIRS} AS g ON g.maybe = t2.id",
    "whether there is a group": f"""
        SELECT id FROM t2 WHERE EXISTS (SELECT FROM {PAIRS} AS g WHERE g.maybe = t2.id AND s > 9)
        """,
    "an extreme of groups": f"SELECT maybe, max(s) AS most FROM {PAIRS} AS g GROUP BY maybe",
    "ranks of groups": f"SELECT maybe, next, rank() OVER (PARTITION BY maybe ORDER BY s) AS r FROM {PAIRS} AS g",
    "groups joined by what they show": """
        SELECT t0.v, g.next FROM t0 JOIN (SELECT next, max(id) AS last FROM t0 GROUP BY next) AS g ON g.last = t0.id
        """,
    "first rows joined by what they show": """
        SELECT t2.v, f.next FROM t2
          JOIN (SELECT DISTINCT ON (next) next, maybe FROM t0 ORDER BY next, v, id) AS f ON f.maybe = t2.id
        """,
    "numbered rows joined by what they show": """
        SELECT t2.v, f.next FROM t2
          JOIN (SELECT next, maybe, row_number() OVER (PARTITION BY next ORDER BY v, id) AS n FROM t0) AS f
            ON f.maybe = t2.id AND f.n = 1
        """,
}
UNINDEXED = {
    "exists": "SELECT id FROM t WHERE EXISTS (SELECT FROM u WHERE u.x = t.x)",
    "not in": "SELECT id FROM t WHERE x NOT IN (SELECT x FROM u)",
    "left join": "SELECT t.id, u.y FROM t LEFT JOIN u ON u.x = t.x",
    "a match by more": "SELECT id FROM t WHERE NOT EXISTS (SELECT FROM u WHERE u.x = t.x AND u.y <> t.id)",
    "a match by expressions": "SELECT id FROM t WHERE EXISTS (SELECT FROM u WHERE u.x - 1 = t.x + 1)",
}


@pytest.fixture
def tables(db: Connection) -> Connection:
    """Ten tables in which rows point to rows of the next one."""
    for name in TABLES:
        db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, next int NOT NULL, v int NOT NULL, maybe int)")
        db.execute(f"INSERT INTO {name} SELECT n, 1 + (n * 7) % {ROWS}, n % 11, n FROM generate_series(1, {ROWS}) AS n")
        db.execute(f"CREATE INDEX ON {name} (next)")
        db.execute(f"CREATE INDEX ON {name} (maybe)")
    return db


def rows_read(db: Connection) -> int:
    """So far, of all tables."""
    db.execute("SELECT pg_stat_force_next_flush()")
    found = db.execute("SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables").fetchone()
    return int(found[0]) if found else 0


def test_a_refresh_reads_little_more_than_what_changed(tables: Connection) -> None:
    names = {f"st{number}": title for number, title in enumerate(QUERIES)}
    for name, title in names.items():
        pg_trickle.create_stream_table(tables, name, QUERIES[title], schedule=None, refresh_mode="DIFFERENTIAL")
    tables.execute("VACUUM ANALYZE")
    with tables.transaction():
        for table in TABLES:
            tables.execute(f"UPDATE {table} SET v = v + 1, next = 1 + next % {ROWS} WHERE id IN (5, 2000)")
    read = {}
    for name, title in names.items():
        before = rows_read(tables)
        pg_trickle.refresh_stream_table(tables, name)
        read[title] = rows_read(tables) - before
        assert_fresh(tables, name)
    assert max(read.values()) < ROWS // 10, read


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_many_matches_that_no_index_leads_to_are_counted_together(db: Connection, mode: str) -> None:
    """Each of five hundred looks would read a table of two thousand rows."""
    db.execute("CREATE TABLE t (id int, x int, y int); CREATE TABLE u (x int, y int)")
    db.execute("INSERT INTO t SELECT n, n, n FROM generate_series(1, 2000) AS n; INSERT INTO u SELECT x, y FROM t")
    for place, query in enumerate(UNINDEXED.values()):
        pg_trickle.create_stream_table(db, f"s{place}", query, schedule=None, refresh_mode=mode)
    db.execute("VACUUM ANALYZE")
    before = rows_read(db)
    for change in (
        "INSERT INTO u SELECT n, n FROM generate_series(1501, 2500) AS n",
        "UPDATE u SET x = x + 700 WHERE x < 500",
        "DELETE FROM u WHERE y % 2 = 0",
    ):
        db.execute(change.encode())
        for place in range(len(UNINDEXED)):
            pg_trickle.refresh_stream_table(db, f"s{place}")
            assert_fresh(db, f"s{place}")
    assert rows_read(db) - before < 1_000_000
