"""Who changes what follows the sources locks them in no order that would end a writer of several by a deadlock."""

from __future__ import annotations

import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.switching.conftest import Connection
from tests.immediate.switching.test_switching import MODES, make
from tests.immediate.test_isolation import Session

PARTITIONED = """
CREATE TABLE whole (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF whole FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF whole DEFAULT;
INSERT INTO whole SELECT g, g % 3 FROM generate_series(1, 20) AS g
"""
# As somebody might who shuts the engine's triggers out for a while.
DISABLED = """
ALTER TABLE {table} DISABLE TRIGGER pg_trickle_cdc_ins; ALTER TABLE {table} ENABLE ALWAYS TRIGGER pg_trickle_cdc_ins
"""


@pytest.mark.parametrize(("before", "after"), MODES)
def test_a_writer_may_begin_with_a_partition_and_go_on_with_the_whole(
    tables: Connection, sessions: tuple[Session, Session], before: str, after: str
) -> None:
    tables.execute(PARTITIONED)
    pg_trickle.create_stream_table(
        tables, "st", "SELECT v, count(*) AS n FROM whole GROUP BY v", schedule=None, refresh_mode=before
    )
    writer, other = sessions
    writer.begin()
    writer.run("UPDATE part_2 SET v = 4 WHERE id = 15")
    changing = other.waits(f"SELECT pgtrickle.alter_stream_table('st', refresh_mode => '{after}')")
    writer.run("UPDATE whole SET v = 5 WHERE id < 3 OR id = 16")
    writer.run("COMMIT")
    changing.result()
    assert differences(tables, "st") == []


def test_a_writer_of_several_sources_whose_captures_are_repaired_may_begin_with_either(
    tables: Connection, sessions: tuple[Session, Session]
) -> None:
    make(tables, "AUTO")
    for table in ("t", "u"):
        tables.execute(DISABLED.format(table=table).encode())
    writer, other = sessions
    writer.begin()
    writer.run("UPDATE t SET v = v + 1 WHERE id = 1")
    repairing = other.waits("SELECT pgtrickle.refresh_stream_table('named')")
    writer.run("UPDATE u SET name = name || 'x'")
    writer.run("COMMIT")
    repairing.result()
    assert differences(tables, "named") == []


def test_who_repairs_a_capture_locks_what_reads_it_before_its_source(
    tables: Connection, sessions: tuple[Session, Session]
) -> None:
    """Who refreshes another stream table has its row, and may want the source."""
    make(tables, "AUTO")
    tables.execute(DISABLED.format(table="t").encode())
    refresher, other = sessions
    refresher.begin()
    refresher.run("SELECT FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'totals' FOR NO KEY UPDATE")
    repairing = other.waits("SELECT pgtrickle.refresh_stream_table('named')")
    refresher.run("LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE")
    refresher.run("COMMIT")
    repairing.result()
    for name in ("named", "totals"):
        pg_trickle.refresh_stream_table(tables, name)
        assert differences(tables, name) == [], name
