"""S28 and S29: no triggers, clear errors; and nobody sees more of the WAL than his own columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.conftest import WORKER_ROLE
from tests.security.conftest import SOURCES, TOTALS, Place, denied

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def place(database: Any, db: Connection) -> Place:
    db.execute(SOURCES)
    return Place(database, db)


@pytest.fixture
def author(place: Place) -> Connection:
    return place.split()[0]


def refused(sqlstate: str, author: Connection, query: str = TOTALS, **options: Any) -> psycopg.Error:
    """The error that creating a stream table from the WAL gives; nothing is left of it."""
    with pytest.raises(psycopg.Error) as caught:
        pg_trickle.create_stream_table(author, "st", query, cdc_mode="wal", **options)
    assert caught.value.sqlstate == sqlstate
    assert author.execute("SELECT to_regclass('st') IS NULL, count(*) FROM pgtrickle.pgt_stream_tables").fetchone() == (
        True,
        0,
    )
    return caught.value


@pytest.mark.versions
def test_s28_wal_mode_installs_no_triggers(place: Place, author: Connection) -> None:
    place.superuser.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    pg_trickle.create_stream_table(author, "st", TOTALS, cdc_mode="wal")
    pg_trickle.create_stream_table(author, "above", "SELECT tenant_id, total FROM st", cdc_mode="wal")
    assert place.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal") == 0
    assert (
        place.value("SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture_' || 'orders'::regclass::oid || '%'") == 0
    )
    place.superuser.execute("UPDATE orders SET amount = amount * 2 WHERE id < 9; DELETE FROM orders WHERE id = 20")
    place.fresh("st", "above")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
    place.superuser.execute("TRUNCATE orders")
    place.fresh("st", "above")
    found = author.execute("SELECT cdc_mode FROM pgtrickle.list_sources('st')").fetchall()
    found += author.execute(
        "SELECT cdc_mode FROM pgtrickle.change_buffer_sizes() WHERE stream_table = 'public.st'"
    ).fetchall()
    found += author.execute(
        "SELECT cdc_mode FROM pgtrickle.check_cdc_health() WHERE source_table = 'public.orders'"
    ).fetchall()
    assert found == [("wal",)] * 3
    assert author.execute("SELECT cdc_mode FROM pgtrickle.list_sources('above')").fetchone() == ("trigger",)


def test_s28_a_writer_is_left_alone(place: Place, author: Connection) -> None:
    """He writes while the owner of the stream table may read nothing any more, and has locked his buffer."""
    place.superuser.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    pg_trickle.create_stream_table(author, "st", TOTALS, cdc_mode="wal")
    place.superuser.execute("REVOKE ALL ON orders FROM st_author")
    with author.transaction():
        author.execute(f"LOCK TABLE {place.buffer('orders', 'st_author')}".encode())
        place.superuser.execute("SET lock_timeout = '1s'; UPDATE orders SET amount = 1; RESET lock_timeout")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pg_trickle.refresh_stream_table(author, "st")


@pytest.mark.versions
def test_s32_only_referenced_columns_leave_the_wal(place: Place, author: Connection) -> None:
    place.superuser.execute("ALTER TABLE customers REPLICA IDENTITY FULL")
    pg_trickle.create_stream_table(author, "st", "SELECT name FROM customers", cdc_mode="wal")
    place.superuser.execute("UPDATE customers SET secret = 'hidden', name = 'shown' WHERE id = 1")
    place.fresh("st")
    rows = place.superuser.execute(
        f"SELECT b::text FROM {place.buffer('customers', 'st_author')} AS b".encode()
    ).fetchall()
    assert any("shown" in row for (row,) in rows)
    assert not any("hidden" in row or "secret" in row for (row,) in rows)


def test_a14_columns_that_the_owner_may_not_read(place: Place) -> None:
    other = place.author("other")
    place.superuser.execute("ALTER TABLE customers REPLICA IDENTITY FULL; REVOKE ALL ON customers FROM other")
    place.superuser.execute("GRANT SELECT (id, name) ON customers TO other")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        pg_trickle.create_stream_table(other, "st", "SELECT id, secret FROM customers", cdc_mode="wal")
    pg_trickle.create_stream_table(other, "st", "SELECT id, name FROM customers", cdc_mode="wal")
    place.superuser.execute("UPDATE customers SET name = 'new', secret = 'new' WHERE id = 1")
    place.fresh("st")


REFUSED = {
    "no pre-images": ("55000", "", "REPLICA IDENTITY FULL"),
    "no identity": ("55000", "ALTER TABLE orders REPLICA IDENTITY NOTHING", "REPLICA IDENTITY FULL"),
    "generated": ("0A000", "ALTER TABLE orders ADD g int GENERATED ALWAYS AS (id) STORED", "trigger"),
    "policy": (
        "0A000",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON orders USING (id > 3)",
        "trigger",
    ),
    "child": ("0A000", "CREATE TABLE child () INHERITS (orders)", "trigger"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_s29_sources_that_the_wal_does_not_tell_of(place: Place, author: Connection, case: str) -> None:
    sqlstate, change, hint = REFUSED[case]
    if case not in {"no pre-images", "no identity"}:
        place.superuser.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    place.superuser.execute(change.encode())
    error = refused(sqlstate, author)
    assert "WAL" in (error.diag.message_primary or "")
    assert hint in (error.diag.message_hint or "")
    assert "orders" in (error.diag.message_detail or "")
    pg_trickle.create_stream_table(author, "st", TOTALS, cdc_mode="auto")
    with pytest.raises(psycopg.Error) as caught:
        pg_trickle.alter_stream_table(author, "st", cdc_mode="wal")
    assert caught.value.sqlstate == sqlstate
    place.fresh("st")


def test_s29_other_relations(place: Place, author: Connection) -> None:
    place.superuser.execute("CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p DEFAULT")
    place.superuser.execute("CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE TABLE r (a int, c regclass)")
    place.superuser.execute("ALTER TABLE r REPLICA IDENTITY FULL; GRANT SELECT ON p, m, r TO st_author")
    assert "partitions" in str(refused("0A000", author, "SELECT a FROM p").diag.message_detail)
    assert "materialized view" in str(refused("0A000", author, "SELECT a FROM m").diag.message_detail)
    assert "regclass" not in str(refused("0A000", author, "SELECT a, c FROM r").diag.message_hint)
    refused("0A000", author, "SELECT a FROM r", refresh_mode="IMMEDIATE")
    pg_trickle.create_stream_table(author, "st", "SELECT a FROM r", cdc_mode="wal")


def test_s29_without_a_slot(database: Any) -> None:
    """wal_level is logical, and nobody has enabled it."""
    conn = database.connect()
    conn.execute("CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL")
    error = refused("55000", conn, "SELECT a FROM t")
    assert "enable_wal" in (error.diag.message_hint or "")
    conn.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_mode', 'wal')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        pg_trickle.create_stream_table(conn, "st", "SELECT a FROM t")
    conn.execute("CALL pgtrickle.enable_wal()")
    pg_trickle.create_stream_table(conn, "st", "SELECT a FROM t")
    assert conn.execute("SELECT cdc_mode FROM pgtrickle.list_sources('st')").fetchone() == ("wal",)


def test_s29_who_may_not_enable_it_is_told_who_may(place: Place, author: Connection) -> None:
    """The guide's grants are of functions; who grants procedures, too, has none of what they do reached."""
    place.superuser.execute("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA pgtrickle TO st_author")
    author.execute("CREATE FUNCTION public.same(name, name) RETURNS bool LANGUAGE sql RETURN true")
    author.execute("CREATE OPERATOR public.= (FUNCTION = public.same, LEFTARG = name, RIGHTARG = name)")
    author.execute("SET search_path = public, pg_catalog")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        author.execute("CALL pgtrickle.enable_wal()")
    assert caught.value.diag.message_primary == "permission denied to enable capture from the WAL"
    assert caught.value.diag.message_detail == "A replication slot sees the changes of every table."
    assert caught.value.diag.message_hint == "Ask a superuser to CALL pgtrickle.enable_wal()."


