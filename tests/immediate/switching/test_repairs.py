"""Repairs of an IMMEDIATE stream table to which somebody has written, beside transactions that don't see them."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.switching.conftest import Connection
from tests.immediate.test_isolation import Session

REPAIRED: dict[str, tuple[LiteralString, LiteralString]] = {
    "rows": ("SELECT id, v FROM t WHERE v > 2", "id = 5"),
    "counters": ("SELECT g, count(*) AS n FROM t GROUP BY g HAVING count(*) > 0", "g = 9"),
    "keys": ("SELECT DISTINCT g FROM t", "g = 9"),
    "extremes": ("SELECT g, max(v) AS most FROM t GROUP BY g", "g = 9"),
    "lists": ("SELECT g, string_agg(v::text, ',' ORDER BY id) AS list FROM t GROUP BY g", "g = 9"),
    "pairs": ("SELECT t.id, u.name FROM t JOIN u ON u.id = t.g", "id = 5"),
    "sums": (
        "SELECT u.name, count(*) AS n, sum(t.v) AS total FROM t JOIN u ON u.id = t.g GROUP BY u.name",
        "name = 'n9'",
    ),
}


@pytest.mark.parametrize("kind", REPAIRED)
@pytest.mark.parametrize("statement", ["DELETE FROM t WHERE id = 5", "UPDATE t SET id = 50, g = 3 WHERE id = 5"])
def test_a_snapshot_that_lacks_what_was_repaired(
    tables: Connection, sessions: tuple[Session, Session], statement: LiteralString, kind: str
) -> None:
    """Somebody has taken a row out of the stream table, and its owner has put it back since."""
    query, row = REPAIRED[kind]
    tables.execute("INSERT INTO u VALUES (9, 'n9'); UPDATE t SET g = 9 WHERE id = 5")
    pg_trickle.create_stream_table(tables, kind, query, refresh_mode="IMMEDIATE")
    tables.execute(f"DELETE FROM {kind} WHERE {row}".encode())
    writer, _ = sessions
    writer.begin("REPEATABLE READ")
    writer.run("SELECT FROM t")
    pg_trickle.refresh_stream_table(tables, kind)
    assert differences(tables, kind) == []
    with pytest.raises(psycopg.errors.SerializationFailure):
        writer.run(statement)
    writer.run("ROLLBACK")
    writer.begin("REPEATABLE READ")
    writer.run(statement)
    writer.run("COMMIT")
    assert differences(tables, kind) == []


@pytest.mark.parametrize("kind", REPAIRED)
def test_what_a_snapshot_repairs_beside_a_writer_is_looked_at_again(
    tables: Connection, sessions: tuple[Session, Session], kind: str
) -> None:
    """It puts back what the writer found nothing of to take away; it doesn't see that this has gone."""
    query, row = REPAIRED[kind]
    tables.execute("INSERT INTO u VALUES (9, 'n9'); UPDATE t SET g = 9 WHERE id = 5")
    pg_trickle.create_stream_table(tables, kind, query, refresh_mode="IMMEDIATE")
    tables.execute(f"DELETE FROM {kind} WHERE {row}".encode())
    owner, _ = sessions
    owner.begin("REPEATABLE READ")
    owner.run("SELECT FROM t")
    tables.execute("DELETE FROM t WHERE id = 5")
    try:
        owner.run(f"SELECT pgtrickle.refresh_stream_table('{kind}')")
        owner.run("COMMIT")
    except psycopg.errors.SerializationFailure:
        owner.run("ROLLBACK")
    flagged = tables.execute("SELECT needs_reinit FROM pgtrickle.pgt_stream_tables").fetchone()
    assert differences(tables, kind) == [] or flagged == (True,)
    pg_trickle.refresh_stream_table(tables, kind)
    assert differences(tables, kind) == []
    assert tables.execute("SELECT needs_reinit FROM pgtrickle.pgt_stream_tables").fetchone() == (False,)
