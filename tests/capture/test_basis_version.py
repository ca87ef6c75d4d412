"""What a refresh asks instead of its fingerprint and the stamps of its captures changes whenever one of these does."""

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
VERSION = "SELECT pgtrickle_changes.basis_version(st) || '/' || st.fingerprint FROM pgtrickle.pgt_stream_tables AS st"
BASIS = "SELECT basis_seen FROM pgtrickle.pgt_stream_tables"
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

FINGERPRINT = "SELECT pgtrickle_changes.fingerprint(st.pgt_id) FROM pgtrickle.pgt_stream_tables AS st"
DEFINITIONS = [
    "ALTER TABLE src.t ALTER COLUMN n SET NOT NULL",
    "ALTER TABLE src.t ADD COLUMN more int",
    "ALTER TABLE src.t RENAME COLUMN n TO m",
    "ALTER TABLE src.t RENAME TO s",
    "ALTER TABLE src.t OWNER TO anybody",
    "ALTER TABLE src.t SET (fillfactor = 50)",
    "GRANT SELECT ON src.t TO anybody",
    "ALTER TABLE src.t ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE src.t FORCE ROW LEVEL SECURITY",
    "CREATE POLICY p ON src.t USING (true)",
    "CREATE UNIQUE INDEX ON src.t (n)",
    "ALTER TABLE src.t DROP CONSTRAINT t_pkey CASCADE",
    "ALTER TABLE src.t ALTER COLUMN g DROP EXPRESSION",
    "CREATE TABLE src.below () INHERITS (src.t)",
    "ALTER SCHEMA src RENAME TO other",
    "GRANT USAGE ON SCHEMA src TO anybody",
    "CREATE OR REPLACE VIEW v AS SELECT id, feels, g, pg_catalog.abs(src.twice(n + 1)) AS n FROM src.t",
    "ALTER VIEW v RENAME COLUMN n TO m",
    "ALTER VIEW v SET (security_barrier = true)",
    "ALTER TYPE mood RENAME VALUE 'good' TO 'well'",
    "ALTER TYPE mood ADD VALUE 'bad'",
    "ALTER TYPE mood RENAME TO feeling",
    "CREATE OR REPLACE FUNCTION src.twice(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 3 * n'",
    "ALTER FUNCTION src.twice(int) COST 7",
    "GRANT anybody TO owner",
    "ALTER ROLE owner NOINHERIT",
    "ALTER ROLE owner CREATEROLE",
    "ALTER TABLE st RENAME COLUMN n TO m",
    "ALTER TABLE st RENAME TO st2",
]


@pytest.fixture
def joined(database: Any, db: Connection) -> Connection:
    """A stream table of two sources, and a role that has nothing to do with it."""
    database.make_role("anybody")
    db.execute("CREATE SCHEMA other; CREATE TABLE t (id int PRIMARY KEY, note text)")
    db.execute("CREATE TABLE u (id int PRIMARY KEY, total int)")
    pg_trickle.create_stream_table(db, "st", QUERY, schedule=None)
    return db


@pytest.fixture
def defined(database: Any, db: Connection) -> Connection:
    """A stream table whose definition rests on a bit of everything."""
    database.make_role("anybody")
    database.make_role("owner")
    db.execute(
        """
        CREATE SCHEMA src;
        GRANT ALL ON SCHEMA src, public TO owner;
        CREATE TYPE mood AS ENUM ('good');
        CREATE TABLE src.t (id int PRIMARY KEY, n int, feels mood, g int GENERATED ALWAYS AS (n + 1) STORED);
        CREATE FUNCTION src.twice(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * n';
        CREATE VIEW v AS SELECT id, feels, g, src.twice(n) AS n FROM src.t;
        ALTER TABLE src.t OWNER TO owner;
        ALTER VIEW v OWNER TO owner
        """
    )
    pg_trickle.create_stream_table(db, "st", "SELECT id, feels, g, src.twice(n) AS n FROM v", schedule=None)
    db.execute("ALTER TABLE st OWNER TO owner")
    for _ in range(2):
        db.execute("SELECT pgtrickle.refresh_stream_table('st')")
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


@pytest.mark.parametrize("alteration", DEFINITIONS)
def test_it_changes_with_the_fingerprint(defined, alteration):
    fingerprint, version = one(defined, FINGERPRINT), one(defined, VERSION)
    assert version is not None
    with defined.transaction(force_rollback=True):
        defined.execute(alteration.encode())
        assert one(defined, FINGERPRINT) != fingerprint
        assert one(defined, VERSION) != version
    assert (one(defined, FINGERPRINT), one(defined, VERSION)) == (fingerprint, version)


def test_it_changes_with_what_is_held_through_another_role(database, defined):
    defined.execute("GRANT anybody TO owner")
    database.make_role("beyond")
    fingerprint, version = one(defined, FINGERPRINT), one(defined, VERSION)
    defined.execute("GRANT beyond TO anybody")
    assert one(defined, FINGERPRINT) != fingerprint
    assert one(defined, VERSION) != version


def test_it_changes_with_the_circle_that_decides_what_is_counted(joined):
    version = one(joined, VERSION)
    joined.execute("UPDATE pgtrickle.pgt_stream_tables SET scc_id = pgt_id")
    assert one(joined, VERSION) != version


def test_what_a_fingerprint_rests_on_is_looked_at_again_when_it_is_forgotten_or_the_plan_made_anew(joined):
    version = one(joined, VERSION)
    joined.execute("UPDATE pgtrickle.pgt_stream_tables SET fingerprint = NULL")
    pg_trickle.refresh_stream_table(joined, "st")
    assert one(joined, "SELECT fingerprint IS NOT NULL FROM pgtrickle.pgt_stream_tables")
    assert one(joined, BASIS) == version
    joined.execute("SELECT pgtrickle_changes.reinstall_plan(st.pgt_id) FROM pgtrickle.pgt_stream_tables AS st")
    assert one(joined, BASIS) is None


@pytest.mark.versions
def test_it_stays_while_rows_change_and_spares_the_others(joined):
    def refresh(places: range) -> None:
        for place in places:
            joined.execute("INSERT INTO t VALUES (%s, 'n')", (place,))
            joined.execute("SELECT pgtrickle.refresh_stream_table('st')")

    assert one(joined, BASIS) == one(joined, VERSION)
    # What counts the changes stands from the second on, and belongs to it.
    refresh(range(3))
    version = one(joined, VERSION)
    assert one(joined, BASIS) == version
    joined.execute("SET track_functions = 'all'")
    refresh(range(3, 6))
    joined.execute("SELECT pg_stat_force_next_flush()")
    calls = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname "
    assert one(joined, calls + "IN ('capture_stamp', 'fingerprint')") == 0
    assert one(joined, calls + "= 'basis_version'") == 3
    assert one(joined, VERSION) == version


def test_what_was_mended_is_looked_at_again(joined):
    joined.execute("ALTER TABLE t DISABLE TRIGGER pg_trickle_cdc_ins")
    joined.execute("INSERT INTO t VALUES (1, 'n'); INSERT INTO u VALUES (1, 2)")
    pg_trickle.refresh_stream_table(joined, "st")
    assert one(joined, BASIS) is None
    pg_trickle.refresh_stream_table(joined, "st")
    assert one(joined, BASIS) == one(joined, VERSION)
    assert pg_trickle.verify_stream_table(joined, "st").ok
