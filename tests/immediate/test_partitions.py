"""IMMEDIATE stream tables on partitioned tables: written above and below, moved about, attached and detached."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.sources.test_partitions import CHANGES, INHERITED, PARTITIONED

Connection = psycopg.Connection[tuple[Any, ...]]

QUERIES: dict[str, LiteralString] = {
    "rows": "SELECT k, v, t FROM p",
    "sums": "SELECT k, count(*) AS n, sum(v) AS v FROM p GROUP BY k",
    "most": "SELECT k, max(t) AS t, min(v) AS v FROM p GROUP BY k",
    "pairs": "SELECT a.t, b.v FROM p AS a JOIN p AS b ON a.k = b.v",
    "joined": "SELECT p.t, d.name FROM p JOIN d ON d.k = p.k",
}


@pytest.fixture
def parted(db: Connection) -> Connection:
    """Stream tables of all sorts on a tree of partitions."""
    db.execute(PARTITIONED.encode())
    db.execute(
        """CREATE TABLE d (k int PRIMARY KEY, name text);
           INSERT INTO d SELECT g, 'n' || g FROM generate_series(1, 5) AS g"""
    )
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE")
    return db


def check(db: Connection, after: str) -> None:
    for name in QUERIES:
        assert differences(db, name) == [], (name, after)


def run(db: Connection, *statements: str) -> None:
    for statement in statements:
        db.execute(statement.encode())
        check(db, statement)


def versions(db: Connection) -> list[tuple[Any, ...]]:
    return db.execute("SELECT xmin, ctid FROM rows").fetchall()


@pytest.mark.versions
def test_whatever_relation_a_statement_names(parted: Connection) -> None:
    """By deltas: rows that nobody touched aren't written."""
    run(parted, *CHANGES)
    run(
        parted,
        "INSERT INTO p1 VALUES (1, 7, 'a'); UPDATE p1 SET v = 8 WHERE v = 7; DELETE FROM p1 WHERE v = 8",
        "WITH a AS (DELETE FROM p1 RETURNING *), b AS (INSERT INTO d VALUES (9, 'nine'))"
        " INSERT INTO p2b SELECT t, 9, 2 FROM a",
        "UPDATE d SET name = name || '!'",
        "TRUNCATE p2a",
        "TRUNCATE p2, d",
        "INSERT INTO p SELECT 1 + g % 2, g, 'many' FROM generate_series(1, 500) AS g",
        "UPDATE p SET k = 3 - k",
        "TRUNCATE p",
    )


MERGES: list[LiteralString] = [
    """MERGE INTO p USING generate_series(6, 9) AS g ON g = p.v
        WHEN MATCHED THEN UPDATE SET t = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (1, g, 'new')""",
    """MERGE INTO p USING generate_series(4, 11) AS g ON g = p.v WHEN MATCHED AND p.v < 7 THEN DELETE
        WHEN MATCHED THEN UPDATE SET k = 3 - p.k, t = 'moved' WHEN NOT MATCHED THEN INSERT VALUES (2, g, 'two')""",
    """WITH a AS (UPDATE d SET name = name || '?' WHERE k < 3)
       MERGE INTO p USING generate_series(1, 14) AS g ON g = p.v
        WHEN MATCHED THEN UPDATE SET t = 'again' WHEN NOT MATCHED THEN INSERT VALUES (1, g, 'newer')""",
]


@pytest.mark.versions
def test_rows_that_merge_updates_after_it_has_inserted_others(parted: Connection) -> None:
    """PostgreSQL shows such an update's new row as the row that was inserted before."""
    parted.execute("TRUNCATE p; INSERT INTO p VALUES (1, 8, 'a'), (2, 9, 'b'), (1, 9, 'c')")
    # The source's rows in their order, so that rows are inserted before others are updated.
    parted.execute("SET enable_hashjoin = off; SET enable_mergejoin = off")
    run(parted, *MERGES, "UPDATE p SET v = v + 1", *MERGES)
    for (notes,) in parted.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^moved_[0-9]+$'"
    ).fetchall():
        assert parted.execute(f"SELECT count(*) FROM {notes}".encode()).fetchone() == (0,)


