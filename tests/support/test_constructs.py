"""Each construct of docs/sql-support.md in each mode, against the query itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.support.constructs import FILE, Construct, constructs, written

Connection = psycopg.Connection[Any]

HERE = Path(__file__).parent
MODES = ("DIFFERENTIAL", "FULL", "AUTO")
CONSTRUCTS = constructs()


@pytest.fixture
def tables(db: Connection) -> Connection:
    db.execute((HERE / "tables.sql").read_text())
    return db


@pytest.fixture(scope="module")
def rewriting(request: pytest.FixtureRequest) -> Iterator[dict[str, Construct] | None]:
    """Collects what is true of each construct, and writes it down in the end, if that is asked for."""
    if not request.config.getoption("--rewrite"):
        yield None
        return
    found: dict[str, Construct] = {}
    yield found
    FILE.write_text(written(found.get(one.test, one) for one in CONSTRUCTS))


@pytest.mark.parametrize("construct", CONSTRUCTS, ids=[one.test for one in CONSTRUCTS])
def test_a_construct_does_what_the_page_says(
    tables: Connection, construct: Construct, rewriting: dict[str, Construct] | None
) -> None:
    refused = _create(tables, construct)
    if rewriting is not None:
        rewriting[construct.test] = replace(construct, refused=refused)
        return
    assert refused == construct.refused
    for mode in MODES:
        if mode not in refused:
            assert _effective_mode(tables, mode) == construct.mode(mode)
    if "random()" in construct.query or "age FROM events" in construct.query:
        return
    _maintained(tables, [mode for mode in MODES if mode not in refused])


def _create(conn: Connection, construct: Construct) -> dict[str, str]:
    """A stream table in every mode that takes the query; what the others refuse."""
    refused = {}
    for mode in MODES:
        try:
            pg_trickle.create_stream_table(conn, mode.lower(), construct.query, schedule=None, refresh_mode=mode)
        except (psycopg.errors.FeatureNotSupported, pg_trickle.PgTrickleError) as exc:
            text = exc.diag.message_primary if isinstance(exc, psycopg.Error) else str(exc)
            refused[mode] = (text or "").removesuffix(" can't be maintained incrementally")
    return refused


def _effective_mode(conn: Connection, mode: str) -> str:
    found = conn.execute(
        "SELECT effective_refresh_mode FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (mode.lower(),)
    ).fetchone()
    return str(found and found[0])


def _maintained(conn: Connection, modes: list[str]) -> None:
    for mode in modes:
        assert_fresh(conn, mode.lower())
    conn.execute((HERE / "changes.sql").read_text())
    for _ in range(2):
        for mode in modes:
            with conn.transaction():
                pg_trickle.refresh_stream_table(conn, mode.lower())
                assert_fresh(conn, mode.lower())
        conn.execute("UPDATE orders SET amount = coalesce(amount, 0) - 7; UPDATE lines SET qty = 2 WHERE qty = 1")
        conn.execute(
            "UPDATE customers SET id = id + 1 WHERE id = 9; DELETE FROM edges WHERE a = 6; DELETE FROM parted_2"
        )
