"""How errors look."""

from __future__ import annotations

import psycopg
import pytest

from pg_trickle.cli.failure import report
from pg_trickle.errors import UnsupportedQuery


def test_a_refusal_shows_where_why_and_what_to_do() -> None:
    query = "SELECT id,\n\trank() OVER (ORDER BY id)\n  FROM t"
    error = UnsupportedQuery("window function", "its value depends on other rows", position=query.index("rank") + 1)
    assert report(error, query).splitlines() == [
        "error: window function can't be maintained incrementally (0A000)",
        "  \trank() OVER (ORDER BY id)",
        "  \t^",
        "detail: its value depends on other rows",
        "hint: Use refresh_mode => 'FULL' or 'AUTO', or write the query without it.",
    ]


def test_without_a_position_there_is_no_caret() -> None:
    assert "^" not in report(UnsupportedQuery("window function", "why"), "SELECT 1")


def test_a_servers_error_in_the_query_points_into_the_query(db: psycopg.Connection[object]) -> None:
    query = "SELECT nothing FROM pg_class"
    with pytest.raises(psycopg.Error) as caught:
        db.execute("DO $do$ BEGIN EXECUTE 'CREATE VIEW v AS SELECT nothing FROM pg_class'; END $do$")
    assert report(caught.value, query).splitlines()[:3] == [
        'error: column "nothing" does not exist (42703)',
        "  SELECT nothing FROM pg_class",
        "         ^",
    ]


def test_a_failed_connection_says_what_to_look_at() -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2")
    shown = report(caught.value)
    assert "(08001)" in shown
    assert "hint: Is the server running" in shown
