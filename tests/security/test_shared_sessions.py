"""The worker refreshes, cleans up and counts for many owners in its sessions: none gets at the others' turn there."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

import pg_trickle
from pg_trickle.cli.main import app
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place, attempted, denied

HOOKED = """
CREATE FUNCTION hook() RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.ran VALUES (session_user); {} RETURN true; END $$;
ALTER TABLE {} ENABLE ROW LEVEL SECURITY; ALTER TABLE {} FORCE ROW LEVEL SECURITY;
CREATE POLICY hook ON {} USING (hook());
"""


def run_at_every_look(place: Place, villain: Connection, code: str) -> None:
    """Have code of an owner's run whenever his change buffer is looked into."""
    buffer = place.buffer("orders", "st_author")
    place.superuser.execute("CREATE TABLE ran (who name); GRANT INSERT ON ran TO PUBLIC")
    villain.execute(HOOKED.format(code, buffer, buffer, buffer).encode())


def ran(place: Place) -> set[str]:
    return {who for (who,) in place.superuser.execute("SELECT DISTINCT who FROM ran")}


@pytest.fixture
def villain(place: Place, author: Connection) -> Connection:
    pg_trickle.create_stream_table(author, "st", TOTALS, schedule=None)
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    return author


def housekeeping(place: Place) -> Any:
    row = place.as_("pgtrickle_worker").execute("SELECT pgtrickle_changes.worker_housekeeping()").fetchone()
    return row and row[0]


def test_s57_no_code_of_an_owner_runs_in_housekeeping(place: Place, villain: Connection) -> None:
    """It could have set how long the history is kept: for a moment ago."""
    before = place.value("SELECT count(*) FROM pgtrickle.pgt_refresh_history")
    run_at_every_look(place, villain, "PERFORM set_config('pg_trickle.history_retention_days', '0', false);")
    keeper = place.as_("pgtrickle_worker")
    for _ in range(2):
        keeper.execute("SET pg_trickle.history_retention_days = 0")
        keeper.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert ran(place) == set()
    assert place.value("SELECT count(*) FROM pgtrickle.pgt_refresh_history") == before > 0


def test_a15_nor_when_pending_changes_are_looked_for(place: Place, villain: Connection) -> None:
    """There it could keep the worker for as long as it likes."""
    run_at_every_look(place, villain, "PERFORM pg_sleep(1000);")
    worker = place.as_("pgtrickle_worker")
    worker.execute("SET statement_timeout = '20s'")
    pending = """SELECT pgtrickle_changes.worker_pending(ARRAY(
                     SELECT pgt_id FROM pgtrickle_changes.worker_stream_tables()))"""
    row = worker.execute(pending.encode()).fetchone()
    assert row is not None
    assert len(row[0]) == 1
    # Who looks at how much is waiting need not trust the owners of what he sees.
    watcher = place.role("watcher")
    place.superuser.execute("GRANT pg_monitor TO watcher")
    watcher.execute("SET statement_timeout = '20s'")
    assert watcher.execute("SELECT pending_rows FROM pgtrickle.change_buffer_sizes()").fetchall() == [(None,)]
    assert ran(place) == set()


def test_a15_an_owner_who_locks_his_buffer_keeps_nobody_else_waiting(
    place: Place, villain: Connection, worker: Any
) -> None:
    other = place.author("other")
    pg_trickle.create_stream_table(other, "theirs", TOTALS)
    with villain.transaction():
        villain.execute(f"LOCK TABLE {place.buffer('orders', 'st_author')}; LOCK TABLE st".encode())
        pg_trickle.alter_stream_table(place.as_("other"), "theirs", schedule="calculated")
        place.superuser.execute("UPDATE orders SET amount = 77 WHERE id = 1")
        worker.wait_for(lambda: is_fresh(place, "theirs"))
        assert housekeeping(place)["problems"] == []
        place.superuser.execute("SET statement_timeout = '20s'")
        for look in ("health_check()", "pgt_status()", "change_buffer_sizes()", "check_cdc_health()"):
            place.superuser.execute(f"SELECT * FROM pgtrickle.{look}".encode())


def test_a15_an_owner_who_alters_a_sequence_stops_no_worker(place: Place, villain: Connection, worker: Any) -> None:
    """In an open transaction: whoever counts must not wait for it, nor give up."""
    other = place.author("other")
    pg_trickle.create_stream_table(other, "theirs", TOTALS)
    sequence = place.value(
        "SELECT sequence_relid::regclass::text FROM pgtrickle.pgt_captures ORDER BY owner_oid LIMIT 1"
    )
    with villain.transaction():
        villain.execute(f"ALTER SEQUENCE {sequence} CACHE 2".encode())
        # Writers of the source miss his change after a second; the others' are captured.
        place.superuser.execute("UPDATE orders SET amount = 77 WHERE id = 1")
        worker.wait_for(lambda: is_fresh(place, "theirs"))
    pg_trickle.refresh_stream_table(place.superuser, "st")
    assert_fresh(place.superuser, "st")


def is_fresh(place: Place, name: str) -> bool:
    return bool(pg_trickle.verify_stream_table(place.superuser, name).ok)