def test_s29_no_free_slot(database: Any) -> None:
    conn = database.connect()
    free = """SELECT s.setting::int - (SELECT count(*) FROM pg_replication_slots)
                FROM pg_settings AS s WHERE s.name = 'max_replication_slots'"""
    (number,) = conn.execute(free).fetchone() or (0,)
    taken = [f"taken_{n}" for n in range(number)]
    for name in taken:
        conn.execute("SELECT pg_create_physical_replication_slot(%s)", (name,))
    try:
        with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as caught:
            conn.execute("CALL pgtrickle.enable_wal()")
        assert "max_replication_slots" in (caught.value.diag.message_hint or "")
    finally:
        for name in taken:
            conn.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    conn.execute("CALL pgtrickle.enable_wal()")


def test_s61_the_workers_role_sees_no_wal(place: Place, author: Connection) -> None:
    place.superuser.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    pg_trickle.create_stream_table(author, "st", TOTALS, cdc_mode="wal")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO st_author")
    slot = place.value("SELECT slot_name FROM pgtrickle.slot_health()")
    for conn in (place.as_(WORKER_ROLE), author):
        denied(
            conn,
            f"SELECT pg_logical_slot_peek_binary_changes('{slot}', NULL, NULL)",
            f"SELECT pg_replication_slot_advance('{slot}', '0/1')",
            "SELECT * FROM pgtrickle_changes.wal_messages()",
            "SELECT pgtrickle_changes.decode_wal('{}')",
            "CALL pgtrickle.enable_wal()",
            "SELECT pgtrickle_changes.wal_make_slot()",
            "SELECT pgtrickle_changes.wal_make_publication()",
            "SELECT pgtrickle.disable_wal()",
            "TABLE pgtrickle_changes.wal_readers",
            "UPDATE pgtrickle_changes.wal_slot SET advance_to = '0/1'",
        )
    worker = place.as_(WORKER_ROLE)
    place.superuser.execute("UPDATE orders SET amount = 5")
    answer = worker.execute("SELECT pgtrickle_changes.worker_drain_wal(NULL)").fetchone()
    assert answer is not None
    assert set(answer[0]) == {"lsn", "trouble"}
    assert place.value(f"SELECT count(*) > 0 FROM {place.buffer('orders', 'st_author')}")


