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

Fails = Callable[..., psycopg.Error]

GUARDED = ["enabled", "allow_circular", "max_fixpoint_iterations", "cdc_mode", "cdc_trigger_mode"]
DEFAULTS = {
    "enabled": "on",
    "allow_circular": "off",
    "max_fixpoint_iterations": "100",
    "cdc_mode": "auto",
    "cdc_trigger_mode": "statement",
}


@pytest.fixture
def configure(place: Place) -> Iterator[Callable[[str, str], None]]:
    """ALTER SYSTEM as superuser, undone afterwards."""
    changed = []

    def change(name: str, value: str) -> None:
        changed.append(name)
        setting = sql.SQL("pg_trickle.{}").format(sql.Identifier(name))
        # Before PostgreSQL 17, ALTER SYSTEM takes a setting of ours only after this session has named it.
        place.superuser.execute(sql.SQL("SET {} = {}").format(setting, sql.Literal(value)))
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


def test_s38_a_cycle_is_refused_and_named(place: Place, author: Connection, fails: Fails) -> None:
    closing = cycle(place, author)
    error = fails("42P17", pg_trickle.alter_stream_table, author, "a", query=closing)
    assert "public.a reads public.b, which reads public.a" in (error.diag.message_detail or "")
    assert place.value("SELECT defining_query FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'a'") != closing
    place.fresh("a", "b")


NOT_MONOTONE = {
    "aggregate": "SELECT max(id) AS id, tenant_id FROM b GROUP BY tenant_id",
    "EXCEPT": "SELECT id, tenant_id FROM orders EXCEPT SELECT id, tenant_id FROM b",
    "LEFT JOIN": "SELECT o.id, b.tenant_id FROM orders AS o LEFT JOIN b USING (id)",
    "NOT EXISTS": "SELECT id, tenant_id FROM orders AS o WHERE NOT EXISTS (SELECT FROM b WHERE b.id = o.id)",
}


@pytest.mark.parametrize("construct", NOT_MONOTONE)
def test_s39_a_cycle_that_is_not_monotone_is_refused_even_when_on(
    place: Place, author: Connection, fails: Fails, construct: str
) -> None:
    cycle(place, author)
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')")
    error = fails("0A000", pg_trickle.alter_stream_table, author, "a", query=NOT_MONOTONE[construct])
    assert construct in str(error)
    assert "public.a reads public.b, which reads public.a" in (error.diag.message_detail or "")
    place.fresh("a", "b")


def test_s39_a_monotone_cycle_converges_to_what_with_recursive_gives(place: Place, author: Connection) -> None:
    place.superuser.execute("CREATE TABLE edges (src int, dst int); GRANT SELECT ON edges TO st_author")
    place.superuser.execute("INSERT INTO edges VALUES (1, 2), (2, 3), (3, 1), (4, 5)")
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')")
    step = "SELECT src, dst FROM edges UNION SELECT r.src, e.dst FROM {} AS r JOIN edges AS e ON e.src = r.dst"
    pg_trickle.create_stream_table(author, "odd", "SELECT src, dst FROM edges")
    pg_trickle.create_stream_table(author, "even", step.format("odd"))
    pg_trickle.alter_stream_table(author, "odd", query=step.format("even"))
    query = f"WITH RECURSIVE r AS ({step.format('r')}) SELECT array_agg(row(src, dst)::text ORDER BY src, dst) FROM r"
    for statement in ("SELECT", "DELETE FROM edges WHERE src = 3", "INSERT INTO edges VALUES (3, 4), (5, 3)"):
        place.superuser.execute(statement.encode())
        place.fresh("odd", "even")
        for name in ("odd", "even"):
            found = place.value(f"SELECT array_agg(row(src, dst)::text ORDER BY src, dst) FROM {name}")
            assert found == place.value(query)


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
def test_s40_allow_circular_is_for_superusers_alone(place: Place, author: Connection, fails: Fails) -> None:
    closing = cycle(place, author)
    fails("42501", author.execute, "ALTER SYSTEM SET pg_trickle.allow_circular = 'on'")
    denied(author, "INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')")
    for conn in sessions(place, "allow_circular", "on"):
        fails("42P17", pg_trickle.alter_stream_table, conn, "a", query=closing)
    assert effective(place, "allow_circular") == "off"


@pytest.mark.versions
def test_s40_alter_system_and_a_reload_allow_it(
    place: Place, author: Connection, fails: Fails, configure: Callable[[str, str], None]
) -> None:
    closing = cycle(place, author)
    fails("42P17", pg_trickle.alter_stream_table, author, "a", query=closing)
    configure("allow_circular", "on")
    place.superuser.execute("SELECT pg_reload_conf()")
    assert effective(place, "allow_circular") == "on"
    pg_trickle.alter_stream_table(author, "a", query=closing)
    place.fresh("a", "b")


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
