"""TPC-H's 22 queries, each maintained by its changes alone, whatever happens to the tables below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.rewrite import selections
from pg_trickle.testing.oracle import assert_fresh, differences
from tests.tpch.churn import BATCHES, SINGLES
from tests.tpch.data import NAMES, generate, load, queries
from tests.upkeep import explained

SCALE = 0.01

Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(database, tmp_path, monkeypatch):
    # At this scale no table but two is large.
    monkeypatch.setattr(selections, "LARGE", 100)
    made = database.connect()
    generate(SCALE, tmp_path)
    load(made, tmp_path)
    made.execute("ANALYZE")
    return made


@pytest.mark.slow
def test_every_query_stays_equal_to_its_stream_table(conn):
    for name, query in queries(SCALE).items():
        pg_trickle.create_stream_table(conn, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    assert {name for name in NAMES if "few of a large table's rows" in explained(conn, name)} >= {
        "q02",
        "q08",
        "q17",
        "q21",
    }
    written = dict.fromkeys(NAMES, 0)
    for title, statement in SINGLES.items():
        _cycle(conn, title, (statement,), None, written)
    for cycle, batch in enumerate(BATCHES, 1):
        _cycle(conn, batch.title, batch.statements, {"cycle": cycle}, written)
    idle = [name for name, rows in written.items() if not rows]
    assert not idle, f"nothing that happened concerned {idle}"
    for name in NAMES:
        assert_fresh(conn, name)


def _cycle(
    conn: Connection, title: str, statements: Iterable[str], values: dict[str, int] | None, written: dict[str, int]
) -> None:
    with conn.transaction():
        for statement in statements:
            conn.execute(statement, values)
    for name in written:
        pg_trickle.refresh_stream_table(conn, name)
        mode, rows = _last_refresh(conn, name)
        assert mode == "DIFFERENTIAL", f"{name} was recomputed when {title}"
        assert differences(conn, name) == [], f"{name}, when {title}"
        written[name] += rows


def _last_refresh(conn: Connection, name: str) -> tuple[str, int]:
    found = conn.execute(
        "SELECT refresh_mode, rows_out FROM pgtrickle.pgt_refresh_history"
        " WHERE pgt_name = %s ORDER BY refresh_id DESC LIMIT 1",
        (name,),
    ).fetchone()
    assert found is not None
    mode, rows = found
    return mode, rows
