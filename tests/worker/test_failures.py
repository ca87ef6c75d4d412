"""What goes wrong with one stream table stays with it, and what can be mended is."""

from __future__ import annotations

import pytest


@pytest.fixture
def ratios(db, worker):
    """A stream table that divides, so that data can break it, and one beside it and one on top of it."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, divisor int NOT NULL, note text)")
    db.execute("INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')")
    for name, query in (
        ("ratios", "SELECT id, 10 / divisor AS ratio FROM t"),
        ("notes", "SELECT id, note FROM t"),
        ("on_top", "SELECT ratio, count(*) AS n FROM ratios GROUP BY ratio"),
    ):
        db.execute("SELECT pgtrickle.create_stream_table(%s, %s)", (name, query))
    worker.wait_until_idle()
    return db


def state(db, name):
    return db.execute(
        "SELECT status, consecutive_errors FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,)
    ).fetchone()


def ids(db, name):
    return [found for (found,) in db.execute(f"SELECT id FROM {name} ORDER BY id")]


def test_a_failing_table_is_suspended_and_the_others_go_on(ratios, worker, assert_fresh):
    ratios.execute("INSERT INTO t VALUES (3, 0, 'c')")
    worker.wait_for(lambda: ids(ratios, "notes") == [1, 2, 3])
    worker.wait_for(lambda: state(ratios, "ratios") == ("SUSPENDED", 3))
    failed = ratios.execute(
        """SELECT success, initiated_by, error_message FROM pgtrickle.pgt_refresh_history
            WHERE pgt_name LIKE '%ratios' AND NOT success"""
    ).fetchall()
    assert len(failed) == 3
    assert {row[:2] for row in failed} == {(False, "SCHEDULER")}
    assert all("division by zero" in message for _, _, message in failed)
    assert_fresh(ratios, "notes")


def test_a_mended_table_is_resumed_and_catches_up(ratios, worker, assert_fresh):
    ratios.execute("INSERT INTO t VALUES (3, 0, 'c')")
    worker.wait_for(lambda: state(ratios, "ratios")[0] == "SUSPENDED")
    ratios.execute("UPDATE t SET divisor = 5 WHERE id = 3")
    ratios.execute("SELECT pgtrickle.resume_stream_table('ratios')")
    worker.wait_for(lambda: ids(ratios, "ratios") == [1, 2, 3])
    worker.wait_until_idle()
    assert state(ratios, "ratios") == ("ACTIVE", 0)
    assert_fresh(ratios, "ratios")
    assert_fresh(ratios, "on_top")


def test_a_column_renamed_in_the_source_is_followed(ratios, worker, assert_fresh):
    ratios.execute("ALTER TABLE t RENAME COLUMN note TO remark")
    ratios.execute("INSERT INTO t (id, divisor, remark) VALUES (3, 3, 'c')")
    worker.wait_for(lambda: ids(ratios, "notes") == [1, 2, 3])
    worker.wait_until_idle()
    assert_fresh(ratios, "notes")
    assert state(ratios, "notes") == ("ACTIVE", 0)


def test_what_passes_by_itself_is_retried_and_not_counted(ratios, worker, assert_fresh):
    ratios.execute("CREATE SEQUENCE calls")
    ratios.execute(
        """CREATE FUNCTION moody(int) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
           BEGIN
               IF nextval('public.calls') BETWEEN 2 AND 3 THEN
                   RAISE EXCEPTION 'not now' USING ERRCODE = 'serialization_failure';
               END IF;
               RETURN $1;
           END $$"""
    )
    ratios.execute("TRUNCATE t")
    ratios.execute("INSERT INTO t VALUES (1, 1, 'a')")
    query = "SELECT public.moody(id) AS id FROM t"
    ratios.execute("SELECT pgtrickle.create_stream_table('moods', %s, refresh_mode => 'FULL')", (query,))
    ratios.execute("UPDATE t SET id = 7")
    worker.wait_for(lambda: ids(ratios, "moods") == [7])
    assert state(ratios, "moods") == ("ACTIVE", 0)


def test_an_error_that_cannot_be_caught_hits_its_own_table_only(ratios, worker):
    """A failed assertion goes through every handler in PL/pgSQL, and so would take the whole group down."""
    ratios.execute(
        """CREATE FUNCTION sure(int) RETURNS int LANGUAGE plpgsql STABLE AS
           $$BEGIN ASSERT $1 < 100; RETURN $1; END$$"""
    )
    ratios.execute("SELECT pgtrickle.create_stream_table('sure_ones', 'SELECT public.sure(id) AS id FROM t')")
    ratios.execute("INSERT INTO t VALUES (100, 1, 'x')")
    worker.wait_for(lambda: state(ratios, "sure_ones")[0] == "SUSPENDED")
    worker.wait_for(lambda: ids(ratios, "notes") == [1, 2, 100])
    assert state(ratios, "notes") == ("ACTIVE", 0)
