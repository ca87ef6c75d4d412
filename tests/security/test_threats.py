"""The guide's threats: source data by way of a stream table or a buffer, and things done as a superuser (S55–S60)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import pg_trickle
from pg_trickle.api import compile_locally
from tests.security.conftest import TOTALS, Connection, Place, denied

Fails = Callable[..., psycopg.Error]

WAYS: dict[str, Callable[[Connection, str], Any]] = {
    "create": lambda conn, query: pg_trickle.create_stream_table(conn, "st", query),
    "not filled": lambda conn, query: pg_trickle.create_stream_table(conn, "st", query, initialize=False),
    "recomputed": lambda conn, query: pg_trickle.create_stream_table(conn, "st", query, refresh_mode="FULL"),
    "if not exists": lambda conn, query: pg_trickle.create_stream_table_if_not_exists(conn, "st", query),
    "or replace": lambda conn, query: pg_trickle.create_or_replace_stream_table(conn, "st", query),
    "alter": lambda conn, query: pg_trickle.alter_stream_table(conn, "mine", query=query),
    "replace": lambda conn, query: pg_trickle.create_or_replace_stream_table(conn, "mine", query),
    "compile": lambda conn, query: compile_locally(conn, "st", query),
    "validate": lambda conn, query: pg_trickle.validate_query(conn, query),
    "bulk": lambda conn, query: conn.execute(
        "SELECT pgtrickle.bulk_create(%s)", (Jsonb([{"name": "st", "query": query}]),)
    ),
    "snapshot": lambda conn, _: conn.execute("SELECT pgtrickle.snapshot_stream_table('others', 'st')"),
}
SECRETS = {
    "table": "SELECT id FROM hidden",
    "column": "SELECT secret FROM partly",
    "condition": "SELECT id FROM partly WHERE secret > 'a'",
    "whole row": "SELECT p::text AS line FROM partly AS p",
    "view": "SELECT id FROM hidden_view",
    "own view": "SELECT secret FROM own_view",
    "stream table": "SELECT id FROM others",
    "subquery": "SELECT id FROM orders WHERE id IN (SELECT id FROM hidden)",
}


@pytest.fixture
def intruder(place: Place, author: Connection) -> Connection:
    pg_trickle.create_stream_table(author, "mine", "SELECT id FROM orders")
    place.superuser.execute(
        """CREATE TABLE hidden (id int PRIMARY KEY);
           CREATE TABLE partly (id int PRIMARY KEY, secret text); GRANT SELECT (id) ON partly TO st_author;
           CREATE VIEW hidden_view AS SELECT id FROM hidden"""
    )
    author.execute("CREATE VIEW own_view AS SELECT id, secret FROM partly")
    pg_trickle.create_stream_table(place.superuser, "others", "SELECT id FROM hidden")
    return author


def traces(place: Place) -> Any:
    return place.superuser.execute(
        """SELECT 'relation', oid::regclass::text FROM pg_class WHERE relname ~ '^(st|changes_|query_|state_)'
           UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE tgname ~ '^pg_trickle'
           UNION ALL SELECT 'table', pgt_name || defining_query FROM pgtrickle.pgt_stream_tables ORDER BY 1, 2"""
    ).fetchall()


@pytest.mark.parametrize("way", WAYS)
def test_s59_no_way_leads_to_what_one_may_not_read(place: Place, intruder: Connection, fails: Fails, way: str) -> None:
    before = traces(place)
    for secret, query in SECRETS.items():
        fails("42501", WAYS[way], intruder, query)
        assert traces(place) == before, secret


def test_s59_a_right_that_is_gone_is_missed_at_the_next_refresh(
    place: Place, author: Connection, fails: Fails, worker: Any
) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS, schedule=None)
    place.superuser.execute("REVOKE SELECT ON orders FROM st_author; UPDATE orders SET amount = 0")
    fails("42501", pg_trickle.refresh_stream_table, author, "st")
    fails("42501", pg_trickle.refresh_stream_table, place.superuser, "st")
    assert "permission denied" in place.last_refresh("error_message")


def test_s60_nobody_sees_what_is_captured_for_another(place: Place, author: Connection, fails: Fails) -> None:
    other = place.author("other")
    place.superuser.execute("REVOKE SELECT ON customers FROM other; GRANT SELECT (id, name) ON customers TO other")
    pg_trickle.create_stream_table(author, "st", "SELECT id, secret FROM customers")
    pg_trickle.create_stream_table(other, "st2", "SELECT id, name FROM customers")
    place.superuser.execute("UPDATE customers SET secret = 'treasure', name = 'x' WHERE id = 1")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO other")
    denied(other, f"SELECT FROM {place.buffer('customers', 'st_author')}", "SELECT FROM st")
    seen = other.execute(f"SELECT * FROM {place.buffer('customers', 'other')}".encode()).fetchall()
    assert seen
    assert "treasure" not in str(seen)
    fails("42501", pg_trickle.create_stream_table, other, "st3", "SELECT id, secret FROM customers")


def test_s55_stream_tables_are_refreshed_as_their_owner(place: Place, author: Connection, worker: Any) -> None:
    """Whoever refreshes: what the query calls sees the owner."""
    author.execute(
        """CREATE FUNCTION who() RETURNS text STABLE LANGUAGE plpgsql AS 'BEGIN RETURN current_user; END';
           GRANT EXECUTE ON FUNCTION who() TO PUBLIC"""
    )
    pg_trickle.create_stream_table(author, "st", "SELECT id, who() AS who FROM orders")
    place.superuser.execute("INSERT INTO orders VALUES (98, 1, 1, 1, '')")
    pg_trickle.refresh_stream_table(place.superuser, "st")
    place.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, 1, '')")
    worker.wait_for(lambda: place.value("SELECT count(*) FROM st WHERE id = 99") == 1)
    assert place.superuser.execute("SELECT DISTINCT who FROM st").fetchall() == [("st_author",)]
    assert place.value("SELECT tableowner FROM pg_tables WHERE tablename = 'st'") == "st_author"


def test_s59_a_plan_opens_nothing(place: Place, intruder: Connection, fails: Fails) -> None:
    """Whatever text a client passes as a plan, it runs as the owner."""
    with intruder.transaction(force_rollback=True):
        plan = compile_locally(intruder, "st", "SELECT id FROM orders").to_json()
        plan["programs"]["fill"] = ["SELECT pg_catalog.count(*) FROM public.hidden"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege), intruder.transaction():
            intruder.execute(
                "SELECT pgtrickle.create_stream_table_with_plan('st', 'SELECT id FROM orders', plan => %s)",
                (Jsonb(plan),),
            )
