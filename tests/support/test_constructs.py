"""Each construct of docs/sql-support.md in each mode, against the query itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing import installed_binaries
from pg_trickle.testing.oracle import assert_fresh
from tests.conftest import TEMPLATE, Database, Servers
from tests.support.constructs import FILE, Construct, constructs, written

Connection = psycopg.Connection[Any]

HERE = Path(__file__).parent
MODES = ("DIFFERENTIAL", "FULL", "AUTO")
CONSTRUCTS = constructs()


@pytest.fixture(scope="module")
def made(servers: Servers) -> Iterator[tuple[Connection, dict[str, dict[str, str]]]]:
    """Every construct as a stream table of each mode that takes it, then the changes; what was refused."""
    database = Database(servers.of(installed_binaries()[0].major), "constructs")
    database.server.create_database(database.name, TEMPLATE)
    conn = database.connect()
    conn.execute((HERE / "tables.sql").read_text())
    refused = {one.test: _create(conn, place, one) for place, one in enumerate(CONSTRUCTS)}
    conn.execute((HERE / "changes.sql").read_text())
    yield conn, refused
    database.remove()


@pytest.fixture(scope="module")
def rewriting(request: pytest.FixtureRequest) -> Iterator[dict[str, Construct] | None]:
    """Collects what is true of each construct, and writes it down in the end, if that is asked for."""
    if not request.config.getoption("--rewrite"):
        yield None
        return
    found: dict[str, Construct] = {}
    yield found
    FILE.write_text(written(found.get(one.test, one) for one in CONSTRUCTS))


@pytest.mark.slow
@pytest.mark.parametrize(("place", "construct"), list(enumerate(CONSTRUCTS)), ids=[one.test for one in CONSTRUCTS])
def test_a_construct_does_what_the_page_says(
    made: tuple[Connection, dict[str, dict[str, str]]],
    place: int,
    construct: Construct,
    rewriting: dict[str, Construct] | None,
) -> None:
    conn, refused = made[0], made[1][construct.test]
    if rewriting is not None:
        is_run = _effective_mode(conn, f"differential_{place}") == "FULL"
        in_part = _is_run_in_part(conn, f"differential_{place}")
        construct = rewriting[construct.test] = replace(construct, refused=refused, is_run=is_run, in_part=in_part)
    assert refused == construct.refused
    assert _is_run_in_part(conn, f"differential_{place}") == construct.in_part
    for mode in MODES:
        if mode not in refused:
            name = f"{mode.lower()}_{place}"
            assert _effective_mode(conn, name) == construct.mode(mode)
            with conn.transaction():
                # In one transaction, for what depends on the time; what depends on chance can't be compared.
                pg_trickle.refresh_stream_table(conn, name)
                if "random()" not in construct.query:
                    assert_fresh(conn, name)


def _create(conn: Connection, place: int, construct: Construct) -> dict[str, str]:
    """A stream table in every mode that takes the query; what the others refuse."""
    refused = {}
    for mode in MODES:
        name = f"{mode.lower()}_{place}"
        try:
            pg_trickle.create_stream_table(conn, name, construct.query, schedule=None, refresh_mode=mode)
        except psycopg.errors.FeatureNotSupported as exc:
            refused[mode] = (exc.diag.message_primary or "").removesuffix(" can't be maintained incrementally")
        except pg_trickle.PgTrickleError as exc:
            refused[mode] = str(exc)
    return refused


def _effective_mode(conn: Connection, name: str) -> str:
    found = conn.execute("SELECT effective_refresh_mode FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,))
    return str((found.fetchone() or (None,))[0])


def _is_run_in_part(conn: Connection, name: str) -> bool:
    found = conn.execute(
        "SELECT EXISTS (SELECT FROM jsonb_array_elements(plan #> '{explain,tree}') AS line"
        " WHERE line ->> 'operator' = 'Query') AND (plan ->> 'incremental')::boolean"
        " FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables USING (pgt_id) WHERE pgt_name = %s",
        (name,),
    )
    return bool((found.fetchone() or (False,))[0])
