"""``pgtrickle bench``: one's own stream tables, measured and left as they are."""

from __future__ import annotations


def test_it_measures_what_is_ones_own_and_changes_nothing(pgtrickle, db, assert_fresh):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    db.execute("INSERT INTO t SELECT n, n FROM generate_series(1, 200) AS n")
    pgtrickle("create", "s", "SELECT id, v FROM t WHERE v > 1")
    db.execute("UPDATE t SET v = v + 1 WHERE id < 5")
    (row,) = pgtrickle("bench", "--json").json
    assert row["name"] == "public.s"
    assert min(row["recompute_ms"], row["differential_ms"], row["ratio"], row["idle_ms"]) > 0
    assert_fresh(db, "s")
    # What was recomputed for the measurement has left no trace.
    modes = "SELECT refresh_mode FROM pgtrickle.pgt_refresh_history WHERE initiated_by <> 'INITIAL'"
    assert db.execute(modes).fetchall() == [("DIFFERENTIAL",)]
    assert "ratio" in pgtrickle("bench", "s").out


def test_without_stream_tables_there_is_nothing_to_measure(pgtrickle):
    assert pgtrickle("bench").out == "no stream tables\n"
