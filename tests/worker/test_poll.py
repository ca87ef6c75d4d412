"""What the worker's look at the buffers tells apart."""

from __future__ import annotations

from typing import Any

import psycopg

import pg_trickle

MARK = "SELECT high_water FROM pgtrickle_changes.worker_poll()"


def test_a_buffer_that_was_made_anew_has_another_mark(db: psycopg.Connection[Any]) -> None:
    """It counts from the start, and may have come as far as the old one by the next look."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
    marks = []
    for _ in range(2):
        pg_trickle.create_stream_table(db, "s", "SELECT id, a FROM t", schedule=None)
        db.execute("INSERT INTO t SELECT count(*), 1 FROM t")
        marks.append(db.execute(MARK).fetchone())
        pg_trickle.drop_stream_table(db, "s")
    assert marks[0] != marks[1]
