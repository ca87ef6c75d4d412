"""Mending a stream table, and doing a thing to several at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

GROUPS = "SELECT g, count(*) AS n, sum(x) AS s FROM t GROUP BY g HAVING count(*) > 0"


@pytest.fixture
def source(db: Connection) -> Connection:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, g int, x int)")
    db.execute("INSERT INTO t SELECT n, n % 3, n FROM generate_series(1, 9) AS n")
    return db


def status(db: Connection) -> dict[str, str]:
    return dict(db.execute("SELECT pgt_name, status FROM pgtrickle.pgt_stream_tables").fetchall())


@pytest.mark.versions
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("SELECT 1", "nothing to repair"),
        ("UPDATE t SET x = 0", "nothing to repair"),
        ("DROP TRIGGER pg_trickle_cdc_upd ON t; UPDATE t SET x = 7", 'trigger "pg_trickle_cdc_upd" was dropped'),
        ("DROP TABLE pgtrickle_changes.state_1_1", "missing: state_1_1"),
        ("DELETE FROM st WHERE g = 1; UPDATE st SET s = 5 WHERE g = 2", "contents: 2 rows missing, 1 too many"),
    ],
)
def test_what_is_broken_is_mended_and_told(source: Connection, assert_fresh: Oracle, damage: str, found: str) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None)
    source.execute(damage.encode())
    assert found in pg_trickle.repair_stream_table(source, "st")
    assert_fresh(source, "st")
    assert pg_trickle.repair_stream_table(source, "st") == "public.st: nothing to repair"
    source.execute("UPDATE t SET g = g + 1")
    pg_trickle.refresh_stream_table(source, "st")
    assert_fresh(source, "st")


def test_only_what_is_stale_is_refreshed(source: Connection, assert_fresh: Oracle) -> None:
    pg_trickle.create_stream_table(source, "st", GROUPS, schedule=None, initialize=False)
    assert pg_trickle.refresh_if_stale(source, "st")
    source.execute("DELETE FROM t WHERE id = 1")
    assert not pg_trickle.refresh_if_stale(source, "st")
    assert pg_trickle.refresh_if_stale(source, "st", timedelta())
    assert_fresh(source, "st")


def test_what_was_suspended_by_hand_stays_so_when_all_goes_on(source: Connection, database: Any) -> None:
    author = database.make_role("st_author")
    source.execute("GRANT CREATE, USAGE ON SCHEMA public TO st_author; GRANT SELECT ON t TO st_author")
    source.execute("GRANT USAGE ON SCHEMA pgtrickle TO st_author")
    source.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO st_author")
    pg_trickle.create_stream_table(source, "theirs", GROUPS, schedule=None)
    conn = database.connect(author)
    for name in ("one", "two", "by_hand"):
        pg_trickle.create_stream_table(conn, name, GROUPS, schedule=None)
    pg_trickle.suspend_stream_table(conn, "by_hand")
    assert conn.execute("SELECT pgtrickle.pause_all()").fetchone() == (2,)
    assert status(source) == {"theirs": "ACTIVE", "one": "SUSPENDED", "two": "SUSPENDED", "by_hand": "SUSPENDED"}
    assert conn.execute("SELECT pgtrickle.pause_all()").fetchone() == (0,)
    assert conn.execute("SELECT pgtrickle.resume_all()").fetchone() == (2,)
    assert status(source) == {"theirs": "ACTIVE", "one": "ACTIVE", "two": "ACTIVE", "by_hand": "SUSPENDED"}
    pg_trickle.drop_stream_table(conn, "one")
    source.execute("DROP OWNED BY st_author CASCADE")


def test_several_are_created_changed_and_dropped_at_once(source: Connection, worker: Any, assert_fresh: Oracle) -> None:
    definitions = [
        {"name": "a", "query": GROUPS, "schedule": None},
        {"name": "b", "query": "SELECT count(*) AS groups FROM a", "refresh_mode": "FULL"},
    ]
    assert source.execute("SELECT pgtrickle.bulk_create(%s)", (Jsonb(definitions),)).fetchone() == (2,)
    assert_fresh(source, "b")
    changes = Jsonb({"tier": "cold", "schedule": "1h"})
    source.execute("SELECT pgtrickle.bulk_alter_stream_tables(ARRAY['a', 'b'], %s)", (changes,))
    rows = source.execute("SELECT pgt_name, tier, schedule FROM pgtrickle.pgt_stream_tables ORDER BY 1").fetchall()
    assert rows == [("a", "cold", "1h"), ("b", "cold", "1h")]
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        source.execute("SELECT pgtrickle.bulk_drop_stream_tables(ARRAY['a'])")
    assert source.execute("SELECT pgtrickle.bulk_drop_stream_tables(ARRAY['a', 'b', 'a'])").fetchone() == (2,)
    assert status(source) == {}


@pytest.mark.parametrize("call", ["bulk_alter_stream_tables(NULL, '{}')", "bulk_drop_stream_tables(NULL)"])
def test_no_array_of_names_is_told(db: Connection, call: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="names are an array"):
        db.execute(f"SELECT pgtrickle.{call}".encode())


@pytest.mark.parametrize(
    ("definitions", "complaint"),
    [
        ({"name": "a"}, "definitions are a JSON array"),
        (["a"], "arguments of a stream table are a JSON object"),
        ([{"name": "a", "query": "SELECT 1 AS x", "plan": {}}], 'no argument "plan"'),
        ([{"name": "a", "query": "SELECT 1 AS x", "search_path": "evil"}], 'no argument "search_path"'),
    ],
)
def test_what_is_no_definition_creates_nothing(db: Connection, definitions: object, complaint: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=complaint):
        db.execute("SELECT pgtrickle.bulk_create(%s)", (Jsonb(definitions),))
    assert status(db) == {}
