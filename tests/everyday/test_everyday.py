"""What applications ask: each query is maintained by a rule, and equals its stream table whatever happens below."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.everyday.data import change, load, queries

ROWS, CYCLES, SHARE = 240, 4, 0.25
# Every row's place among all others, or its share of all: a change of one may change all of them.
OF_ALL_ROWS = {
    "dashboard: share of each segment",
    "leaderboard: place among all",
    "statistics: quartiles of customers",
    "reports: months beside the month before",
}

Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(database):
    made = database.connect()
    load(made, ROWS)
    return made


@pytest.mark.slow
def test_every_query_has_rules_and_stays_equal_to_its_stream_table(conn):
    names = {f"q{place:02}": title for place, title in enumerate(queries(), 1)}
    for name, query in zip(names, queries().values(), strict=True):
        pg_trickle.create_stream_table(conn, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    assert {names[name] for name in _computed_again(conn)} == OF_ALL_ROWS
    for _ in range(CYCLES):
        change(conn, SHARE)
        for name, title in names.items():
            with conn.transaction():
                pg_trickle.refresh_stream_table(conn, name)
                assert differences(conn, name) == [], title
    told = conn.execute(
        "SELECT pgt_name, sum(rows_out), array_agg(DISTINCT refresh_mode) FROM pgtrickle.pgt_refresh_history"
        " WHERE initiated_by = 'MANUAL' GROUP BY 1"
    ).fetchall()
    assert not [(names[name], modes) for name, _, modes in told if modes != ["DIFFERENTIAL"]]
    assert not [names[name] for name, rows, _ in told if rows == 0], "nothing that happened concerned them"


def _computed_again(conn: Connection) -> set[str]:
    """The stream tables of which a part is computed anew whenever a table of it changes."""
    found = conn.execute(
        """SELECT s.pgt_name FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables AS s USING (pgt_id),
                  jsonb_array_elements(plan #> '{explain,tree}') AS line
            WHERE line ->> 'rule' LIKE 'recomputed and diffed%'"""
    )
    return {name for (name,) in found}