SETTINGS = {
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "default_transaction_read_only": "on",
    "client_encoding": "LATIN1",
    "synchronous_commit": "off",
    "row_security": "off",
    "pg_trickle.fuse_default_ceiling": "1",
    "idle_session_timeout": "1",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a02_no_setting_is_left_behind(place: Place, author: Connection, setting: str) -> None:
    """In the session of who refreshes by hand, for instance a superuser's; nor in the worker's."""
    pg_trickle.create_stream_table(author, "st", TOTALS, schedule=None)
    author.execute(
        f"""CREATE FUNCTION hook() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM set_config('{setting}', '{SETTINGS[setting]}', false); RETURN NEW; END $$;
            CREATE TRIGGER hook BEFORE INSERT OR UPDATE ON st FOR EACH ROW EXECUTE FUNCTION hook()""".encode()
    )
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    for role in ("postgres", "pgtrickle_worker"):
        session = place.as_(role)
        shown = session.execute("SELECT current_setting(%s, true)", (setting,)).fetchone()
        if role == "postgres":
            assert attempted(pg_trickle.refresh_stream_table, session, "st") is not None
        else:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            attempted(
                session.execute, "SELECT pgtrickle_changes.worker_refresh((SELECT array_agg(pgt_id) FROM"
                " pgtrickle_changes.worker_stream_tables()), 'SCHEDULER')"
            )  # fmt: skip
            session.execute("COMMIT")
        after = session.execute("SELECT current_setting(%s, true)", (setting,)).fetchone()
        assert (after or ("",))[0] in {(shown or ("",))[0], ""}


def test_s40_whoever_may_write_all_data_rules_nothing(place: Place, author: Connection) -> None:
    """pg_write_all_data is no superuser: rows of ours decide what runs as whom."""
    pg_trickle.create_stream_table(author, "st", TOTALS)
    scribe = place.role("scribe")
    place.superuser.execute("GRANT pg_write_all_data, pg_read_all_data TO scribe")
    tables = place.superuser.execute(
        """SELECT c.oid::regclass::text,
                  (SELECT quote_ident(a.attname) FROM pg_attribute AS a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attidentity = '' ORDER BY a.attnum LIMIT 1)
             FROM pg_class AS c
            WHERE c.relkind = 'r' AND c.relowner = 10
              AND c.relnamespace::regnamespace::text IN ('pgtrickle', 'pgtrickle_changes')"""
    ).fetchall()
    assert len(tables) > 15
    for table, column in tables:
        if column is not None:
            assert scribe.execute(f"UPDATE {table} SET {column} = {column}".encode()).rowcount == 0, table
            assert scribe.execute(f"DELETE FROM {table}".encode()).rowcount == 0, table
    denied(
        scribe,
        "INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')",
        "INSERT INTO pgtrickle_changes.missed_changes (source_relid, owner_oid) VALUES (1, 10)",
        "INSERT INTO pgtrickle_changes.bridge_requests (request) VALUES ('{}')",
    )
    assert scribe.execute("SELECT * FROM pgtrickle_changes.gate_secret").fetchall() == []
    call = "INSERT INTO pgtrickle.gate (action, args, caller) SELECT 'drop_stream_table', '{\"name\": \"public.st\"}', "
    for caller in ("'postgres'", "'st_author'", "NULL", "NULL::pgtrickle_changes.calling_role"):
        assert attempted(scribe.execute, (call + caller).encode()) is not None, caller
    assert attempted(scribe.execute, b"CREATE TEMPORARY TABLE kept (who pgtrickle_changes.calling_role)") == "42501"
    assert attempted(scribe.execute, b"CREATE TEMPORARY TABLE kept AS SELECT caller FROM pgtrickle.gate") == "42501"
    place.fresh("st")


def test_a06_no_namesake_of_a_function_or_operator_is_called_by_our_programs(place: Place, author: Connection) -> None:
    """An author may create in public, on a superuser's path, what fits better than PostgreSQL's own."""
    pg_trickle.create_stream_table(author, "st", TOTALS)
    author.execute(
        """CREATE TABLE ran (who name); GRANT INSERT ON ran TO PUBLIC;
           CREATE FUNCTION caught() RETURNS boolean LANGUAGE plpgsql AS
               'BEGIN INSERT INTO public.ran VALUES (current_user); RETURN true; END';
           CREATE FUNCTION format(text, int) RETURNS text LANGUAGE sql AS 'SELECT public.caught()::text';
           CREATE FUNCTION same(regclass, regclass) RETURNS boolean LANGUAGE sql AS 'SELECT public.caught()';
           CREATE OPERATOR = (LEFTARG = regclass, RIGHTARG = regclass, FUNCTION = same);
           CREATE FUNCTION joined(text, name) RETURNS text LANGUAGE sql AS 'SELECT public.caught()::text';
           CREATE OPERATOR || (LEFTARG = text, RIGHTARG = name, FUNCTION = joined)"""
    )
    for command in (["doctor"], ["list"], ["explain", "public.st"], ["verify", "public.st"], ["refresh", "public.st"]):
        CliRunner().invoke(app, [*command, "--dsn", place.database.dsn])
    pg_trickle.alter_stream_table(place.superuser, "public.st", query=TOTALS.replace("sum", "max"))
    pg_trickle.refresh_stream_table(place.superuser, "public.st")
    assert place.value("SELECT array_agg(DISTINCT who) FROM ran") is None
    assert_fresh(place.superuser, "public.st")


def test_statements_that_come_and_go_are_not_left_behind(place: Place) -> None:
    """With many of them PostgreSQL tells of the others in another order."""
    session = place.superuser
    for number in range(40):
        session.execute(f"PREPARE mine_{number} AS SELECT 1".encode())
    session.execute(
        """
        DO $$
        DECLARE
            before text := pgtrickle_changes.session_state();
        BEGIN
            FOR i IN 1..600 LOOP EXECUTE format('PREPARE other_%s AS SELECT 1', i); END LOOP;
            ASSERT pgtrickle_changes.session_state() <> before;
            FOR i IN 1..600 LOOP EXECUTE format('DEALLOCATE other_%s', i); END LOOP;
            ASSERT pgtrickle_changes.session_state() = before;
        END $$
        """
    )