def test_an_upsert_into_partitions_recomputes_nothing(db: Connection) -> None:
    db.execute(
        """CREATE TABLE p (k int, v int, PRIMARY KEY (k, v)) PARTITION BY LIST (k);
           CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p DEFAULT;
           INSERT INTO p SELECT g % 3, g FROM generate_series(1, 9) AS g"""
    )
    pg_trickle.create_stream_table(db, "rows", "SELECT k, v FROM p", refresh_mode="IMMEDIATE")
    before = versions(db)
    db.execute("DELETE FROM rows WHERE v = 9")
    db.execute("INSERT INTO p VALUES (1, 1), (1, 20), (2, 2) ON CONFLICT (k, v) DO UPDATE SET v = p.v + 50")
    # What somebody took away would be back.
    assert db.execute("SELECT count(*) FROM rows WHERE v = 9").fetchone() == (0,)
    assert len(set(before) & set(versions(db))) == 6


def test_nothing_else_is_written(parted: Connection) -> None:
    before = set(versions(parted))
    run(parted, "INSERT INTO p1 VALUES (1, 7, 'x')", "INSERT INTO p VALUES (1, 8, 'y')")
    run(parted, "UPDATE p SET k = 2 WHERE v = 8")
    assert before < set(versions(parted))


def test_keys_of_partitions(db: Connection) -> None:
    """A row that moves keeps its key, and foreign keys write below."""
    db.execute(
        """CREATE TABLE d (k int PRIMARY KEY);
           CREATE TABLE p (id int PRIMARY KEY, k int REFERENCES d ON DELETE CASCADE ON UPDATE SET NULL)
                  PARTITION BY RANGE (id);
           CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
           CREATE TABLE p2 PARTITION OF p DEFAULT;
           INSERT INTO d SELECT generate_series(1, 4);
           INSERT INTO p SELECT g, 1 + g % 4 FROM generate_series(1, 20) AS g"""
    )
    pairs = (("a", "SELECT id, k FROM p WHERE id > 3"), ("b", "SELECT p.id, d.k FROM p JOIN d USING (k)"))
    for name, query in pairs:
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE")
    for statement in (
        "UPDATE p SET id = id + 100 WHERE id < 3",
        "UPDATE p SET id = 1 WHERE id = 15",
        "MERGE INTO p USING (VALUES (5), (16), (300)) AS m (id) ON p.id = m.id"
        " WHEN MATCHED THEN UPDATE SET id = 205 - p.id WHEN NOT MATCHED THEN INSERT VALUES (300, 1)",
        "MERGE INTO p USING (VALUES (4), (1)) AS m (id) ON p.id = m.id WHEN MATCHED THEN UPDATE SET id = p.id + 500",
        "INSERT INTO p VALUES (7, 2), (70, 2) ON CONFLICT (id) DO UPDATE SET k = excluded.k",
        "DELETE FROM d WHERE k = 2",
        "UPDATE d SET k = 30 WHERE k = 3",
        "INSERT INTO p2 VALUES (40, 1)",
    ):
        db.execute(statement.encode())
        assert differences(db, "a") == differences(db, "b") == [], statement


ATTACHED: LiteralString = """CREATE TABLE p3 (t text, v int, k int); INSERT INTO p3 VALUES ('new', 3, 3);
    ALTER TABLE p ATTACH PARTITION p3 FOR VALUES IN (3)"""


def test_what_is_attached_shows_with_the_next_statement(parted: Connection) -> None:
    """Then it is known: what names the partitioned table is worked off as ever."""
    parted.execute(ATTACHED)
    run(parted, "INSERT INTO p VALUES (1, 5, 'x')", "INSERT INTO p VALUES (3, 5, 'in it')")
    run(parted, "UPDATE p SET k = 3 WHERE k = 1")
    parted.execute("ALTER TABLE p DETACH PARTITION p1; INSERT INTO p1 VALUES (1, 1, 'on its own')")
    run(parted, "UPDATE d SET name = 'x'", "INSERT INTO p1 VALUES (1, 2, 'on its own')", "TRUNCATE p1")
    run(parted, "DELETE FROM p WHERE v = 5")
    parted.execute("DROP TABLE p2")
    run(parted, "DELETE FROM p", "INSERT INTO p VALUES (3, 1, 'z')")
    parted.execute("CREATE TABLE p5 PARTITION OF p FOR VALUES IN (5) PARTITION BY LIST (v)")
    parted.execute("CREATE TABLE p5a PARTITION OF p5 DEFAULT")
    run(parted, "UPDATE p SET k = 5", "DELETE FROM p")


