"""What the engine refuses: every place names a SQLSTATE and a way out, and what callers meet most is read in full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing import installed_binaries
from tests.conftest import TEMPLATE, Database, Servers

Connection = psycopg.Connection[tuple[Any, ...]]
SCRIPTS = Path(pg_trickle.__file__).parent / "install" / "sql"
# What no caller reads: signals between the engine's functions, errors that are passed on, and one that is caught.
PASSED_ON = ("ERRCODE = 'TK", "ERRCODE = v_sqlstate", "'a buffer is locked or was altered'")
SETUP = """
CREATE TABLE t (id int PRIMARY KEY);
CREATE TABLE u (id int);
CREATE TEMPORARY TABLE passing (id int);
"""
ASK = "Ask that role, or a superuser."
GROUP = "A group has a name, and a tolerance of 0 or more seconds."
NAME = 'Write it as in SQL: name, schema.name or "Schema"."Name".'
LIST = "List the stream tables with SELECT * FROM pgtrickle.pgt_status()."
SNAPSHOTS = "List the snapshots with SELECT * FROM pgtrickle.list_snapshots();"
GATE = "Call the functions of schema pgtrickle; the gate is theirs."
CALLS = {
    "gate_source('nowhere')": ("42P01", 'table "nowhere" does not exist', "Name a table that stream tables read."),
    "advance_watermark('t', NULL)": ("22023", "the watermark is NULL", "Say up to when the source is complete."),
    "advance_watermark('t', '2024-01-01')": (
        "22000",
        'the watermark of "public.t" would go backwards',
        "What was complete stays so. To begin anew, drop the table and create it again.",
    ),
    "create_watermark_group('', ARRAY['t', 'u'])": ("22023", "the name of a watermark group is invalid", GROUP),
    "create_watermark_group('g', ARRAY['t', 'u'], -1)": (
        "22023", "the tolerance of a watermark group is invalid", GROUP),
    "create_watermark_group('g', ARRAY['t'])": (
        "22023", "a watermark group needs two sources", "Name the tables that are loaded together."),
    "create_watermark_group('taken', ARRAY['t', 'u'])": (
        "42710",
        'watermark group "taken" already exists',
        "Choose another name, or drop it first with drop_watermark_group().",
    ),
    "drop_watermark_group('nowhere')": (
        "42704",
        'watermark group "nowhere" does not exist',
        "List them with SELECT * FROM pgtrickle.watermark_status();",
    ),
    "alter_stream_table('s', schedule => 'often')": (
        "22023",
        'invalid schedule "often"',
        "Write '30s', '1h30m', '2w', a number of seconds, '*/5 * * * *', '@hourly' or 'calculated'.",
    ),
    "alter_stream_table('s', schedule => '0s')": (
        "22023", 'schedule "0s" is too short', "Use 'calculated' to be refreshed whenever sources change."),
    "alter_stream_table('s', schedule => '99999w')": (
        "22023", 'schedule "99999w" is too long', "Use NULL to be refreshed by hand alone."),
    "alter_stream_table('s', tier => 'lukewarm')": (
        "22023", 'invalid tier: "lukewarm"', "Choose one of: hot, warm, cold, frozen."),
    "alter_stream_table('s', fuse_ceiling => -2)": (
        "22023",
        "invalid fuse_ceiling: -2",
        "A number of changes; 0 for no fuse, -1 for what pg_trickle.fuse_default_ceiling says.",
    ),
    "refresh_stream_table('a.b.c')": ("22023", "invalid stream table name: 'a.b.c'", NAME),
    "refresh_stream_table(NULL)": ("22023", "invalid stream table name: NULL", NAME),
    "refresh_stream_table('t')": ("42P01", 'stream table "t" does not exist', LIST),
    "drop_stream_table('s')": (
        "2BP01",
        'cannot drop stream table "s" because other stream tables depend on it',
        'Drop them first, or pass "cascade" => true.',
    ),
    "bulk_create('{}')": (
        "22023", "definitions are a JSON array", 'For instance [{"name": "totals", "query": "SELECT ..."}].'),
    "bulk_alter_stream_tables(ARRAY['s'], '{\"shedule\": \"1s\"}')": (
        "22023",
        'a stream table has no argument "shedule"',
        "There are: schedule, refresh_mode, status, diamond_consistency, diamond_schedule_policy, cdc_mode,"
        " append_only, tier, fuse_ceiling.",
    ),
    "bulk_drop_stream_tables(NULL)": (
        "22023", "names are an array, not NULL", "For instance ARRAY['totals', 'public.averages']."),
    "drop_stream_table_publication('s')": (
        "42704",
        'stream table "s" is not published',
        "SELECT * FROM pg_publication_tables; shows all. DROP PUBLICATION drops any.",
    ),
    "explain_stream_table('s', 'yaml')": ("22023", 'unknown format "yaml"', "The formats are text and json."),
    "drop_snapshot('nowhere')": ("42704", 'snapshot "nowhere" does not exist', SNAPSHOTS),
    "snapshot_stream_table('s', 'pgtrickle.x')": (
        "22023", 'snapshots can\'t be created in schema "pgtrickle"', "Choose another schema."),
    "snapshot_stream_table('empty')": (
        "55000",
        'stream table "empty" was never filled',
        "SELECT pgtrickle.refresh_stream_table('public.empty'); first.",
    ),
    "subscribe('s', '')": ("22023", "invalid channel: ''", "A name of 1 to 63 bytes, as LISTEN takes it."),
    "subscribe('s', 'taken')": (
        "42710",
        'channel "taken" is subscribed to stream table "s" already',
        "SELECT * FROM pgtrickle.list_subscriptions();",
    ),
    "unsubscribe('s', 'c')": (
        "42704",
        'channel "c" is not subscribed to stream table "s"',
        "SELECT * FROM pgtrickle.list_subscriptions();",
    ),
    "write_and_refresh(NULL, 's')": (
        "22023", "the statement is NULL", "To write nothing, call pgtrickle.refresh_stream_table(name)."),
    "reset_fuse('s', 'nothing')": (
        "22023", 'invalid action: "nothing"', "Choose one of: apply, reinitialize, skip_changes."),
}  # fmt: skip
STRANGER = {
    "refresh_stream_table('s')": ("42501", 'must be owner of stream table "s"', ASK),
    "drop_watermark_group('taken')": ("42501", 'must be owner of watermark group "taken"', ASK),
    "drop_snapshot('kept')": ("42501", 'must be owner of snapshot "public.kept"', ASK),
    "gate_source('t')": (
        "42501", 'must be owner of table "t"', "suspend_stream_table() holds up a stream table of your own."),
    "grant_worker('postgres')": (
        "42501",
        "permission denied to appoint the worker's role",
        "Ask a superuser to call pgtrickle.grant_worker().",
    ),
}  # fmt: skip
CREATED = {
    ("s", "SELECT id FROM t"): (
        "42P07",
        'relation "s" already exists',
        "Choose another name, or use create_or_replace_stream_table for a stream table.",
    ),
    ("nowhere.x", "SELECT id FROM t"): (
        "3F000", 'schema "nowhere" does not exist', "CREATE SCHEMA nowhere; or name another."),
    ("pgtrickle.x", "SELECT id FROM t"): (
        "22023", 'stream tables can\'t be created in schema "pgtrickle"', "Choose another schema."),
    ("x", ""): ("42601", "the defining query is empty", "Write a SELECT."),
    ("x", "SELECT FROM t"): ("42601", "a stream table needs a column", "Select something."),
    ("x", "SELECT id AS __pgt_x FROM t"): (
        "42939", 'the column name "__pgt_x" is reserved', "Call it something else: ... AS pgt_x"),
    ("x", "DELETE FROM t"): (
        "42601",
        "a stream table is defined by one query",
        "Write one SELECT, VALUES or TABLE, that changes no data.",
    ),
    ("x", "SELECT id FROM passing"): (
        "0A000", "a stream table can't read temporary tables", "Use ordinary tables."),
    ("x", "SELECT id AS ctid FROM t"): (
        "42701",
        'column name "ctid" conflicts with a system column name',
        "Give the column another name, with AS.",
    ),
    ("x", "SELECT ROW(1, 2) AS r FROM t"): (
        "42P16",
        'column "r" has pseudo-type record',
        "Cast it to a type that a table's column can have, or select its parts.",
    ),
}  # fmt: skip
Told = tuple[str, str, str]


def refusals() -> Iterator[tuple[str, str]]:
    """Each place of the engine that raises an error, and its text."""
    for path in sorted(SCRIPTS.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"RAISE EXCEPTION (?:'(?:[^']|'')*'|[^;'])*;", text):
            yield f"{path.name}:{text.count(chr(10), 0, found.start()) + 1}", found[0]


PLACES = dict(refusals())


@pytest.mark.parametrize("place", PLACES)
def test_each_place_that_refuses_names_a_code_and_a_way_out(place: str) -> None:
    text = PLACES[place]
    assert "ERRCODE = " in text
    assert "HINT = " in text or any(sign in text for sign in PASSED_ON)


def test_the_places_are_found() -> None:
    raised = sum(path.read_text(encoding="utf-8").count("RAISE EXCEPTION") for path in SCRIPTS.glob("*.sql"))
    assert len(PLACES) == raised > 100


@pytest.fixture(scope="module")
def conn(servers: Servers) -> Iterator[Connection]:
    """A database in which there is something of everything; nothing that is refused changes it."""
    database = Database(servers.of(installed_binaries()[0].major), "refusals")
    database.server.create_database(database.name, TEMPLATE)
    made = database.connect()
    made.execute(SETUP)
    pg_trickle.create_stream_table(made, "s", "SELECT id FROM t", schedule=None)
    pg_trickle.create_stream_table(made, "above", "SELECT id FROM s", schedule=None)
    pg_trickle.create_stream_table(made, "empty", "SELECT id FROM t", schedule=None, initialize=False)
    made.execute(
        "SELECT pgtrickle.advance_watermark('t', '2025-01-01'), pgtrickle.subscribe('s', 'taken'),"
        " pgtrickle.create_watermark_group('taken', ARRAY['t', 'u']), pgtrickle.snapshot_stream_table('s', 'kept')"
    )
    database.make_role("refused_stranger")
    made.execute("GRANT USAGE ON SCHEMA pgtrickle TO refused_stranger")
    made.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO refused_stranger")
    yield made
    made.execute("DROP OWNED BY refused_stranger")
    database.remove()


def said(error: psycopg.Error) -> Told:
    return str(error.sqlstate), str(error.diag.message_primary), str(error.diag.message_hint)


@pytest.mark.parametrize("call", CALLS)
def test_what_a_caller_is_told(conn: Connection, call: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"SELECT pgtrickle.{call}".encode())
    assert said(caught.value) == CALLS[call]


@pytest.mark.parametrize("call", STRANGER)
def test_what_a_stranger_is_told(conn: Connection, call: str) -> None:
    conn.execute("SET ROLE refused_stranger")
    try:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"SELECT pgtrickle.{call}".encode())
    finally:
        conn.execute("RESET ROLE")
    assert said(caught.value) == STRANGER[call]


@pytest.mark.parametrize(("name", "query"), CREATED)
def test_what_somebody_is_told_who_creates(conn: Connection, name: str, query: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        pg_trickle.create_stream_table(conn, name, query, schedule=None)
    assert said(caught.value) == CREATED[name, query]


@pytest.mark.parametrize(("action", "args"), [("nonsense", "{}"), ("refresh_stream_table", "[]")])
def test_what_somebody_is_told_who_goes_round_the_functions(conn: Connection, action: str, args: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        conn.execute("INSERT INTO pgtrickle.gate (action, args) VALUES (%s, %s)", (action, args))
    assert caught.value.diag.message_hint == GATE


def test_what_is_refused_changes_nothing(conn: Connection) -> None:
    names = conn.execute("SELECT pgt_name FROM pgtrickle.pgt_stream_tables ORDER BY 1").fetchall()
    assert names == [("above",), ("empty",), ("s",)]