def test_what_an_owner_hangs_on_his_buffer_does_not_run(
    place: Place, author: Connection, drain: Callable[[], Any]
) -> None:
    place.superuser.execute(
        "ALTER TABLE orders REPLICA IDENTITY FULL; GRANT USAGE ON SCHEMA pgtrickle_changes TO st_author"
    )
    pg_trickle.create_stream_table(author, "st", TOTALS, cdc_mode="wal")
    author.execute("CREATE TABLE ran (who name)")
    author.execute(
        """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN NEW; END $$"""
    )
    buffer = place.buffer("orders", "st_author")
    author.execute(f"CREATE TRIGGER note BEFORE INSERT ON {buffer} FOR EACH ROW EXECUTE FUNCTION note()".encode())
    place.superuser.execute("UPDATE orders SET amount = 5 WHERE id = 1")
    drain()
    assert place.superuser.execute("SELECT DISTINCT who FROM ran").fetchall() == []
    place.fresh("st")
    assert place.last_refresh("refresh_mode") == "FULL"


@pytest.mark.parametrize("rows", [10, 6000])
def test_a02_code_within_an_owners_type_sees_nothing_of_what_is_being_decoded(place: Place, rows: int) -> None:
    """His buffer is written meanwhile, by way of his type's constraint: no query may be open that he could read."""
    victim, villain = place.author("victim"), place.author("villain")
    villain.execute(
        """CREATE TABLE loot (cursor text, found text);
           CREATE FUNCTION look(v int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
               'BEGIN RETURN public.looks(); END';
           CREATE FUNCTION looks() RETURNS boolean LANGUAGE plpgsql AS $$
               DECLARE v_name text; v_names text[] := ARRAY(SELECT name FROM pg_cursors WHERE name <> ''); v_row record;
               BEGIN
                   FOREACH v_name IN ARRAY v_names LOOP
                       EXECUTE pg_catalog.format('FETCH NEXT FROM %I', v_name) INTO v_row;
                       INSERT INTO public.loot VALUES (v_name, v_row::text);
                       EXECUTE pg_catalog.format('MOVE BACKWARD ALL IN %I', v_name);
                   END LOOP;
                   RETURN true;
               END $$;
           CREATE DOMAIN watched AS int CHECK (look(VALUE));
           CREATE TYPE pair AS (v watched);
           CREATE TABLE mine (id int PRIMARY KEY, p pair); ALTER TABLE mine REPLICA IDENTITY FULL"""
    )
    place.superuser.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    pg_trickle.create_stream_table(villain, "spying", "SELECT id, p FROM mine", cdc_mode="wal")
    pg_trickle.create_stream_table(victim, "st", TOTALS, cdc_mode="wal")
    villain.execute("TRUNCATE loot")
    place.superuser.execute("UPDATE orders SET amount = amount + 1, note = 'treasure'")
    place.superuser.execute("INSERT INTO mine SELECT i, ROW(NULL)::pair FROM generate_series(1, %s) AS i", (rows,))
    villain.execute("INSERT INTO mine VALUES (0, ROW(1)::pair)")
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    villain.execute("TRUNCATE loot")
    place.superuser.execute("SELECT pgtrickle_changes.worker_drain_wal(NULL)")
    assert villain.execute("SELECT * FROM loot").fetchall() == []
    place.fresh("st")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
    place.fresh("spying")
    assert place.value("SELECT count(*) FROM pgtrickle_changes.wal_spool") == 0
