"""What a refresh asks once for all captures of a stream table tells of whatever would change the stamp of one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]

QUERY = "SELECT t.id, t.note, u.total FROM t JOIN u ON u.id = t.id"
STAMP = """
SELECT pgtrickle_changes.capture_stamp(k.source_relid, k.buffer, k.attnums, k.trigger_mode)
  FROM pgtrickle.pgt_captures AS k WHERE k.source_relid = 'public.t'::regclass
"""
VERSION = "SELECT pgtrickle_changes.captures_version(st.pgt_id, st.owner_oid) FROM pgtrickle.pgt_stream_tables AS st"
ALTERATIONS = [
    "ALTER TABLE t DISABLE TRIGGER pg_trickle_cdc_ins",
    "DROP TRIGGER pg_trickle_cdc_upd ON t",
    "ALTER TRIGGER pg_trickle_cdc_del ON t RENAME TO mine",
    "ALTER FUNCTION pgtrickle_changes.capture_{t}_ins() COST 7",
    "ALTER FUNCTION pgtrickle_changes.capture_{t}_ins() OWNER TO anybody",
    "ALTER FUNCTION pgtrickle_changes.capture_{t}_ins() RENAME TO elsewhere",
    "DROP FUNCTION pgtrickle_changes.capture_{t}_trunc() CASCADE",
    "ALTER TABLE pgtrickle_changes.changes_{t} RENAME TO elsewhere",
    "ALTER TABLE pgtrickle_changes.changes_{t} SET SCHEMA public",
    "DROP TABLE pgtrickle_changes.changes_{t}",
    "ALTER TABLE pgtrickle_changes.changes_{t} OWNER TO anybody",
    "ALTER TABLE pgtrickle_changes.changes_{t} ADD CHECK (w < 2)",
    "ALTER TABLE pgtrickle_changes.changes_{t} ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE pgtrickle_changes.changes_{t} ALTER COLUMN note SET DEFAULT 'x'",
    "ALTER TABLE pgtrickle_changes.changes_{t} SET UNLOGGED",
    "CREATE RULE r AS ON INSERT TO pgtrickle_changes.changes_{t} DO INSTEAD NOTHING",
    "CREATE TABLE below () INHERITS (t)",
    "CREATE TABLE over (LIKE t); ALTER TABLE t INHERIT over",
    "ALTER TABLE t RENAME note TO remark",
    "ALTER TABLE t SET SCHEMA other",
    "CREATE POLICY p ON t USING (true)",
    "INSERT INTO pgtrickle_changes.missed_changes (source_relid) VALUES ({t})",
]


@pytest.fixture
def joined(database: Any, db: Connection) -> Connection:
    """A stream table of two sources, and a role that has nothing to do with it."""
    database.make_role("anybody")
    db.execute("CREATE SCHEMA other; CREATE TABLE t (id int PRIMARY KEY, note text)")
    db.execute("CREATE TABLE u (id int PRIMARY KEY, total int)")
    pg_trickle.create_stream_table(db, "st", QUERY, schedule=None)
    return db


def one(db: Connection, query: str) -> Any:
    (value,) = db.execute(query.encode()).fetchone() or (None,)
    return value


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_it_changes_with_the_stamp_of_any(joined, alteration):
    stamp, version = one(joined, STAMP), one(joined, VERSION)
    assert version is not None
    with joined.transaction(force_rollback=True):
        joined.execute(alteration.format(t=one(joined, "SELECT 't'::regclass::oid::int")).encode())
        assert one(joined, STAMP.replace("'public.t'::regclass", "to_regclass('t')")) != stamp
        assert one(joined, VERSION) != version
    assert (one(joined, STAMP), one(joined, VERSION)) == (stamp, version)


@pytest.mark.versions
def test_it_stays_while_rows_change_and_spares_the_look_at_each(joined):
    joined.execute("SET track_functions = 'all'")
    looks = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'capture_stamp'"
    version = one(joined, VERSION)
    assert one(joined, "SELECT captures_seen FROM pgtrickle.pgt_stream_tables") == version
    for place in range(3):
        joined.execute("INSERT INTO t VALUES (%s, 'n')", (place,))
        pg_trickle.refresh_stream_table(joined, "st")
    joined.execute("SELECT pg_stat_force_next_flush()")
    assert one(joined, looks) == 0
    assert one(joined, VERSION) == version


def test_what_was_mended_is_looked_at_again(joined):
    joined.execute("ALTER TABLE t DISABLE TRIGGER pg_trickle_cdc_ins")
    joined.execute("INSERT INTO t VALUES (1, 'n'); INSERT INTO u VALUES (1, 2)")
    pg_trickle.refresh_stream_table(joined, "st")
    assert one(joined, "SELECT captures_seen IS NULL FROM pgtrickle.pgt_stream_tables")
    pg_trickle.refresh_stream_table(joined, "st")
    assert one(joined, "SELECT captures_seen FROM pgtrickle.pgt_stream_tables") == one(joined, VERSION)
    assert pg_trickle.verify_stream_table(joined, "st").ok
