"""Change capture: triggers, their functions and the buffers (S20–S36, S54)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place, denied

Fails = Callable[..., psycopg.Error]

TRIGGERS = """
SELECT t.tgname::text, t.tgrelid::regclass::text AS source, t.tgtype::int AS type, p.prosecdef, p.proconfig,
       p.proowner::regrole::text AS owner
  FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
 WHERE t.tgname LIKE 'pg\\_trickle%' ORDER BY t.tgrelid, t.tgname
"""
ROW, BEFORE, INSTEAD = 1, 2, 64


@pytest.fixture
def two_sources(place: Place, author: Connection) -> Place:
    join = "SELECT o.id, o.amount, c.name FROM orders AS o JOIN customers AS c ON c.id = o.customer_id"
    pg_trickle.create_stream_table(author, "st", join)
    return place


def triggers(place: Place) -> list[tuple[Any, ...]]:
    return place.superuser.execute(TRIGGERS.encode()).fetchall()


@pytest.mark.versions
def test_s20_every_source_has_after_triggers(two_sources: Place) -> None:
    found = triggers(two_sources)
    assert {(name, source) for name, source, *_ in found} == {
        (f"pg_trickle_cdc_{event}", source)
        for event in ("ins", "upd", "del", "trunc")
        for source in ("customers", "orders")
    }
    assert all(kind & (BEFORE | INSTEAD) == 0 for _, _, kind, *_ in found)


def test_s21_triggers_are_row_level_where_it_is_asked_for(place: Place, author: Connection) -> None:
    """And by statement otherwise; both AFTER, both SECURITY DEFINER."""
    pg_trickle.create_stream_table(author, "statements", "SELECT id FROM customers")
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', 'row')")
    pg_trickle.create_stream_table(author, "rows", "SELECT id, amount FROM orders")
    by_source = {(source, name[15:]): kind & ROW for name, source, kind, *_ in triggers(place)}
    assert {by_source["customers", event] for event in ("ins", "upd", "del")} == {0}
    assert {by_source["orders", event] for event in ("ins", "upd", "del")} == {ROW}
    assert all(kind & (BEFORE | INSTEAD) == 0 and definer for _, _, kind, definer, *_ in triggers(place))
    place.superuser.execute("UPDATE orders SET amount = 0 WHERE id < 5; DELETE FROM orders WHERE id > 20")
    place.fresh("rows")
    assert place.last_refresh("rows_in") == 4 + 4 + 10


ALWAYS_BY_ROW = {
    "partitioned": """CREATE TABLE split (id int, tenant_id int) PARTITION BY LIST (tenant_id);
                      CREATE TABLE split_1 PARTITION OF split FOR VALUES IN (1);
                      CREATE TABLE split_2 PARTITION OF split DEFAULT""",
    # The subscription itself needs a publisher.
    "subscribed": """CREATE TABLE split (id int, tenant_id int);
                     INSERT INTO pg_subscription_rel VALUES (1, 'split'::regclass, 'r', '0/1')""",
}


@pytest.mark.versions
@pytest.mark.parametrize("source", ALWAYS_BY_ROW)
def test_s21_some_sources_always_get_row_triggers(place: Place, author: Connection, source: str) -> None:
    place.superuser.execute(ALWAYS_BY_ROW[source].encode())
    place.superuser.execute("GRANT SELECT ON split TO st_author")
    pg_trickle.create_stream_table(author, "st", "SELECT id, tenant_id FROM split")
    writing = [(kind, definer) for name, _, kind, definer, *_ in triggers(place) if "trunc" not in name]
    assert len(writing) >= 3
    assert all(kind & ROW and not kind & (BEFORE | INSTEAD) and definer for kind, definer in writing)
    place.superuser.execute(
        """SET session_replication_role = replica; INSERT INTO split VALUES (1, 1), (2, 2), (3, 3);
           UPDATE split SET tenant_id = 1 WHERE id = 2; DELETE FROM split WHERE id = 3;
           RESET session_replication_role"""
    )
    place.fresh("st")
    assert place.last_refresh("reason") is None
    assert place.value("SELECT count(*) FROM st") == 2


def test_s22_capture_functions_are_security_definer_with_a_pinned_path(two_sources: Place) -> None:
    for _, _, _, definer, config, _ in triggers(two_sources):
        assert definer
        assert "search_path=pg_catalog, pg_temp" in config


def test_s23_capture_functions_run_as_the_stream_tables_owner(two_sources: Place) -> None:
    assert {owner for *_, owner in triggers(two_sources)} == {"st_author"}
    writer = two_sources.role("writer")
    two_sources.superuser.execute("GRANT INSERT ON orders TO writer")
    writer.execute("INSERT INTO orders VALUES (99, 1, 1, 1, '')")
    two_sources.fresh("st")
    assert two_sources.value("SELECT count(*) FROM st WHERE id = 99") == 1


@pytest.mark.versions
def test_s24_changes_are_captured_whoever_writes_them_and_however(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT id, tenant_id, amount FROM orders")
    writer = place.role("writer")
    place.superuser.execute("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON orders TO writer")
    for statement in (
        "INSERT INTO orders VALUES (101, 1, 1, 5, ''), (102, 2, 2, 6, '')",
        "UPDATE orders SET amount = amount + 1 WHERE id > 20",
        "DELETE FROM orders WHERE id BETWEEN 5 AND 8",
        "MERGE INTO orders AS o USING (VALUES (101), (103)) AS v (id) ON o.id = v.id"
        " WHEN MATCHED THEN UPDATE SET amount = 50 WHEN NOT MATCHED THEN INSERT VALUES (v.id, 3, 3, 7, '')",
        "INSERT INTO orders VALUES (101, 9, 9, 9, '') ON CONFLICT (id) DO UPDATE SET tenant_id = 9",
        "TRUNCATE orders",
    ):
        writer.execute(statement.encode())
        place.fresh("st")
    with writer.cursor() as cursor, cursor.copy("COPY orders FROM STDIN") as copy:
        copy.write_row((200, 1, 1, 1, "copied"))
    place.fresh("st")
    assert place.superuser.execute("SELECT id FROM st").fetchall() == [(200,)]


def test_s25_a_buffer_belongs_to_the_stream_tables_owner(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "first", TOTALS)
    pg_trickle.create_stream_table(place.author("other"), "second", "SELECT id, note FROM orders")
    owners = """SELECT c.relname::text, c.relowner::regrole::text FROM pg_class AS c
                 WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relname ~ '^changes_'
                   AND c.relkind = 'r' ORDER BY 1"""
    oid, other = place.value("SELECT 'orders'::regclass::oid::text"), place.value("SELECT 'other'::regrole::oid::text")
    found = place.superuser.execute(owners.encode()).fetchall()
    assert found == [(f"changes_{oid}", "st_author"), (f"changes_{oid}_{other}", "other")]


def test_s26_nobody_else_gets_at_a_buffer(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    buffer = place.buffer("orders", "st_author")
    place.author("other")
    for name in ("stranger", "writer"):
        place.role(name)
    place.superuser.execute("GRANT ALL ON orders TO writer")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO stranger, writer, other, app_reader")
    assert place.value("SELECT relacl FROM pg_class WHERE oid = to_regclass(%s)", buffer) is None
    for role in ("stranger", "writer", "other", "app_reader"):
        conn = place.as_(role)
        denied(conn, *(f"{verb} {buffer}" for verb in ("SELECT FROM", "DELETE FROM", "TRUNCATE", "DROP TABLE")))
        denied(conn, f"INSERT INTO {buffer} (xid, w) VALUES ('5', 1)", f"LOCK TABLE {buffer} IN ACCESS SHARE MODE")


def test_s27_revoking_insert_on_the_buffer_breaks_nothing(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    writer = place.role("writer")
    place.superuser.execute("GRANT INSERT ON orders TO writer")
    buffer = place.buffer("orders", "st_author")
    place.superuser.execute(f"REVOKE INSERT ON {buffer} FROM PUBLIC, writer".encode())
    writer.execute("INSERT INTO orders VALUES (99, 1, 1, 1, '')")
    assert place.value(f"SELECT count(*) FROM {buffer}") == 1
    place.fresh("st")


@pytest.mark.parametrize("mode", ["wal", "WAL"])
def test_s29_wal_capture_that_can_not_be_had_is_a_clear_error(
    place: Place, author: Connection, fails: Fails, mode: str
) -> None:
    error = fails("55000", pg_trickle.create_stream_table, author, "st", TOTALS, cdc_mode=mode)
    assert "wal_level" in str(error)
    assert "trigger" in (error.diag.message_hint or "")
    assert triggers(place) == []
    pg_trickle.create_stream_table(author, "st", TOTALS, cdc_mode="auto")
    assert len(triggers(place)) == 4
    place.fresh("st")


def test_s30_a_buffer_is_named_after_its_source(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    assert place.value("SELECT to_regclass('pgtrickle_changes.changes_' || 'orders'::regclass::oid) IS NOT NULL")


def test_s31_a_buffer_holds_both_images_of_what_changed(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT id, amount FROM orders")
    place.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, 5, '')")
    place.superuser.execute("UPDATE orders SET amount = 6 WHERE id = 99")
    place.superuser.execute("DELETE FROM orders WHERE id = 99")
    query = f"SELECT w, id, amount::int FROM {place.buffer('orders', 'st_author')} ORDER BY xid, w"
    assert place.superuser.execute(query.encode()).fetchall() == [(1, 99, 5), (-1, 99, 5), (1, 99, 6), (-1, 99, 6)]


def test_s32_a_buffer_holds_only_the_columns_the_query_references(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT name FROM customers WHERE id > 2")
    columns = """SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
                  WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"""
    buffer = place.buffer("customers", "st_author")
    assert place.value(columns, buffer) == ["xid", "seq", "w", "id", "name"]
    # Not even its key, unless it is referenced; and what nobody references any more goes.
    pg_trickle.alter_stream_table(author, "st", query="SELECT name, count(*) AS n FROM customers GROUP BY name")
    assert place.value(columns, buffer) == ["xid", "seq", "w", "name"]
    place.superuser.execute("UPDATE customers SET secret = 'treasure', name = 'x' WHERE id = 1; DELETE FROM customers")
    everything = place.superuser.execute(sql.SQL("SELECT b::text FROM {} AS b").format(sql.SQL(buffer))).fetchall()
    assert len(everything) > 2
    assert not [row for row in everything if "treasure" in row[0] or "secret" in row[0]]


def test_s33_a_sensitive_column_that_is_referenced_is_in_the_buffer(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT id, secret FROM customers")
    place.superuser.execute("UPDATE customers SET secret = 'treasure' WHERE id = 1")
    buffer = place.buffer("customers", "st_author")
    assert place.value(f"SELECT secret FROM {buffer} WHERE w = 1") == "treasure"
    denied(place.author("other"), f"SELECT FROM {buffer}")


def test_s34_a_buffer_follows_the_rules_for_tables(place: Place, author: Connection) -> None:
    kept = "SELECT relpersistence::text, reltablespace::int FROM pg_class WHERE oid = to_regclass(%s)"
    superuser = place.superuser
    superuser.execute("SET allow_in_place_tablespaces = on")
    superuser.execute("CREATE TABLESPACE pgt_security_space LOCATION ''")
    try:
        pg_trickle.create_stream_table(author, "st", "SELECT id FROM customers")
        default = superuser.execute(kept, (place.buffer("customers", "st_author"),)).fetchone()
        superuser.execute("GRANT CREATE ON TABLESPACE pgt_security_space TO st_author")
        author.execute("SET default_tablespace = pgt_security_space")
        pg_trickle.create_stream_table(author, "elsewhere", "SELECT id FROM orders")
        space = place.value("SELECT oid::int FROM pg_tablespace WHERE spcname = 'pgt_security_space'")
        there = superuser.execute(kept, (place.buffer("orders", "st_author"),)).fetchone()
        assert (default, there) == (("p", 0), ("p", space))
    finally:
        pg_trickle.drop_stream_table(superuser, "elsewhere")
        superuser.execute("DROP TABLESPACE pgt_security_space")


def lock_down(place: Place) -> Connection:
    owner = place.role("st_owner")
    place.superuser.execute(sql.SQL("SET ROLE postgres"))
    place.run("lock_down_buffers")
    return owner


@pytest.mark.versions
def test_s35_capture_goes_on_after_the_lockdown(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    lock_down(place)
    place.superuser.execute("UPDATE orders SET amount = amount * 2")
    place.fresh("st")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"


def test_s36_select_on_buffers_can_be_granted(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    owner = lock_down(place)
    buffer = place.buffer("orders", "st_author")
    denied(owner, f"SELECT FROM {buffer}")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO st_owner")
    assert owner.execute(f"SELECT count(*) FROM {buffer}".encode()).fetchone() == (0,)
    denied(owner, f"INSERT INTO {buffer} (xid, w) VALUES ('5', 1)", f"DELETE FROM {buffer}")
    place.superuser.execute("UPDATE orders SET amount = 7")
    place.fresh("st")
    # It is kept when the buffer gets another column, and when it is made anew.
    pg_trickle.create_stream_table(author, "st2", "SELECT id, note FROM orders", schedule=None)
    for tampering in (
        "SELECT",
        f"ALTER TABLE {buffer} ADD CHECK (w < 9)",
        f"CREATE RULE r AS ON DELETE TO {buffer} DO NOTHING",
    ):
        author.execute(tampering.encode())
        place.fresh("st", "st2")
        assert (
            place.value("SELECT pgtrickle_changes.capture_drift('orders'::regclass, to_regrole('st_author'))") is None
        )
        assert owner.execute(f"SELECT count(*) FROM {buffer} WHERE note = ''".encode()).fetchone() == (0,)
        denied(owner, f"DELETE FROM {buffer}")


def test_s54_the_ownership_of_capture_can_be_verified(two_sources: Place) -> None:
    other = two_sources.author("other")
    pg_trickle.create_stream_table(other, "st2", "SELECT id FROM customers")
    owners = {(source, owner) for _, source, *_, owner in triggers(two_sources)}
    assert owners == {("orders", "st_author"), ("customers", "st_author"), ("customers", "other")}
    query = """SELECT t.tgname FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                WHERE t.tgname LIKE 'pg\\_trickle%'
                  AND NOT EXISTS (SELECT FROM pgtrickle.pgt_captures AS k
                                   WHERE k.source_relid = t.tgrelid AND k.owner_oid = p.proowner)"""
    assert two_sources.superuser.execute(query.encode()).fetchall() == []
    assert_fresh(two_sources.superuser, "st2")
