"""A column that USING merged, in a subquery whose own tables have one of the same name.

PostgreSQL prints such a reference so that it means the other column (views are dumped wrongly, too).
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.errors import InvalidDefinition
from tests.upkeep import check_kept

TABLES = """
CREATE TABLE a (k int, v int);
CREATE TABLE b (k int, w int);
CREATE TABLE c (k int, id int);
CREATE TABLE d (id int, x int);
INSERT INTO a VALUES (1, 1), (2, 2), (2, 3), (NULL, 4);
INSERT INTO b VALUES (2, 1), (3, 2), (NULL, 5);
INSERT INTO c VALUES (1, 2), (3, 3), (3, 1);
INSERT INTO d VALUES (1, 2), (3, 3), (3, 1);
"""
STEPS = (
    "INSERT INTO a VALUES (3, 9), (7, 7); DELETE FROM b WHERE k = 2; UPDATE c SET k = 2 WHERE k = 1",
    "UPDATE a SET k = NULL WHERE k = 2; INSERT INTO b VALUES (1, 1), (1, 2); DELETE FROM c",
    "INSERT INTO d VALUES (1, 5)",
    "INSERT INTO c VALUES (1, 1), (NULL, 2); DELETE FROM a",
)
JOINED = "a FULL JOIN b USING (k) AS j"
SAID_WRONG = (
    f"SELECT j.k, (SELECT count(*) FROM c WHERE c.k = j.k) AS n FROM {JOINED}",
    f"SELECT j.k FROM {JOINED} WHERE EXISTS (SELECT FROM d JOIN c USING (id) WHERE c.k > j.k)",
    f"SELECT j.k, l.n FROM {JOINED}, LATERAL (SELECT max(q.k) AS n FROM (SELECT k FROM c) AS q WHERE q.k < j.k) AS l",
    f"WITH q AS (SELECT k FROM c) SELECT v FROM {JOINED} WHERE j.k NOT IN (SELECT k FROM q WHERE q.k >= j.k)",
    f"SELECT j.k, (SELECT sum(i.k) FROM c FULL JOIN (SELECT id AS k FROM d) AS e USING (k) AS i WHERE i.k = j.k) AS n"
    f" FROM {JOINED}",
    f"SELECT j.k FROM {JOINED} WHERE EXISTS (SELECT FROM generate_series(1, 2) AS k WHERE k < j.k)",
)
SAID_RIGHT = (
    f"SELECT j.k, (SELECT count(*) FROM d WHERE d.id = j.k) AS n FROM {JOINED}",
    "SELECT j.k, v, w FROM a JOIN b USING (k) AS j WHERE EXISTS (SELECT FROM c WHERE c.k = j.k)",
    "SELECT j.k, w FROM a LEFT JOIN b USING (k) AS j WHERE j.k > 1",
    "SELECT j.k, (SELECT count(*) FROM c WHERE c.k = j.k) AS n FROM (a FULL JOIN b USING (k)) AS j",
    "SELECT k, v, x FROM a FULL JOIN (SELECT k, x FROM c FULL JOIN d USING (id)) AS q USING (k)",
    "SELECT k, v FROM a FULL JOIN b USING (k) WHERE EXISTS (SELECT FROM c FULL JOIN a AS e USING (k) WHERE k < 3)",
    "SELECT q.its_k, (SELECT count(*) FROM c WHERE c.k = q.its_k) AS n FROM"
    " (SELECT k AS its_k FROM a FULL JOIN b USING (k)) AS q",
)


Connection = psycopg.Connection[tuple[Any, ...]]
UNCLEAR = 'column "k" of a join can\'t be told from another'


@pytest.fixture
def conn(database) -> Connection:
    made: Connection = database.connect()
    made.execute(TABLES)
    return made


@pytest.mark.parametrize("query", SAID_WRONG, ids=range(len(SAID_WRONG)))
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL", "AUTO"])
def test_what_postgresql_prints_wrongly_is_refused(conn, query, mode):
    with pytest.raises(InvalidDefinition, match=UNCLEAR) as caught:
        pg_trickle.create_stream_table(conn, "s", query, schedule=None, refresh_mode=mode)
    assert caught.value.sqlstate == "0A000"
    assert "bare name" in str(caught.value.detail)
    assert 'with "k" AS its_name' in str(caught.value.hint)


def test_it_is_refused_in_a_view(conn):
    conn.execute(f"CREATE VIEW v AS {SAID_WRONG[0]}")
    with pytest.raises(InvalidDefinition, match=UNCLEAR):
        pg_trickle.create_stream_table(conn, "s", "SELECT * FROM v", schedule=None)


def test_what_is_printed_right_is_kept(conn):
    check_kept(conn, SAID_RIGHT, STEPS)


def test_a_column_that_comes_later_hides_it(conn):
    """What was right is printed wrongly from then on: an error, no wrong rows."""
    pg_trickle.create_stream_table(conn, "s", SAID_RIGHT[0], schedule=None)
    conn.execute("ALTER TABLE d ADD k int; INSERT INTO a VALUES (3, 3); INSERT INTO d VALUES (2, 2, 8)")
    with pytest.raises(InvalidDefinition, match=UNCLEAR):
        pg_trickle.refresh_stream_table(conn, "s")
