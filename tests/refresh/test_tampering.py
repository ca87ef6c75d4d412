"""A stream table that somebody else has written to: noticed as soon as the changes contradict it, and put right."""

from __future__ import annotations

import pytest

import pg_trickle

SOURCES = """
    CREATE TABLE o (id int PRIMARY KEY, a int);
    INSERT INTO o SELECT i, i % 5 FROM generate_series(1, 20) AS i;
    CREATE TABLE b (x int);
    INSERT INTO b VALUES (1), (1), (2)"""
CONTRADICTION = "the stream table did not hold what the changes take away"


@pytest.mark.parametrize(
    ("query", "tampering", "change"),
    [
        ("SELECT id, a FROM o", "DELETE FROM s WHERE id = 3", "DELETE FROM o WHERE id = 3"),
        ("SELECT a, sum(id) AS total FROM o GROUP BY a", "DELETE FROM s WHERE a = 1", "DELETE FROM o WHERE a = 1"),
        ("SELECT x FROM b", "DELETE FROM s", "DELETE FROM b WHERE x = 1"),
    ],
    ids=["by key", "aggregate", "by content"],
)
def test_rows_missing_that_a_change_takes_away_make_the_refresh_recompute(db, query, tampering, change):
    db.execute(SOURCES)
    pg_trickle.create_stream_table(db, "s", query)
    db.execute(tampering)
    db.execute(change)
    pg_trickle.refresh_stream_table(db, "s")
    assert pg_trickle.verify_stream_table(db, "s").ok
    last = db.execute(
        "SELECT refresh_mode, success, reason FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1"
    ).fetchone()
    assert last == ("FULL", True, CONTRADICTION)


def test_verify_tells_what_was_written_by_hand(db):
    db.execute(SOURCES)
    pg_trickle.create_stream_table(db, "s", "SELECT x FROM b")
    db.execute("INSERT INTO s VALUES (7), (7)")
    db.execute("DELETE FROM s WHERE x = 2")
    assert pg_trickle.verify_stream_table(db, "s") == (1, 2, False)
    pg_trickle.reinitialize_stream_table(db, "s")
    pg_trickle.refresh_stream_table(db, "s")
    assert pg_trickle.verify_stream_table(db, "s").ok


GROUPS = "SELECT a, count(*) AS n, sum(id) AS total FROM o GROUP BY a HAVING count(*) > 0"


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL", "IMMEDIATE"])
@pytest.mark.parametrize(
    ("query", "relation"),
    [
        ("SELECT id, a FROM o", "s"),
        (GROUPS, "s"),
        (GROUPS, "pgtrickle_changes.state_1_1"),
        ("SELECT x FROM b", "s"),
    ],
    ids=["by key", "groups", "groups of a state", "by content"],
)
def test_indexes_that_were_dropped_are_made_anew(db, mode, query, relation):
    db.execute(SOURCES)
    pg_trickle.create_stream_table(db, "s", query, refresh_mode=mode, schedule=None)
    drop_indexes(db, relation)
    if mode != "IMMEDIATE":
        db.execute("UPDATE o SET a = a + 1 WHERE id < 5; INSERT INTO b VALUES (3)")
    pg_trickle.refresh_stream_table(db, "s")
    assert pg_trickle.verify_stream_table(db, "s").ok
    db.execute("UPDATE o SET a = 9 WHERE id > 15; DELETE FROM b WHERE x = 1")
    if mode != "IMMEDIATE":
        pg_trickle.refresh_stream_table(db, "s")
    assert pg_trickle.verify_stream_table(db, "s").ok


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_a_state_table_that_was_dropped_is_made_anew(db, mode):
    db.execute(SOURCES)
    pg_trickle.create_stream_table(db, "s", GROUPS, refresh_mode=mode, schedule=None)
    db.execute("DROP TABLE pgtrickle_changes.state_1_1")
    if mode != "IMMEDIATE":
        db.execute("UPDATE o SET a = a + 1 WHERE id < 5")
    pg_trickle.refresh_stream_table(db, "s")
    db.execute("UPDATE o SET a = 9 WHERE id > 15")
    if mode != "IMMEDIATE":
        pg_trickle.refresh_stream_table(db, "s")
    assert pg_trickle.verify_stream_table(db, "s").ok


@pytest.mark.parametrize("dropped", ["an index", "a state table"])
def test_they_are_made_anew_where_programs_stand_as_well(db, dropped):
    """What counts the changes goes with the programs, and was known to be right."""
    db.execute(SOURCES)
    pg_trickle.create_stream_table(db, "s", GROUPS, schedule=None)
    for number in range(4):
        db.execute("UPDATE o SET a = %s WHERE id < 5", (number,))
        pg_trickle.refresh_stream_table(db, "s")
    assert db.execute("SELECT counting_stands FROM pgtrickle.pgt_stream_tables").fetchone() == (True,)
    if dropped == "an index":
        drop_indexes(db, "s")
    else:
        db.execute("DROP TABLE pgtrickle_changes.state_1_1")
    db.execute("UPDATE o SET a = 9 WHERE id > 15")
    pg_trickle.refresh_stream_table(db, "s")
    assert pg_trickle.verify_stream_table(db, "s").ok


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_in_one_snapshot_they_are_made_anew_as_well(db, level):
    db.execute(SOURCES)
    pg_trickle.create_stream_table(db, "s", GROUPS, schedule=None)
    drop_indexes(db, "s")
    drop_indexes(db, "pgtrickle_changes.state_1_1")
    db.execute("UPDATE o SET a = a + 1 WHERE id < 5")
    with db.transaction():
        db.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        pg_trickle.refresh_stream_table(db, "s")
    db.execute("UPDATE o SET a = 9 WHERE id > 15")
    pg_trickle.refresh_stream_table(db, "s")
    assert pg_trickle.verify_stream_table(db, "s").ok


def test_the_worker_makes_them_anew(db, worker):
    db.execute(SOURCES)
    pg_trickle.create_stream_table(db, "s", GROUPS)
    db.execute("DROP TABLE pgtrickle_changes.state_1_1")
    drop_indexes(db, "s")
    db.execute("UPDATE o SET a = 9 WHERE id > 15")
    worker.wait_for(lambda: db.execute("SELECT total FROM s WHERE a = 9").fetchone() == (sum(range(16, 21)),))
    reason = db.execute("SELECT reason FROM pgtrickle.pgt_refresh_history WHERE reason IS NOT NULL").fetchone()
    assert reason == ("an index or a state table that its refreshes need had been dropped",)
    assert pg_trickle.verify_stream_table(db, "s").ok


def drop_indexes(db, relation):
    found = db.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass", (relation,))
    for (index,) in found.fetchall():
        db.execute(f"DROP INDEX {index}")
