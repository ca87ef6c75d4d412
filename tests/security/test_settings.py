"""Settings that guard something can't be flipped by who isn't a superuser (S37–S40, S58)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place, denied

Stopped = Callable[..., psycopg.Error]

GUARDED = ["enabled", "allow_circular", "cdc_mode", "cdc_trigger_mode"]
DEFAULTS = {"enabled": "on", "allow_circular": "off", "cdc_mode": "auto", "cdc_trigger_mode": "statement"}


@pytest.fixture
def configure(place: Place) -> Iterator[Callable[[str, str], None]]:
    """ALTER SYSTEM as superuser, undone afterwards."""
    changed = []

    def change(name: str, value: str) -> None:
        changed.append(name)
        setting = sql.SQL("pg_trickle.{}").format(sql.Identifier(name))
        place.superuser.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(setting, sql.Literal(value)))

    yield change
    for name in changed:
        place.superuser.execute(sql.SQL("ALTER SYSTEM RESET pg_trickle.{}").format(sql.Identifier(name)))


def effective(place: Place, name: str) -> Any:
    return place.value("SELECT pgtrickle_changes.setting(%s)", name)


def test_s37_cycles_are_off_by_default(place: Place) -> None:
    assert {name: effective(place, name) for name in GUARDED} == DEFAULTS


def cycle(place: Place, author: Connection) -> str:
    """Two stream tables, and the query that would close the circle."""
    pg_trickle.create_stream_table(author, "a", "SELECT id, tenant_id FROM orders")
    pg_trickle.create_stream_table(author, "b", "SELECT id, tenant_id FROM a")
    return "SELECT id, tenant_id FROM orders UNION SELECT id, tenant_id FROM b"


def test_s38_a_cycle_is_refused_and_named(place: Place, author: Connection, stopped: Stopped) -> None:
    closing = cycle(place, author)
    error = stopped("42P17", pg_trickle.alter_stream_table, author, "a", query=closing)
    assert "public.a reads public.b, which reads public.a" in (error.diag.message_detail or "")
    assert place.value("SELECT defining_query FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'a'") != closing
    place.fresh("a", "b")


NOT_MONOTONE = [
    "SELECT max(id) AS id, tenant_id FROM b GROUP BY tenant_id",
    "SELECT id, tenant_id FROM orders EXCEPT SELECT id, tenant_id FROM b",
    "SELECT o.id, b.tenant_id FROM orders AS o LEFT JOIN b USING (id)",
    "SELECT id, tenant_id FROM orders AS o WHERE NOT EXISTS (SELECT FROM b WHERE b.id = o.id)",
]


@pytest.mark.parametrize("query", NOT_MONOTONE)
def test_s39_a_cycle_that_is_not_monotone_is_refused_even_when_on(
    place: Place, author: Connection, stopped: Stopped, query: str
) -> None:
    cycle(place, author)
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')")
    stopped("42P17", pg_trickle.alter_stream_table, author, "a", query=query)
    place.fresh("a", "b")


def sessions(place: Place, name: str, value: str) -> list[Connection]:
    """Sessions of st_author in which the setting has been set in every way but by ALTER SYSTEM."""
    superuser = place.superuser
    setting, to = sql.SQL("pg_trickle.{}").format(sql.Identifier(name)), sql.Literal(value)
    author = place.as_("st_author")
    author.execute(sql.SQL("SET {} = {}").format(setting, to))
    # PostgreSQL itself keeps a plain role from this, but somebody may have done it for him.
    superuser.execute(sql.SQL("ALTER ROLE st_author SET {} = {}").format(setting, to))
    by_role = place.as_("st_author")
    superuser.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(sql.Identifier(place.database.name), setting, to))
    by_database = place.as_("st_author")
    by_options = psycopg.connect(
        place.database.dsn_of("st_author"), options=f"-c pg_trickle.{name}={value}", autocommit=True
    )
    place.database.connections.append(by_options)
    for conn in (author, by_role, by_database, by_options):
        shown = conn.execute("SELECT current_setting(%s)", (f"pg_trickle.{name}",)).fetchone()
        assert shown == (value,)
    return [author, by_role, by_database, by_options]


@pytest.mark.versions
def test_s40_allow_circular_is_for_superusers_alone(place: Place, author: Connection, stopped: Stopped) -> None:
    closing = cycle(place, author)
    stopped("42501", author.execute, "ALTER SYSTEM SET pg_trickle.allow_circular = 'on'")
    denied(author, "INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')")
    for conn in sessions(place, "allow_circular", "on"):
        stopped("42P17", pg_trickle.alter_stream_table, conn, "a", query=closing)
    assert effective(place, "allow_circular") == "off"


def test_s40_alter_system_reaches_the_engine(place: Place, configure: Callable[[str, str], None]) -> None:
    configure("allow_circular", "on")
    assert effective(place, "allow_circular") == "on"


@pytest.mark.parametrize(("name", "value"), [("cdc_mode", "wal"), ("cdc_trigger_mode", "row"), ("enabled", "off")])
def test_s40_nor_can_capture_or_the_worker_be_switched_by_a_session(
    place: Place, author: Connection, name: str, value: str
) -> None:
    for number, conn in enumerate(sessions(place, name, value)):
        pg_trickle.create_stream_table(conn, f"st{number}", TOTALS)
        assert conn.execute("SELECT trigger_mode FROM pgtrickle.visible_captures").fetchone() is not None
    place.superuser.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(sql.Identifier(place.database.name)))
    assert place.value("SELECT array_agg(DISTINCT trigger_mode) FROM pgtrickle.pgt_captures") == ["statement"]
    assert effective(place, name) == DEFAULTS[name]


def test_s58_disabling_stops_refreshes_and_loses_no_change(
    place: Place, author: Connection, worker: Any, caplog: Any
) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    with caplog.at_level("INFO"):
        place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('enabled', 'off')")
        worker.wait_for(lambda: "scheduling switched off" in caplog.text)
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    place.superuser.execute("INSERT INTO orders VALUES (99, 9, 9, 9, '')")
    worker.wait_until_idle()
    assert place.value("SELECT count(*) FROM st WHERE tenant_id = 9") == 0
    place.superuser.execute("DELETE FROM pgtrickle.pgt_settings WHERE name = 'enabled'")
    worker.wait_for(lambda: place.value("SELECT count(*) FROM st WHERE tenant_id = 9") == 1)
    assert_fresh(place.superuser, "st")
    assert place.last_refresh("refresh_mode") == "DIFFERENTIAL"
