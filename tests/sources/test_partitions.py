"""Partitioned and inherited tables as sources: written above or below, moved about, attached and detached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

PARTITIONED = """
CREATE TABLE p (k int, v int, t text) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (t text, gone int, v int, k int) PARTITION BY LIST (v);
ALTER TABLE p2 DROP COLUMN gone;
CREATE TABLE p2a PARTITION OF p2 FOR VALUES IN (1);
CREATE TABLE p2b PARTITION OF p2 DEFAULT;
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
INSERT INTO p VALUES (1, 1, 'a'), (1, 1, 'a'), (2, 1, 'b'), (2, 2, 'c');
"""
QUERIES = {
    "rows": "SELECT k, v, t FROM p",
    "sums": "SELECT k, count(*) AS n, sum(v) AS v, max(t) AS t FROM p GROUP BY k",
}
# What is noticed by the triggers, as changes.
CHANGES = (
    "INSERT INTO p VALUES (1, 5, 'x'), (2, 1, 'y'), (2, 9, 'z')",
    "INSERT INTO p1 VALUES (1, 7, 'direct'); INSERT INTO p2b VALUES ('deep', 7, 2); INSERT INTO p2 VALUES ('m', 1, 2)",
    "UPDATE p SET k = 3 - k WHERE v = 1",
    "UPDATE p2 SET v = 3 - v WHERE v < 3",
    "UPDATE p SET t = t || '!', v = v + 1",
    "DELETE FROM p2a; DELETE FROM p WHERE v = 5",
    "COPY p FROM PROGRAM 'printf ''1\\t1\\tcopied\\n2\\t4\\tcopied\\n'''",
    "MERGE INTO p USING (VALUES (1), (2)) AS m (k) ON p.k = m.k AND p.v = 4 WHEN MATCHED THEN UPDATE SET k = 1"
    " WHEN NOT MATCHED THEN INSERT VALUES (m.k, 4, 'merged')",
)
# What the next refresh notices, and recomputes.
SHAPES = (
    "TRUNCATE p2b",
    "CREATE TABLE p3 (t text, v int, k int); INSERT INTO p3 VALUES ('new', 3, 3);"
    " ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)",
    "CREATE TABLE p4 PARTITION OF p FOR VALUES IN (4); INSERT INTO p4 VALUES (4, 4, 'four')",
    "ALTER TABLE p DETACH PARTITION p1; INSERT INTO p1 VALUES (1, 100, 'no longer')",
    "INSERT INTO p1 VALUES (1, 200, 'back'); ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1)",
    "DROP TABLE p4",
    "ALTER TABLE p ADD COLUMN more int; ALTER TABLE p RENAME COLUMN t TO label; UPDATE p SET label = 'renamed'",
    "TRUNCATE p",
)


def last_refresh(db: Connection, name: str) -> tuple[str, str | None]:
    (row,) = db.execute(
        """SELECT refresh_mode, reason FROM pgtrickle.pgt_refresh_history WHERE pgt_name = %s
            ORDER BY refresh_id DESC LIMIT 1""",
        (name,),
    ).fetchall()
    return row


@pytest.mark.versions
@pytest.mark.usefixtures("worker")
def test_partitions(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(PARTITIONED)
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    # A partition is a source as well: each capture has its own triggers on it.
    pg_trickle.create_stream_table(db, "part", "SELECT v, t FROM p1", schedule=None, refresh_mode="DIFFERENTIAL")
    pg_trickle.create_stream_table(db, "middle", "SELECT v, t FROM p2", schedule=None, refresh_mode="DIFFERENTIAL")
    names = [*QUERIES, "part", "middle"]
    for step in CHANGES:
        db.execute(step.encode())
        for name in names:
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)
            assert last_refresh(db, name) == ("DIFFERENTIAL", None), step
    for step in SHAPES:
        db.execute(step.encode())
        for name in names:
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)
        assert last_refresh(db, "rows")[0] == "FULL", step
        # Repaired, it captures again.
        db.execute("INSERT INTO p (k, v) VALUES (2, 50)")
        for name in names:
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)
        assert last_refresh(db, "rows") == ("DIFFERENTIAL", None)
    for name in names:
        pg_trickle.drop_stream_table(db, name)
    assert (
        db.execute("SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname LIKE 'pg\\_trickle%'").fetchall()
        == []
    )


def test_a_source_of_its_own_can_be_attached(db: Connection, assert_fresh: Oracle) -> None:
    """PostgreSQL copies the parent's row triggers, which must not clash with its own."""
    db.execute("CREATE TABLE t (k int, v int); CREATE TABLE p (k int, v int) PARTITION BY LIST (k)")
    pg_trickle.create_stream_table(db, "below", "SELECT k, v FROM t")
    pg_trickle.create_stream_table(db, "above", "SELECT k, v FROM p")
    db.execute("INSERT INTO t VALUES (1, 1); ALTER TABLE p ATTACH PARTITION t FOR VALUES IN (1)")
    for write in ("INSERT INTO p VALUES (1, 2)", "UPDATE t SET v = 5", "ALTER TABLE p DETACH PARTITION t"):
        db.execute(write.encode())
        for name in ("above", "below"):
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)
    assert db.execute("SELECT count(*) FROM below").fetchone() == (2,)


