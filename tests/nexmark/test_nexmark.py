"""Nexmark's queries as stream tables: events come, old ones expire, some are corrected."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh, differences
from tests.nexmark.events import NAMES, Event, events, queries, schema

FIRST, MORE, CYCLES = 1500, 150, 8

Connection = psycopg.Connection[Any]

EXPIRY = (
    "DELETE FROM bid WHERE date_time < timestamp '2020-01-01' + %(cycle)s * interval '4 s'",
    "DELETE FROM auction WHERE expires < timestamp '2020-01-01' + %(cycle)s * interval '3 s'",
    "DELETE FROM person WHERE id %% 17 = %(cycle)s",
)
CORRECTIONS = (
    "UPDATE bid SET price = price + 100 WHERE auction %% 9 = %(cycle)s",
    "UPDATE bid SET bidder = NULL, channel = 'Apple' WHERE auction %% 11 = %(cycle)s AND price < 100",
    "UPDATE bid SET auction = auction + 1 WHERE auction %% 13 = %(cycle)s",
    "UPDATE auction SET category = 10, seller = seller + 1 WHERE id %% 8 = %(cycle)s",
    "UPDATE auction SET expires = expires + interval '1 s', reserve = NULL WHERE id %% 10 = %(cycle)s",
    "UPDATE person SET state = 'OR', date_time = date_time + interval '5 s' WHERE id %% 6 = %(cycle)s %% 6",
    "UPDATE side_input SET value = value || '!' WHERE key %% 5 = %(cycle)s %% 5",
    "DELETE FROM bid WHERE price = (SELECT max(price) FROM bid)",
)


@pytest.fixture
def conn(database):
    made = database.connect()
    made.execute(schema())
    return made


@pytest.mark.slow
def test_every_query_stays_equal_to_its_stream_table(conn):
    stream = events()
    _insert(conn, stream, FIRST)
    for name, query in queries().items():
        pg_trickle.create_stream_table(conn, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    written = dict.fromkeys(NAMES, 0)
    for cycle in range(1, CYCLES + 1):
        for changes in (None, EXPIRY, CORRECTIONS):
            with conn.transaction():
                if changes is None or cycle % 2 == 0:
                    _insert(conn, stream, MORE)
                _carry_out(conn, changes or (), cycle)
            _compare(conn, cycle, written)
    idle = [name for name, rows in written.items() if not rows]
    assert not idle, f"nothing that happened concerned {idle}"
    for name in written:
        assert_fresh(conn, name)


def _insert(conn: Connection, stream: Iterator[Event], number: int) -> None:
    with conn.transaction():
        for statement, values in itertools.islice(stream, number):
            conn.execute(statement, values)


def _carry_out(conn: Connection, changes: Iterable[str], cycle: int) -> None:
    for statement in changes:
        conn.execute(statement, {"cycle": cycle})


def _compare(conn: Connection, cycle: int, written: dict[str, int]) -> None:
    for name in written:
        pg_trickle.refresh_stream_table(conn, name)
        found = conn.execute(
            "SELECT refresh_mode, rows_out FROM pgtrickle.pgt_refresh_history"
            " WHERE pgt_name = %s ORDER BY refresh_id DESC LIMIT 1",
            (name,),
        ).fetchone()
        assert found is not None
        assert found[0] == "DIFFERENTIAL", f"{name} was recomputed in cycle {cycle}"
        assert differences(conn, name) == [], f"{name} in cycle {cycle}"
        written[name] += found[1]
