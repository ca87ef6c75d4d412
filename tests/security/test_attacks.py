"""Attacks that must fail (A1–A15), and those of our own threat-model exercise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place, attempted, denied

Fails = Callable[..., psycopg.Error]

# What an attacker's code notes: as whom it ran.
LOG = """
CREATE SCHEMA own;
CREATE TABLE own.log (who name);
GRANT USAGE ON SCHEMA own TO PUBLIC; GRANT INSERT ON own.log TO PUBLIC;
CREATE FUNCTION own.note(value anyelement) RETURNS anyelement LANGUAGE plpgsql AS
    'BEGIN INSERT INTO own.log VALUES (current_user); RETURN value; END';
CREATE FUNCTION own.quiet(value anyelement) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN PERFORM own.note(1); RETURN value; END';
CREATE FUNCTION own.note_trigger() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO own.log VALUES (current_user); RETURN NEW; END';
CREATE FUNCTION own.attempt(command text) RETURNS int LANGUAGE plpgsql AS
    'BEGIN INSERT INTO own.log VALUES (current_user); EXECUTE command; RETURN 1; END';
CREATE FUNCTION own.pretended(command text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN RETURN own.attempt(command); END';
"""


@pytest.fixture
def attacker(place: Place, author: Connection) -> Connection:
    grant = sql.SQL("GRANT CREATE ON DATABASE {} TO st_author")
    place.superuser.execute(grant.format(sql.Identifier(place.database.name)))
    author.execute(LOG.encode())
    return author


def ran_as(place: Place) -> set[str]:
    return {who for (who,) in place.superuser.execute("SELECT who FROM own.log")}


def written(place: Place) -> None:
    """Writes to a source by a superuser, which must not fail."""
    place.superuser.execute("INSERT INTO orders VALUES (98, 1, 1, 1, '')")
    place.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id > 20; DELETE FROM orders WHERE id = 98")


def maintained(place: Place, name: str) -> None:
    """Refreshes by a superuser and by the worker, and housekeeping."""
    pg_trickle.refresh_stream_table(place.superuser, name)
    housekeeper = place.as_("pgtrickle_worker")
    housekeeper.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    with housekeeper.transaction():
        housekeeper.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        housekeeper.execute(
            """SELECT pgtrickle_changes.worker_refresh(
                   (SELECT array_agg(pgt_id) FROM pgtrickle_changes.worker_stream_tables()), 'SCHEDULER')"""
        )


COMMANDS = [
    "RESET ROLE",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE st_author SUPERUSER",
    "GRANT postgres TO st_author",
    "DROP TABLE customers",
    "UPDATE pgtrickle.pgt_stream_tables SET owner_oid = 10",
    "COPY customers TO PROGRAM 'true'",
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("function", ["attempt", "pretended"])
def test_a01_a_function_in_the_query_has_the_owners_rights_at_most(
    place: Place, attacker: Connection, command: str, function: str
) -> None:
    query = sql.SQL("SELECT id, own.{}({}) AS x FROM orders WHERE id < 3").format(
        sql.Identifier(function), sql.Literal(command)
    )
    pg_trickle.create_stream_table(
        attacker, "st", "SELECT id, 1 AS x FROM orders", refresh_mode="FULL", initialize=False
    )
    made = attempted(lambda: pg_trickle.alter_stream_table(attacker, "st", query=query.as_string(None)))
    assert made is None or function == "pretended", "what is said to be immutable is computed beforehand"
    refreshed = attempted(lambda: pg_trickle.refresh_stream_table(place.as_("postgres"), "st"))
    assert made or refreshed
    worker = place.as_("pgtrickle_worker")
    with worker.transaction():
        worker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        worker.execute(
            "SELECT pgtrickle_changes.worker_refresh(%s, 'SCHEDULER')",
            ([place.value("SELECT pgt_id FROM pgtrickle.pgt_stream_tables")],),
        )
    assert ran_as(place) <= {"st_author"}
    assert not place.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'st_author'")
    assert place.value("SELECT count(*) FROM customers") == 7


HOOKS = {
    "trigger": "CREATE TRIGGER hook BEFORE INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW"
    " EXECUTE FUNCTION own.note_trigger()",
    "statement trigger": "CREATE TRIGGER hook AFTER INSERT OR DELETE OR TRUNCATE ON {}"
    " EXECUTE FUNCTION own.note_trigger()",
    "check": "ALTER TABLE {} ADD CONSTRAINT hook CHECK (own.quiet(1) = 1)",
    "default": "ALTER TABLE {} ADD COLUMN hook int DEFAULT own.note(1)",
    "index": "CREATE INDEX hook ON {} ((own.quiet(1)))",
    "policy": "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY; ALTER TABLE {0} FORCE ROW LEVEL SECURITY;"
    " CREATE POLICY hook ON {0} USING (own.note(true))",
    "rule": "CREATE RULE hook AS ON INSERT TO {} DO ALSO SELECT own.note(1)",
    "deferred trigger": "CREATE CONSTRAINT TRIGGER hook AFTER INSERT OR UPDATE OR DELETE ON {} DEFERRABLE"
    " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION own.note_trigger()",
}


# Policies are lifted while a refresh writes, and with the others it fails before anything is left: all else does run.
WITHOUT_EFFECT = {"policy", "rule", "deferred trigger"}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("where", ["st", "state", "buffer"])
def test_a02_what_the_owner_attaches_to_his_tables_runs_as_him(
    place: Place, attacker: Connection, hook: str, where: str
) -> None:
    pg_trickle.create_stream_table(attacker, "st", TOTALS + " HAVING count(*) > 1", schedule=None)
    state = "SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^state_' AND relkind = 'r' LIMIT 1"
    table = {"st": "st", "state": place.value(state), "buffer": place.buffer("orders", "st_author")}[where]
    if hook == "index" and where != "st":
        denied(attacker, HOOKS[hook].format(table))
        return
    attacker.execute(HOOKS[hook].format(table).encode())
    written(place)
    # A refresh may stop at what its own owner has made.
    assert attempted(maintained, place, "st") in {None, "25000", "0A000"}
    written(place)
    place.superuser.execute("TRUNCATE orders")
    assert ran_as(place) <= {"st_author"}
    assert where != "st" or bool(ran_as(place)) == (hook not in WITHOUT_EFFECT)


CHANGES = [
    "ALTER FUNCTION {} SECURITY INVOKER",
    "ALTER FUNCTION {} SET search_path = own",
    "ALTER FUNCTION {} SET role = 'st_author'",
    "ALTER FUNCTION {} SET SCHEMA own",
    "DROP FUNCTION {} CASCADE",
]


@pytest.mark.parametrize("change", CHANGES)
def test_a03_an_altered_capture_function_harms_its_owner_alone(
    place: Place, attacker: Connection, change: str, worker: Any
) -> None:
    pg_trickle.create_stream_table(attacker, "st", TOTALS, schedule=None)
    functions = place.superuser.execute(
        "SELECT oid::regprocedure::text, prosrc FROM pg_proc WHERE proname ~ '^capture_[0-9]+_'"
    ).fetchall()
    for function, _ in functions:
        body = (
            "CREATE OR REPLACE FUNCTION {} RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN own.note(NULL::text); END'"
        )
        denied(attacker, body.format(function))
        attacker.execute(change.format(function).encode())
        if "SCHEMA own" in change:
            attacker.execute(body.format("own." + function.split(".")[1]).encode())
    writer = place.as_("postgres")
    writer.execute(
        "INSERT INTO orders VALUES (99, 9, 9, 9, ''); UPDATE orders SET amount = 0; DELETE FROM orders WHERE id = 1"
    )
    assert ran_as(place) == set()
    integrity = "SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'capture_integrity'"
    assert place.value(integrity) != "OK"
    place.fresh("st")
    assert place.value(integrity) == "OK"


def test_a04_no_way_around_a_missing_right(place: Place, author: Connection, fails: Fails) -> None:
    """The matrix is test_s59's; here, rights that an author had when he made something, and has no more."""
    pg_trickle.create_stream_table(author, "st", "SELECT id FROM customers", initialize=False)
    place.superuser.execute("REVOKE SELECT ON customers FROM st_author")
    for action in (
        lambda: pg_trickle.refresh_stream_table(author, "st"),
        lambda: pg_trickle.verify_stream_table(author, "st"),
        lambda: pg_trickle.alter_stream_table(author, "st", query="SELECT id, secret FROM customers"),
        lambda: pg_trickle.create_stream_table(author, "st2", "SELECT id FROM customers", initialize=False),
    ):
        fails("42501", action)
    assert place.value("SELECT count(*) FROM st") == 0


def test_a05_a_revoked_right_stops_refreshes_loudly(
    place: Place, author: Connection, fails: Fails, worker: Any
) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    rows = place.superuser.execute("SELECT * FROM st ORDER BY 1, 2").fetchall()
    place.superuser.execute("REVOKE SELECT ON orders FROM st_author")
    place.superuser.execute("UPDATE orders SET amount = 1000")
    worker.wait_for(lambda: place.last_refresh("success") is False)
    assert "permission denied" in place.last_refresh("error_message")
    assert place.superuser.execute("SELECT * FROM st ORDER BY 1, 2").fetchall() == rows
    assert place.value("SELECT consecutive_errors FROM pgtrickle.pgt_status()") > 0
    place.superuser.execute("GRANT SELECT ON orders TO st_author")
    pg_trickle.resume_stream_table(author, "st")
    place.fresh("st")


def test_a06_a_namesake_on_the_search_path_changes_nothing(place: Place, attacker: Connection) -> None:
    pg_trickle.create_stream_table(attacker, "st", TOTALS)
    attacker.execute("CREATE TABLE own.orders (id int, tenant_id int, customer_id int, amount numeric, note text)")
    attacker.execute("INSERT INTO own.orders VALUES (1, 666, 666, 666, '')")
    place.superuser.execute("UPDATE orders SET amount = 2")
    victim = place.as_("postgres")
    victim.execute("SET search_path = own, public")
    victim.execute("CREATE TEMPORARY TABLE orders (id int, tenant_id int, customer_id int, amount numeric)")
    pg_trickle.refresh_stream_table(victim, "public.st")
    assert_fresh(place.superuser, "st")
    assert place.value("SELECT count(*) FROM st WHERE tenant_id = 666") == 0


def test_a07_a_member_of_pgtrickle_admin_can_not_touch_what_is_not_his(
    place: Place, author: Connection, fails: Fails
) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    author.execute("SELECT pgtrickle.snapshot_stream_table('st', 'public.kept')")
    place.run("pgtrickle_admin", "pgtrickle_admin")
    admin = place.role("member")
    place.superuser.execute("GRANT pgtrickle_admin TO member")
    before = place.superuser.execute("SELECT * FROM pgtrickle.pgt_stream_tables").fetchall()
    named = place.superuser.execute(
        """SELECT p.oid::regproc::text, p.proargnames[1], (p.proargtypes::oid[])[0]::regtype::text FROM pg_proc AS p
            WHERE p.pronamespace = 'pgtrickle'::regnamespace AND p.proargnames[1] IN ('name', 'names')
              AND p.provolatile = 'v' AND p.proname NOT LIKE 'create%' AND p.proname <> 'compile_request'"""
    ).fetchall()
    assert len(named) >= 10
    for function, argument, of in named:
        value = "{public.st}" if of == "text[]" else "public.st"
        rest = {"bulk_alter": ", changes => '{}'", "restore_from": ", snapshot => 'public.kept'"}
        more = next((words for part, words in rest.items() if part in function), "")
        denied(admin, f"SELECT {function}({argument} => '{value}'{more})")
    denied(
        admin,
        "SELECT pgtrickle.drop_snapshot('public.kept')",
        "SELECT pgtrickle.subscribe('public.st', 'mine')",
        "SELECT pgtrickle.unsubscribe('public.st', 'mine')",
        "SELECT pgtrickle.drain()",
        "SELECT pgtrickle.undrain()",
        "SELECT pgtrickle.gate_source('public.orders')",
        "SELECT pgtrickle.ungate_source('public.orders')",
    )
    assert place.superuser.execute("SELECT * FROM pgtrickle.pgt_stream_tables").fetchall() == before


def test_a07_nor_call_a_helper_of_the_engine(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    place.run("pgtrickle_admin", "pgtrickle_admin")
    place.role("member")
    place.superuser.execute("GRANT pgtrickle_admin TO member")
    callable_by_member = place.superuser.execute(
        """SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
              AND has_function_privilege('member', p.oid, 'EXECUTE')"""
    ).fetchall()
    assert callable_by_member == []
    denied(
        place.as_("member"),
        "SELECT pgtrickle_changes.run_as(10, 'SELECT 1')",
        "SELECT pgtrickle_changes.worker_refresh('{1}', 'SCHEDULER')",
        "SELECT pgtrickle.grant_worker('member')",
        "INSERT INTO pgtrickle.pgt_settings VALUES ('enabled', 'off')",
        "INSERT INTO pgtrickle_changes.bridge_requests (request) VALUES ('{}')",
    )


def test_a08_cascade_ends_where_ownership_ends(place: Place, author: Connection, fails: Fails) -> None:
    pg_trickle.create_stream_table(author, "lower", TOTALS)
    other = place.author("other")
    pg_trickle.create_stream_table(
        other, "upper", "SELECT tenant_id, sum(total) AS total FROM lower GROUP BY tenant_id"
    )
    fails("42501", pg_trickle.drop_stream_table, author, "lower", cascade=True)
    fails("2BP01", pg_trickle.drop_stream_table, author, "lower")
    place.fresh("lower", "upper")


def test_a09_a_reader_can_not_write(place: Place) -> None:
    author, reader = place.split()
    pg_trickle.create_stream_table(author, "st", TOTALS)
    author.execute("GRANT SELECT ON st TO app_reader")
    for setting in (
        "SET row_security = off",
        "SET session_replication_role = replica",
        "SET pg_trickle.enabled = off",
        "SET ROLE st_author",
    ):
        attempted(reader.execute, setting.encode())
        denied(reader, "DELETE FROM st")
    denied(reader, "INSERT INTO st VALUES (1, 1, 1)", "UPDATE st SET total = 0", "TRUNCATE st")
    author.execute("UPDATE st SET total = 0 WHERE tenant_id = 1")
    assert not pg_trickle.verify_stream_table(author, "st").ok


def test_a11_forged_messages_and_requests_harm_nobody(place: Place, author: Connection, worker: Any) -> None:
    """Anybody may NOTIFY; requests take a right that nobody has, and even then are only ever compiled."""
    for _ in range(500):
        author.execute("NOTIFY pgtrickle_bridge, 'DROP TABLE orders'")
    denied(author, "INSERT INTO pgtrickle_changes.bridge_requests (request) VALUES ('{}')")
    forged = ["{}", "[]", "null", '{"format": 1, "query": "DROP TABLE orders"}', '"' + "x" * 5_000_000 + '"']
    for request in forged:
        place.superuser.execute("INSERT INTO pgtrickle_changes.bridge_requests (request) VALUES (%s)", (request,))
    answered = "SELECT count(*) FROM pgtrickle_changes.bridge_requests WHERE error ->> 'sqlstate' IN ('22023', '54000')"
    worker.wait_for(lambda: place.value(answered) == len(forged))
    author.execute("SELECT pgtrickle.create_stream_table('st', %s)", (TOTALS,))
    assert_fresh(place.superuser, "st")
    # A flood: the worker works it off, and others are served beside it.
    place.superuser.execute(
        "INSERT INTO pgtrickle_changes.bridge_requests (request) SELECT '{}' FROM generate_series(1, 300)"
    )
    author.execute("SELECT pgtrickle.create_stream_table('st2', %s)", (TOTALS,))
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    worker.wait_for(lambda: place.value("SELECT sum(total) FROM st2") == place.value("SELECT sum(amount) FROM orders"))


def test_a12_other_peoples_ddl_works_as_before(place: Place) -> None:
    person = place.role("person")
    place.superuser.execute("GRANT CREATE ON SCHEMA public TO person")
    for statement in (
        "CREATE TABLE theirs (id int)",
        "ALTER TABLE theirs ADD COLUMN name text",
        "CREATE VIEW their_view AS SELECT id FROM theirs",
        "CREATE FUNCTION their_function() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE theirs RENAME COLUMN name TO label",
        "DROP VIEW their_view",
        "DROP TABLE theirs",
        "DROP FUNCTION their_function()",
    ):
        person.execute(statement.encode())
    assert place.value("SELECT count(*) FROM pg_event_trigger") == 0


def test_a14_column_privileges_reach_into_the_buffer(place: Place, fails: Fails) -> None:
    clerk = place.author("clerk")
    place.superuser.execute("REVOKE SELECT ON customers FROM clerk; GRANT SELECT (id, name) ON customers TO clerk")
    pg_trickle.create_stream_table(clerk, "st", "SELECT name, count(*) AS n FROM customers GROUP BY name")
    place.superuser.execute("UPDATE customers SET name = 'x', secret = 'y' WHERE id < 4")
    place.fresh("st")
    columns = "SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 3"
    assert place.value(columns, place.buffer("customers", "clerk")) == ["name"]
    for query in (
        "SELECT secret FROM customers",
        "SELECT * FROM customers",
        "SELECT id FROM customers ORDER BY secret",
    ):
        fails("42501", pg_trickle.create_stream_table, clerk, "st2", query)


def test_a15_two_authors_on_one_source_do_not_meet(place: Place, author: Connection) -> None:
    other = place.author("other")
    pg_trickle.create_stream_table(author, "a", TOTALS)
    pg_trickle.create_stream_table(other, "b", "SELECT id, note FROM orders")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO other")
    mine, theirs = place.buffer("orders", "st_author"), place.buffer("orders", "other")
    denied(other, f"SELECT FROM {mine}", f"DROP TABLE {mine}", f"LOCK TABLE {mine} IN ACCESS SHARE MODE")
    (function,) = place.superuser.execute(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname = %s", (f"capture_{mine.split('_')[-1]}_upd",)
    ).fetchone() or ("",)
    denied(other, f"DROP FUNCTION {function}", f"ALTER FUNCTION {function} SECURITY INVOKER")
    other.execute(f"ALTER TABLE {theirs} ADD COLUMN more int".encode())
    place.superuser.execute("UPDATE orders SET amount = 1, note = 'x'")
    place.fresh("a")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
    place.fresh("b")
    other.execute(f"DROP TABLE {theirs} CASCADE".encode())
    place.superuser.execute("UPDATE orders SET amount = 2, note = 'y'")
    place.fresh("a")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
    place.fresh("b")


# What an owner does to his buffer.  The first of each pair goes wrong for every write, if it is obeyed.
SPOILT = {
    "column dropped": "ALTER TABLE {buffer} DROP COLUMN amount",
    "column renamed": "ALTER TABLE {buffer} RENAME amount TO other",
    "column added": "ALTER TABLE {buffer} ADD COLUMN more int NOT NULL DEFAULT 1",
    "type": "ALTER TABLE {buffer} ALTER amount TYPE numeric(1, 0)",
    "not null": "ALTER TABLE {buffer} ALTER tenant_id SET NOT NULL",
    "check": "ALTER TABLE {buffer} ADD CHECK (false) NOT VALID",
    "unlogged": "ALTER TABLE {buffer} SET UNLOGGED",
    "identity": "ALTER TABLE {buffer} ALTER seq DROP IDENTITY",
    "sequence": "ALTER TABLE {buffer} ALTER seq SET MAXVALUE 2; SELECT nextval('{sequence}'), nextval('{sequence}')",
    "sequence right": "REVOKE ALL ON SEQUENCE {sequence} FROM st_author",
    "right": "REVOKE ALL ON {buffer} FROM st_author",
    "row security": "ALTER TABLE {buffer} ENABLE ROW LEVEL SECURITY; ALTER TABLE {buffer} FORCE ROW LEVEL SECURITY",
    "trigger": "CREATE FUNCTION own.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';"
    " CREATE TRIGGER no BEFORE INSERT ON {buffer} FOR EACH ROW EXECUTE FUNCTION own.no()",
    "rule": "CREATE RULE no AS ON INSERT TO {buffer} DO INSTEAD SELECT 1 / 0",
    "partition": "CREATE TABLE own.parent (LIKE {buffer}) PARTITION BY LIST (w);"
    " ALTER TABLE {buffer} ALTER seq DROP IDENTITY;"
    " ALTER TABLE own.parent ATTACH PARTITION {buffer} FOR VALUES IN (5)",
    "gone": "DROP TABLE {buffer} CASCADE",
}


@pytest.mark.parametrize("mode", ["statement", "row"])
@pytest.mark.parametrize("spoilt", SPOILT)
def test_a15_whatever_an_owner_does_to_his_buffer_writers_go_on(
    place: Place, attacker: Connection, spoilt: str, mode: str
) -> None:
    """Nobody's statement fails, another author isn't touched, and the owner's next refresh repairs it."""
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s)", (mode,))
    pg_trickle.create_stream_table(attacker, "st", TOTALS, schedule=None)
    pg_trickle.create_stream_table(place.author("other"), "theirs", TOTALS, schedule=None)
    buffer = place.buffer("orders", "st_author")
    sequence = place.value("SELECT pg_get_serial_sequence(%s, 'seq')", buffer)
    attacker.execute(SPOILT[spoilt].format(buffer=buffer, sequence=sequence).encode())
    written(place)
    written(place)
    place.fresh("theirs")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
    place.fresh("st")
    written(place)
    place.fresh("st")
    assert place.last_refresh("reason") is None


@pytest.mark.versions
@pytest.mark.parametrize("lock", ["LOCK TABLE {buffer}", "ALTER SEQUENCE {sequence} CACHE 1"])
def test_a15_an_owner_who_locks_his_buffer_makes_nobody_wait_for_long(
    place: Place, author: Connection, worker: Any, lock: str
) -> None:
    """A second at most; the change is missed, which is noted and made good."""
    pg_trickle.create_stream_table(author, "st", TOTALS)
    buffer = place.buffer("orders", "st_author")
    sequence = place.value("SELECT pg_get_serial_sequence(%s, 'seq')", buffer)
    locker = place.as_("st_author")
    with locker.transaction():
        locker.execute(lock.format(buffer=buffer, sequence=sequence).encode())
        began = time.monotonic()
        place.superuser.execute("INSERT INTO orders VALUES (99, 9, 9, 9, '')")
        assert time.monotonic() - began < 10
    integrity = "SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'capture_integrity'"
    severity, detail = place.superuser.execute(integrity).fetchone() or (None, None)
    assert severity != "OK"
    assert "locked" in detail
    place.as_("pgtrickle_worker").execute("SELECT pgtrickle_changes.worker_housekeeping()")
    worker.wait_for(lambda: place.value("SELECT count(*) FROM st WHERE tenant_id = 9") == 1)
    assert_fresh(place.superuser, "st")
    assert (place.superuser.execute(integrity).fetchone() or ("",))[0] == "OK"


def test_a15_nobody_notes_missed_changes_for_another(place: Place, author: Connection) -> None:
    other = place.author("other")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO other")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    oid = place.value("SELECT 'orders'::regclass::oid::bigint")
    denied(
        other,
        f"INSERT INTO pgtrickle_changes.missed_changes (source_relid, owner_oid) VALUES ({oid}, 'st_author'::regrole)",
        "SELECT FROM pgtrickle_changes.missed_changes",
        "DELETE FROM pgtrickle_changes.missed_changes",
        "LOCK TABLE pgtrickle_changes.missed_changes",
    )
    other.execute(f"INSERT INTO pgtrickle_changes.missed_changes (source_relid) VALUES ({oid})".encode())
    pg_trickle.refresh_stream_table(author, "st")
    assert place.last_refresh("skipped_reason") == "no changes"