@pytest.mark.versions
def test_writing_a_partition_that_has_no_triggers_is_stopped_or_recomputed(parted: Connection) -> None:
    parted.execute(ATTACHED)
    for statement in ("INSERT INTO p3 VALUES ('y', 1, 3)", "UPDATE p3 SET v = 9", "DELETE FROM p3"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as stopped:
            parted.execute(statement.encode())
        assert '"p3"' in str(stopped.value.diag.message_primary)
        assert "refresh_stream_table" in str(stopped.value.diag.message_hint)
    # By a trigger, a function or a WITH of a statement that has triggers of ours.
    run(
        parted,
        "WITH a AS (INSERT INTO p3 VALUES ('y', 1, 3) RETURNING *) DELETE FROM p2a USING a WHERE a.t = p2a.t",
        "UPDATE p SET v = v + 1",
    )
    parted.execute(
        """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN INSERT INTO p3 VALUES ('by a trigger', 2, 3); RETURN NULL; END $$;
           CREATE TRIGGER f AFTER INSERT ON p1 FOR EACH ROW EXECUTE FUNCTION f()"""
    )
    run(parted, "INSERT INTO p VALUES (1, 1, 'x')", "INSERT INTO p1 VALUES (1, 1, 'x')")
    for name in QUERIES:
        pg_trickle.refresh_stream_table(parted, name)
    run(parted, "INSERT INTO p3 VALUES ('y', 1, 3)", "UPDATE p3 SET v = 9", "DELETE FROM p3")


def test_the_triggers_are_enabled_always_and_all_gone_in_the_end(parted: Connection) -> None:
    """But for those that notice what logical replication applies, on partitions too."""
    found = """SELECT count(*), bool_and(tgenabled = CASE WHEN tgname LIKE '%\\_applied' THEN 'R' ELSE 'A' END)
                 FROM pg_trigger WHERE tgname LIKE 'pg\\_trickle\\_imm%'"""
    parted.execute(ATTACHED)
    count, right = parted.execute(found).fetchone() or (0, None)
    assert count > 0
    assert right
    health = "SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'capture_integrity'"
    assert parted.execute(health).fetchone() == ("OK",)
    parted.execute("SET session_replication_role = replica")
    run(parted, "UPDATE p SET v = v + 1")
    parted.execute("RESET session_replication_role")
    for name in QUERIES:
        pg_trickle.alter_stream_table(parted, name, refresh_mode="AUTO")
    assert parted.execute(found).fetchone() == (0, None)


@pytest.mark.parametrize("query", ["SELECT id, v FROM parent", "SELECT id, v FROM child", "SELECT k FROM p1"])
def test_children_and_partitions_are_refused(parted: Connection, query: LiteralString) -> None:
    """Statements write them whose triggers are on other tables, or on none."""
    parted.execute(INHERITED.encode())
    with pytest.raises(psycopg.errors.FeatureNotSupported) as refusal:
        pg_trickle.create_stream_table(parted, "s", query, refresh_mode="IMMEDIATE")
    assert refusal.value.diag.message_detail
    assert "AUTO" in str(refusal.value.diag.message_hint)


def test_a_table_that_gets_a_child_stops_being_followed(db: Connection) -> None:
    """Nothing notices it at once; the worker's housekeeping flags it."""
    db.execute("CREATE TABLE t (id int, v int)")
    pg_trickle.create_stream_table(db, "s", "SELECT id, v FROM t", refresh_mode="IMMEDIATE")
    db.execute("CREATE TABLE c () INHERITS (t)")
    db.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert db.execute("SELECT needs_reinit FROM pgtrickle.pgt_stream_tables").fetchone() == (True,)


def test_a_table_that_becomes_a_partition_stops_being_followed(db: Connection) -> None:
    """What comes through the table above fires none of its triggers; what the hint says follows it again."""
    db.execute("CREATE TABLE t (id int, v int)")
    pg_trickle.create_stream_table(db, "s", "SELECT v, count(*) AS n FROM t GROUP BY v", refresh_mode="IMMEDIATE")
    db.execute("CREATE TABLE above (id int, v int) PARTITION BY RANGE (id)")
    db.execute("ALTER TABLE above ATTACH PARTITION t FOR VALUES FROM (0) TO (9)")
    db.execute("INSERT INTO above VALUES (1, 1)")
    db.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert db.execute("SELECT needs_reinit FROM pgtrickle.pgt_stream_tables").fetchone() == (True,)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="IMMEDIATE"):
        pg_trickle.refresh_stream_table(db, "s")
    pg_trickle.alter_stream_table(db, "s", refresh_mode="AUTO")
    db.execute("UPDATE above SET v = 2")
    pg_trickle.refresh_stream_table(db, "s")
    assert differences(db, "s") == []