def test_row_triggers_above_and_below(db: Connection) -> None:
    """Whoever reads a partitioned table, every way in is guarded by a row trigger that is always enabled."""
    db.execute(PARTITIONED)
    pg_trickle.create_stream_table(db, "s", QUERIES["rows"])
    found = db.execute(
        """SELECT tgrelid::regclass::text, count(*) FILTER (WHERE tgtype & 1 = 1), bool_and(tgenabled = 'A'),
                  bool_and(prosecdef AND proowner = 10 AND pg_get_triggerdef(t.oid) LIKE '%md5%')
             FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = tgfoid
            WHERE tgname LIKE 'pg\\_trickle\\_cdc%' GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    assert found == [(name, 3, True, True) for name in ("p", "p1", "p2", "p2a", "p2b")]
    assert db.execute("SELECT trigger_mode, alert FROM pgtrickle.check_cdc_health()").fetchall() == [("row", None)]
    assert db.execute(
        "SELECT bool_and(present AND enabled AND intact) FROM pgtrickle.trigger_inventory()"
    ).fetchone() == (True,)


def test_partitions_without_triggers_are_said_to_be_the_reason(db: Connection) -> None:
    db.execute(
        "CREATE TABLE p (k int) PARTITION BY LIST (k); CREATE UNLOGGED TABLE p1 PARTITION OF p FOR VALUES IN (1)"
    )
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="can't be maintained") as caught:
        pg_trickle.create_stream_table(db, "s", "SELECT k FROM p", refresh_mode="DIFFERENTIAL")
    assert "p1, a partition below it, is unlogged" in (caught.value.diag.message_detail or "")


INHERITED = """
CREATE TABLE parent (id int PRIMARY KEY, v int NOT NULL);
CREATE TABLE child (extra text, CHECK (v > 0)) INHERITS (parent);
CREATE TABLE other (v int, id int, x int);
ALTER TABLE other ALTER v SET NOT NULL, ALTER id SET NOT NULL;
CREATE TABLE grandchild () INHERITS (child);
INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (1, 1, 'a'); INSERT INTO grandchild VALUES (2, 2, 'b');
"""


@pytest.mark.versions
@pytest.mark.usefixtures("worker")
def test_inheritance(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(INHERITED)
    queries = {
        "rows": "SELECT id, v FROM parent",
        "sums": "SELECT id, count(*) AS n, sum(v) AS v FROM parent GROUP BY id",
        "part": "SELECT id, v, extra FROM child",
    }
    for name, query in queries.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    for step, mode in (
        ("INSERT INTO child VALUES (1, 1, 'twice'); INSERT INTO grandchild VALUES (5, 5)", "DIFFERENTIAL"),
        ("UPDATE parent SET v = v + 1", "DIFFERENTIAL"),
        ("UPDATE ONLY parent SET v = v + 1; DELETE FROM ONLY child WHERE extra = 'a'", "DIFFERENTIAL"),
        ("UPDATE child SET extra = 'only here'", "DIFFERENTIAL"),
        ("DELETE FROM parent WHERE v = 3", "DIFFERENTIAL"),
        ("TRUNCATE grandchild", "FULL"),
        ("INSERT INTO other VALUES (4, 4, 4); ALTER TABLE other INHERIT parent", "FULL"),
        ("INSERT INTO other VALUES (8, 8, 8); UPDATE parent SET v = 9 WHERE id = 4", "DIFFERENTIAL"),
        ("ALTER TABLE other NO INHERIT parent", "FULL"),
        ("INSERT INTO other VALUES (8, 8, 8); INSERT INTO parent VALUES (100, 1)", "DIFFERENTIAL"),
        ("CREATE TABLE late () INHERITS (child); INSERT INTO late VALUES (3, 3, 'late')", "FULL"),
        ("ALTER TABLE parent RENAME COLUMN v TO w; UPDATE parent SET w = w + 1", "FULL"),
        ("UPDATE parent SET w = w * 2", "DIFFERENTIAL"),
        ("DROP TABLE grandchild, late", "FULL"),
        ("TRUNCATE parent", "FULL"),
    ):
        db.execute(step.encode())
        for name in queries:
            pg_trickle.refresh_stream_table(db, name)
            assert_fresh(db, name)
        assert last_refresh(db, "rows")[0] == mode, step


def test_a_row_alike_of_a_child_is_not_the_tables_own(db: Connection, assert_fresh: Oracle) -> None:
    """Together they haven't changed where one comes and the other goes."""
    db.execute(INHERITED)
    pg_trickle.create_stream_table(db, "own", "SELECT count(*) AS n, sum(v) AS v FROM ONLY parent", schedule=None)
    for step in (
        "INSERT INTO child VALUES (77, 7, 'alike')",
        "WITH gone AS (DELETE FROM child WHERE id = 77 RETURNING id, v) INSERT INTO parent SELECT * FROM gone",
        "WITH gone AS (DELETE FROM ONLY parent WHERE id = 77 RETURNING id, v) INSERT INTO child SELECT * FROM gone",
    ):
        assert db.execute(step.encode()).rowcount > 0
        pg_trickle.refresh_stream_table(db, "own")
        assert_fresh(db, "own")


@pytest.mark.usefixtures("worker")
def test_children_change_what_is_known_of_a_table(db: Connection, assert_fresh: Oracle) -> None:
    """Its key doesn't hold for rows of a child, nor need its NOT NULL."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)")
    pg_trickle.create_stream_table(db, "s", "SELECT id, v FROM t", schedule=None)
    for step in (
        "CREATE TABLE c () INHERITS (t); INSERT INTO c VALUES (1, 1), (1, 1), (2, NULL)",
        "DELETE FROM ONLY t",
        "DELETE FROM c WHERE ctid = '(0,1)'",
        "DROP TABLE c; INSERT INTO t VALUES (1, 3)",
    ):
        db.execute(step.encode())
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_the_setting_decides_for_plain_tables(db: Connection, assert_fresh: Oracle, mode: str) -> None:
    """Only where a superuser alone can write it: a session's own setting changes nothing."""
    db.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s)", (mode,))
    db.execute(f"SET pg_trickle.cdc_trigger_mode = '{'row' if mode == 'statement' else 'statement'}'".encode())
    db.execute("CREATE TABLE t (k int, j json)")
    pg_trickle.create_stream_table(db, "s", "SELECT k, j FROM t")
    (levels,) = db.execute(
        "SELECT array_agg(tgtype & 1 ORDER BY tgname) FROM pg_trigger WHERE tgname LIKE 'pg\\_trickle\\_cdc%'"
    ).fetchone() or ([],)
    assert levels == ([1, 1, 0, 1] if mode == "row" else [0, 0, 0, 0])
    for write in (
        "INSERT INTO t VALUES (1, '{}'), (1, '{}'), (NULL, NULL)",
        "UPDATE t SET k = 2 WHERE ctid = '(0,1)'",
        "DELETE FROM t WHERE k = 1",
    ):
        db.execute(write.encode())
        pg_trickle.refresh_stream_table(db, "s")
        assert_fresh(db, "s")


@pytest.mark.usefixtures("worker")
def test_a_subscription_turns_statement_triggers_into_row_triggers(db: Connection, assert_fresh: Oracle) -> None:
    """What is applied fires row triggers alone, and those only that are always enabled."""
    db.execute("CREATE TABLE t (k int)")
    pg_trickle.create_stream_table(db, "s", "SELECT k FROM t", schedule=None)
    # The subscription itself needs a publisher.
    db.execute("INSERT INTO pg_subscription_rel VALUES (1, 't'::regclass, 'r', '0/1')")
    pg_trickle.refresh_stream_table(db, "s")
    assert db.execute("SELECT trigger_mode FROM pgtrickle.pgt_captures").fetchone() == ("row",)
    assert last_refresh(db, "s")[0] == "FULL"
    db.execute("SET session_replication_role = replica; INSERT INTO t VALUES (1), (2); DELETE FROM t WHERE k = 1")
    db.execute("SET session_replication_role = origin")
    pg_trickle.refresh_stream_table(db, "s")
    assert_fresh(db, "s")
    assert last_refresh(db, "s") == ("DIFFERENTIAL", None)
