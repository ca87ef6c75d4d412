"""Which way a refresh goes, what it records, what it refuses, and what becomes of consumed rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.process import wait_until
from tests.upkeep import rows_read

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

REFRESH = "SELECT pgtrickle.refresh_stream_table('s')"

pytestmark = pytest.mark.versions


@pytest.fixture
def sums(db: Connection) -> Connection:
    """A stream table with states."""
    db.execute("CREATE TABLE t (k int, v int); INSERT INTO t SELECT n % 5, n FROM generate_series(1, 50) AS n")
    pg_trickle.create_stream_table(
        db, "s", "SELECT k + 1 AS k, s FROM (SELECT k, sum(v) AS s FROM t GROUP BY k) AS q", schedule=None
    )
    return db


def history(db: Connection) -> tuple[Any, ...]:
    row = db.execute(
        """SELECT refresh_mode, success, rows_in, rows_out, skipped_reason, reason FROM pgtrickle.pgt_refresh_history
            ORDER BY refresh_id DESC LIMIT 1"""
    ).fetchone()
    assert row is not None
    return row


def buffered(db: Connection) -> int:
    (buffer,) = db.execute(
        "SELECT buffer FROM pgtrickle.pgt_captures WHERE source_relid = 't'::regclass"
    ).fetchone() or ("",)
    (rows,) = db.execute(f"SELECT count(*) FROM pgtrickle_changes.{buffer}".encode()).fetchone() or (0,)
    return int(rows)


def clean(db: Connection) -> None:
    (done,) = db.execute("SELECT pgtrickle_changes.worker_housekeeping()").fetchone() or ({},)
    assert done["problems"] == []


def test_a_refresh_with_nothing_to_do_says_so(sums: Connection) -> None:
    before = sums.execute("SELECT data_timestamp FROM pgtrickle.pgt_stream_tables").fetchone()
    sums.execute(REFRESH)
    assert history(sums) == ("DIFFERENTIAL", True, 0, 0, "no changes", None)
    assert sums.execute("SELECT data_timestamp FROM pgtrickle.pgt_stream_tables").fetchone() > before  # type: ignore[operator]


def test_one_that_reads_no_other_is_refreshed_without_listing_others(sums: Connection, assert_fresh: Oracle) -> None:
    pg_trickle.create_stream_table(sums, "above", "SELECT sum(s) AS s FROM s", schedule=None)
    sums.execute("SET track_functions = 'all'")
    listed = []
    for name in ("s", "above"):
        sums.execute("INSERT INTO t VALUES (1, 7)")
        sums.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
        assert_fresh(sums, name)
        sums.execute("SELECT pg_stat_force_next_flush()")
        calls = "SELECT funcname, calls FROM pg_stat_user_functions WHERE funcname IN ('with_upstream', 'members')"
        listed.append(sorted(sums.execute(calls)))
    assert listed == [[], [("members", 2), ("with_upstream", 1)]]


def test_changes_that_cancel_out_write_nothing(sums: Connection, assert_fresh: Oracle) -> None:
    sums.execute("INSERT INTO t VALUES (1, 100); UPDATE t SET v = 200 WHERE v = 100; DELETE FROM t WHERE v = 200")
    sums.execute(REFRESH)
    assert history(sums)[:4] == ("DIFFERENTIAL", True, 4, 0)
    assert_fresh(sums, "s")


def test_a_truncated_source_is_recomputed(sums: Connection, assert_fresh: Oracle) -> None:
    sums.execute("TRUNCATE t; INSERT INTO t VALUES (1, 1)")
    sums.execute(REFRESH)
    assert history(sums)[0] == "FULL"
    assert_fresh(sums, "s")
    sums.execute("INSERT INTO t VALUES (1, 1)")
    sums.execute(REFRESH)
    assert history(sums)[:3] == ("DIFFERENTIAL", True, 1)
    assert_fresh(sums, "s")


def test_readers_never_see_it_empty(sums: Connection, database: Any) -> None:
    """FULL writes the rows that differ and leaves the others where they are."""
    places = "SELECT array_agg(ctid::text ORDER BY k) FROM s WHERE k < 5"
    before = sums.execute(places).fetchone()
    sums.execute("UPDATE t SET v = v + 1 WHERE k = 4")
    sums.execute("SELECT pgtrickle.reinitialize_stream_table('s')")
    sums.execute(REFRESH)
    assert history(sums)[0] == "FULL"
    assert history(sums)[3] == 2  # one row of a bag goes, another comes
    assert sums.execute(places).fetchone() == before


def test_so_many_changes_that_recomputing_is_cheaper(sums: Connection, assert_fresh: Oracle) -> None:
    sums.execute("UPDATE pgtrickle.pgt_stream_tables SET full_ms = 1, differential_ms_per_row = 0.01")
    sums.execute("INSERT INTO t SELECT 1, 1 FROM generate_series(1, 1500)")
    sums.execute(REFRESH)
    assert history(sums)[0] == "FULL"
    assert "cheaper" in history(sums)[5]
    assert_fresh(sums, "s")
    (estimate,) = sums.execute("SELECT differential_ms_per_row FROM pgtrickle.pgt_stream_tables").fetchone() or (0,)
    assert estimate == pytest.approx(0.009)


def test_a_set_share_of_changes_decides(sums: Connection) -> None:
    sums.execute("ANALYZE t; INSERT INTO pgtrickle.pgt_settings VALUES ('differential_max_change_ratio', '0.5')")
    sums.execute("INSERT INTO t SELECT 1, 1 FROM generate_series(1, 1500)")
    sums.execute(REFRESH)
    assert "share" in history(sums)[5]


def test_a_state_that_contradicts_the_changes_is_computed_afresh(sums: Connection, assert_fresh: Oracle) -> None:
    (state,) = sums.execute("SELECT relname FROM pg_class WHERE relname ~ '^state_[0-9]+_[0-9]+$'").fetchone() or ("",)
    (counter,) = sums.execute(
        """SELECT a.attname
             FROM pg_constraint AS c JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
            WHERE c.conrelid = %s::regclass AND c.contype = 'c'""",
        (f"pgtrickle_changes.{state}",),
    ).fetchone() or ("",)
    sums.execute(f"UPDATE pgtrickle_changes.{state} SET {counter} = 1".encode())
    sums.execute("DELETE FROM t WHERE k = 2")
    sums.execute(REFRESH)
    assert history(sums)[0] == "FULL"
    assert "contradicted" in history(sums)[5]
    assert_fresh(sums, "s")


def test_a_check_of_the_owners_own_is_an_error(sums: Connection) -> None:
    sums.execute("ALTER TABLE s ADD CONSTRAINT small CHECK (s < 5000)")
    sums.execute("INSERT INTO t VALUES (1, 9999)")
    with pytest.raises(psycopg.errors.CheckViolation, match="small"):
        sums.execute(REFRESH)


def test_another_cluster_means_starting_afresh(sums: Connection, assert_fresh: Oracle) -> None:
    """As after a restore: xids of another history in the buffer and in the frontier."""
    sums.execute("INSERT INTO t VALUES (1, 1)")
    sums.execute("UPDATE pgtrickle.pgt_stream_tables SET system_identifier = 1, frontier = '900000000:900000000:'")
    (buffer,) = sums.execute("SELECT buffer FROM pgtrickle.pgt_captures").fetchone() or ("",)
    sums.execute(f"UPDATE pgtrickle_changes.{buffer} SET xid = '900000000'".encode())
    sums.execute(REFRESH)
    assert "cluster" in history(sums)[5]
    assert_fresh(sums, "s")
    sums.execute("INSERT INTO t VALUES (1, 1)")
    sums.execute(REFRESH)
    assert history(sums)[:3] == ("DIFFERENTIAL", True, 1)
    assert_fresh(sums, "s")


def test_a_right_that_is_gone_stops_even_a_refresh_with_nothing_to_do(
    database: Any, db: Connection, worker: Any
) -> None:
    database.make_role("st_author")
    db.execute(
        """CREATE TABLE t (a int, b int); GRANT SELECT (a) ON t TO st_author;
           GRANT CREATE ON SCHEMA public TO st_author; GRANT USAGE ON SCHEMA pgtrickle TO st_author;
           GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO st_author"""
    )
    author = database.connect("st_author")
    pg_trickle.create_stream_table(author, "s", "SELECT a FROM t", schedule=None)
    db.execute("REVOKE SELECT (a) ON t FROM st_author; GRANT SELECT (b) ON t TO st_author")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r'table "?t'):
        author.execute(REFRESH)
    found = db.execute(
        "SELECT success, error_message FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1"
    )
    success, message = found.fetchone() or (None, "")
    assert success is False
    assert "42501" in message
    db.execute("GRANT SELECT (a) ON t TO st_author")
    author.execute(REFRESH)
    assert db.execute("SELECT consecutive_errors, last_error_message FROM pgtrickle.pgt_stream_tables").fetchone() == (
        0,
        None,
    )


def test_consumed_rows_go_when_the_last_consumer_has_read_them(sums: Connection, assert_fresh: Oracle) -> None:
    pg_trickle.create_stream_table(sums, "slow", "SELECT k FROM t", schedule=None)
    sums.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    sums.execute(REFRESH)
    clean(sums)
    assert buffered(sums) == 2
    sums.execute("SELECT pgtrickle.refresh_stream_table('slow')")
    assert_fresh(sums, "slow")
    sums.execute("INSERT INTO t VALUES (3, 3)")
    clean(sums)
    assert buffered(sums) == 1
    for name in ("s", "slow"):
        sums.execute("SELECT pgtrickle.refresh_stream_table(%s)", (name,))
        assert_fresh(sums, name)


def test_rows_of_a_transaction_that_goes_on_after_a_refresh_stay(
    sums: Connection, database: Any, assert_fresh: Oracle
) -> None:
    conn = database.connect(autocommit=False)
    conn.execute("INSERT INTO t VALUES (1, 1)")
    conn.execute(REFRESH)
    conn.execute("INSERT INTO t VALUES (2, 2)")
    conn.commit()
    clean(sums)
    assert buffered(sums) == 1
    sums.execute(REFRESH)
    assert_fresh(sums, "s")


def test_a_big_buffer_is_emptied_at_once_unless_somebody_is_writing(
    sums: Connection, database: Any, assert_fresh: Oracle
) -> None:
    size = "SELECT pg_relation_size(buffer_relid) FROM pgtrickle.pgt_captures"
    sums.execute("INSERT INTO t SELECT n % 5, n FROM generate_series(1, 60000) AS n")
    sums.execute(REFRESH)
    writer = database.connect(autocommit=False)
    writer.execute("INSERT INTO t VALUES (1, 1)")
    clean(sums)
    assert buffered(sums) < 60000
    assert sums.execute(size).fetchall() > [(0,)]
    writer.commit()
    sums.execute(REFRESH)
    clean(sums)
    assert buffered(sums) == 0
    assert sums.execute(size).fetchone() == (0,)
    sums.execute("INSERT INTO t VALUES (1, 1)")
    sums.execute(REFRESH)
    assert history(sums)[:3] == ("DIFFERENTIAL", True, 1)
    assert_fresh(sums, "s")


def test_nothing_goes_while_somebody_reads_the_buffer_for_the_first_time(
    sums: Connection, database: Any, assert_fresh: Oracle
) -> None:
    conn = database.connect(autocommit=False)
    pg_trickle.create_stream_table(conn, "late", "SELECT k FROM t", schedule=None)
    # Its triggers were there already, so nobody is kept from writing.
    sums.execute("INSERT INTO t VALUES (1, 1)")
    sums.execute(REFRESH)
    clean(sums)
    assert buffered(sums) == 1
    conn.commit()
    sums.execute("SELECT pgtrickle.refresh_stream_table('late')")
    assert_fresh(sums, "late")


def test_who_is_suspended_is_let_go_when_his_changes_outgrow_the_source(sums: Connection, assert_fresh: Oracle) -> None:
    sums.execute("SELECT pgtrickle.suspend_stream_table('s')")
    sums.execute("INSERT INTO t VALUES (1, 1)")
    clean(sums)
    assert buffered(sums) == 1
    sums.execute("SELECT pgtrickle_changes.let_go(k, 1000000000000) FROM pgtrickle.pgt_captures AS k")
    clean(sums)
    assert buffered(sums) == 0
    sums.execute("SELECT pgtrickle.resume_stream_table('s')")
    sums.execute(REFRESH)
    assert history(sums)[0] == "FULL"
    assert_fresh(sums, "s")


def test_a_dropped_table_leaves_nothing_behind(sums: Connection) -> None:
    sums.execute("DROP TABLE s")
    sums.execute("INSERT INTO t VALUES (1, 1)")
    clean(sums)
    (left,) = sums.execute(
        """SELECT (SELECT count(*) FROM pgtrickle.pgt_stream_tables) + (SELECT count(*) FROM pgtrickle.pgt_captures)
                + (SELECT count(*) FROM pg_class WHERE relname ~ '^(state|delta|query|changes)_[0-9]')
                + (SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass)"""
    ).fetchone() or (1,)
    assert left == 0


def test_history_keeps_what_was_done_longer_than_what_was_not(sums: Connection) -> None:
    sums.execute("SELECT pgtrickle.refresh_stream_table('s')")
    sums.execute("UPDATE pgtrickle.pgt_refresh_history SET started_at = started_at - interval '30 hours'")
    sums.execute("SELECT pgtrickle.refresh_stream_table('s')")
    sums.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    kept = "SELECT skipped_reason FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id"
    assert sums.execute(kept).fetchall() == [(None,), ("no changes",)]
    sums.execute("UPDATE pgtrickle.pgt_refresh_history SET started_at = started_at - interval '91 days'")
    sums.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert sums.execute(kept).fetchall() == []


def test_a_large_buffer_of_which_a_row_is_needed_is_cleaned_up_in_pieces(
    sums: Connection, assert_fresh: Oracle
) -> None:
    sums.execute("INSERT INTO t (k, v) SELECT n % 3, n FROM generate_series(1, 40000) AS n")
    sums.execute(REFRESH)
    sums.execute("INSERT INTO t (k, v) VALUES (1, 1)")
    before = buffered(sums)
    clean(sums)
    assert 0 < buffered(sums) < before
    while (now := buffered(sums)) > 1:
        clean(sums)
        assert buffered(sums) < now
    sums.execute(REFRESH)
    assert_fresh(sums, "s")
    clean(sums)
    assert buffered(sums) == 0


def test_all_buffers_share_the_time_that_cleaning_up_takes(sums: Connection) -> None:
    """What a transaction has emptied is locked until it ends: it doesn't take half a second for each of the others."""
    sums.execute("INSERT INTO t (k, v) SELECT n % 3, n FROM generate_series(1, 60000) AS n")
    sums.execute(REFRESH)
    sums.execute("INSERT INTO t (k, v) VALUES (1, 1)")
    before = buffered(sums)
    with sums.transaction():
        late = "SELECT clock_timestamp() > now() + interval '0.5 s'"
        assert wait_until(lambda: sums.execute(late).fetchone() == (True,), 30)
        clean(sums)
    assert buffered(sums) == before - 20000


def test_cleaning_up_does_not_look_through_what_somebody_has_yet_to_read(sums: Connection) -> None:
    pg_trickle.create_stream_table(sums, "late", "SELECT k, v FROM t WHERE v > 10", schedule=None)
    (buffer,) = sums.execute("SELECT buffer FROM pgtrickle.pgt_captures").fetchone() or ("",)
    for _ in range(2):
        sums.execute("INSERT INTO t (k, v) SELECT n % 3, n FROM generate_series(1, 5000) AS n")
        sums.execute(REFRESH)
        before = rows_read(sums, buffer)
        clean(sums)
        assert rows_read(sums, buffer) == before
    assert buffered(sums) == 10000
