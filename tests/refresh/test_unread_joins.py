"""Left joins by a key of which nobody reads a column are left out, and put back when the key goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import check_kept, check_kept_inside, check_reason

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE o (id int, c_id int, amount int);
CREATE TABLE c (id int PRIMARY KEY, region text, code int NOT NULL UNIQUE);
CREATE VIEW wide AS SELECT o.id, o.amount, c.region, n.n FROM o LEFT JOIN c ON c.id = o.c_id
    LEFT JOIN (SELECT c_id, count(*) AS n FROM o GROUP BY c_id) AS n ON n.c_id = o.c_id;
INSERT INTO c VALUES (1, 'x', 10), (2, 'y', 20);
INSERT INTO o VALUES (1, 1, 5), (2, 1, 5), (2, 1, 5), (3, NULL, 2), (4, 7, 1);
"""
STEPS = (
    "INSERT INTO o VALUES (2, 1, 5), (5, 2, NULL); INSERT INTO c VALUES (7, NULL, 70)",
    "UPDATE o SET c_id = 2 WHERE id = 2; DELETE FROM c WHERE id = 1",
    "DELETE FROM o WHERE id = 1; UPDATE c SET id = id + 100, code = code - 10",
    "TRUNCATE c",
    "INSERT INTO c VALUES (2, 'z', 1); INSERT INTO o VALUES (9, 2, 2)",
)
QUERIES = {
    "rows": "SELECT o.id, o.amount FROM o LEFT JOIN c ON c.id = o.c_id",
    "by another key": "SELECT o.id, a.region FROM o LEFT JOIN c a ON a.id = o.c_id LEFT JOIN c b ON b.code = o.id",
    "counted": "SELECT o.c_id, count(*) AS n, sum(o.amount) AS s FROM o LEFT JOIN c ON c.id = o.c_id GROUP BY o.c_id",
    "by a view": "SELECT id, amount FROM wide",
    "some of a view": "SELECT id, region FROM wide",
    "a group": "SELECT o.id FROM o LEFT JOIN (SELECT c_id, max(amount) FROM o GROUP BY c_id) AS g ON g.c_id = o.id",
    "a right join": "SELECT o.id FROM c RIGHT JOIN o ON o.c_id = c.id AND c.region = 'x'",
    "a single row": "SELECT o.id FROM o LEFT JOIN (SELECT count(*) AS n FROM c) AS g ON g.n > o.id",
    "what another join reads": "SELECT o.id FROM o LEFT JOIN c a ON a.id = o.c_id LEFT JOIN c b ON b.id = a.code",
    "no key": "SELECT o.id FROM o LEFT JOIN o AS b ON b.c_id = o.id",
    "part of what tells": "SELECT o.id FROM o LEFT JOIN c ON c.id > o.c_id",
}


@pytest.mark.versions
def test_they_are_kept(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept(db, QUERIES.values(), STEPS)


def test_rows_that_come_when_the_key_is_gone(db: Connection, assert_fresh: Oracle) -> None:
    """Nothing of the joined table was read; that a row of the other may be there twice is noticed all the same."""
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "s", QUERIES["rows"], schedule=None)
    db.execute("ALTER TABLE c DROP CONSTRAINT c_pkey; INSERT INTO c VALUES (1, 'again', 1)")
    pg_trickle.refresh_stream_table(db, "s")
    assert_fresh(db, "s")
    db.execute("INSERT INTO c VALUES (1, 'and again', 2)")
    pg_trickle.refresh_stream_table(db, "s")
    check_reason(db, "s")
    assert_fresh(db, "s")


def test_what_nobody_reads_is_not_captured(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "s", QUERIES["rows"], schedule=None)
    db.execute("UPDATE c SET id = id + 100, region = 'z'")
    plan = db.execute("SELECT pgtrickle.explain_stream_table('s')").fetchall()
    assert "Nothing of public.c is read" in str(plan)
    found = db.execute("SELECT source_relid::regclass::text, columns FROM pgtrickle.pgt_captures ORDER BY 1").fetchall()
    assert found == [("c", []), ("o", ["id", "amount"])]
    pg_trickle.refresh_stream_table(db, "s")
    assert db.execute(
        "SELECT rows_in FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1"
    ).fetchone() == (0,)


@pytest.mark.versions
def test_they_are_kept_inside_statements(db: Connection) -> None:
    db.execute(SETUP.encode())
    check_kept_inside(db, QUERIES.values(), STEPS)
