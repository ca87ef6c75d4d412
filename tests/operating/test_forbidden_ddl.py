"""Where event triggers forbid DDL, stream tables that are there go on."""

from __future__ import annotations

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

FORBID = """
CREATE FUNCTION public.forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no % in production', tg_tag;
END $$;
CREATE EVENT TRIGGER forbid ON ddl_command_start EXECUTE FUNCTION public.forbid();
"""


# Rows written to each table: one size comes twice, then so many others that it makes room, and comes again.
WRITTEN = [(1, 0), (1, 0), (0, 1), (1, 1), (200, 0), (200, 1), (1, 0), (1, 0)]
STANDING = "SELECT count(*) FROM pg_proc WHERE proname ~ '^program_[0-9]+_[0-9]+$'"


@pytest.mark.parametrize("standing", [0, 1], ids=["before programs stand", "when one does"])
def test_refreshes_need_no_ddl(db, standing):
    """Not even where a program is about to stand, or one that stands makes room."""
    db.execute("CREATE TABLE a (id int PRIMARY KEY, k int); CREATE TABLE b (k int PRIMARY KEY, name text)")
    db.execute("INSERT INTO a SELECT i, i % 9 + 1 FROM generate_series(1, 3000) AS i")
    db.execute("INSERT INTO b SELECT k, k FROM generate_series(1, 900) AS k")
    pg_trickle.create_stream_table(db, "s", "SELECT a.id, b.name FROM a JOIN b USING (k)")
    pg_trickle.create_stream_table(db, "n", "SELECT k, count(*) AS n FROM a GROUP BY k", refresh_mode="IMMEDIATE")
    for rows in WRITTEN[: 2 * standing]:
        _write(db, *rows)
    assert db.execute(STANDING).fetchone() == (standing,)
    db.execute(FORBID)
    for rows in WRITTEN:
        _write(db, *rows)
        assert_fresh(db, "s")
        assert_fresh(db, "n")
    modes = "SELECT DISTINCT refresh_mode FROM pgtrickle.pgt_refresh_history WHERE pgt_name = 's' AND rows_in > 0"
    assert db.execute(modes).fetchall() == [("DIFFERENTIAL",)]


def _write(db, of_a, of_b):
    db.execute("INSERT INTO a SELECT (SELECT max(id) FROM a) + i, i %% 9 + 1 FROM generate_series(1, %s) AS i", (of_a,))
    db.execute("INSERT INTO b SELECT (SELECT max(k) FROM b) + i, i FROM generate_series(1, %s) AS i", (of_b,))
    db.execute("SELECT pgtrickle.refresh_stream_table('s')")
