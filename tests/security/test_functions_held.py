"""A function that a writer's statement is going to call can't be moved away and replaced before it is called.

Its owner may ALTER FUNCTION … SET SCHEMA it into a schema of his own, where he may replace it; and a trigger's WHEN is
asked when a row or a statement is noted, long before the call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.process import wait_until
from tests.security.conftest import Connection, Place

# Where a writer can be kept waiting in the middle of a statement: before its last row, or before our triggers.
SOURCES = {
    "partitioned": """
        CREATE TABLE src (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
        CREATE TABLE src_1 PARTITION OF src DEFAULT
        """,
    "plain": """
        CREATE TABLE src (id int PRIMARY KEY, v int);
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
        CREATE TRIGGER aaa AFTER INSERT OR UPDATE OR DELETE ON src FOR EACH STATEMENT EXECUTE FUNCTION slow()
        """,
}
FILL = "INSERT INTO src SELECT i, i FROM generate_series(1, 9) AS i; GRANT SELECT ON src TO st_author"
COUNTS = "SELECT v, count(*) AS n FROM src GROUP BY v"
LAST = "id = 1 OR id = 2 AND pg_advisory_xact_lock(1) IS NOT NULL"
WRITES = {
    "INSERT": "INSERT INTO src SELECT n, n FROM (VALUES (100, NULL), (101, pg_advisory_xact_lock(1))) AS q(n)",
    "UPDATE": f"UPDATE src SET v = v + 1 WHERE {LAST}",
    "moving UPDATE": f"UPDATE src SET id = id + 500, v = 9 WHERE {LAST}",
    "DELETE": f"DELETE FROM src WHERE {LAST}",
    "ON CONFLICT": """
        INSERT INTO src SELECT n, n FROM (VALUES (1, NULL), (101, pg_advisory_xact_lock(1))) AS q(n)
            ON CONFLICT (id) DO UPDATE SET v = 5
        """,
    "MERGE": """
        MERGE INTO src USING (VALUES (1, NULL), (2, NULL), (700, pg_advisory_xact_lock(1))) AS q(n, waits) ON id = n
         WHEN MATCHED AND id = 1 THEN UPDATE SET v = v + 1
         WHEN MATCHED THEN DELETE
         WHEN NOT MATCHED THEN INSERT VALUES (n, n)
        """,
}
# What a statement may call the functions of; one that updates a partitioned table may move rows.
EVENTS = {
    **{"INSERT": {"ins"}, "UPDATE": {"upd"}, "moving UPDATE": {"upd"}, "DELETE": {"del"}},
    **{"ON CONFLICT": {"ins", "upd"}, "MERGE": {"ins", "upd", "del"}},
}
PLACES = [(source, write) for source in SOURCES for write in WRITES if (source, write) != ("plain", "moving UPDATE")]
BODY = """
CREATE OR REPLACE FUNCTION evil.{name}() RETURNS trigger LANGUAGE plpgsql SECURITY INVOKER AS
    $$ BEGIN INSERT INTO evil.log VALUES (current_user); RETURN NULL; END $$
"""
HELD = (
    "SELECT count(*) FROM pg_trigger"
    " WHERE tgfoid IN ('pgtrickle_changes.hold_functions'::regproc, 'pgtrickle_changes.hold_maintenance'::regproc)"
)


def make_author(place: Place) -> Connection:
    """An author with a schema that anybody may look into, and a log that anybody may write."""
    made = place.author("st_author")
    place.superuser.execute(
        """CREATE SCHEMA evil AUTHORIZATION st_author; CREATE TABLE evil.log (who text);
           GRANT INSERT ON evil.log TO PUBLIC; GRANT USAGE ON SCHEMA evil TO PUBLIC"""
    )
    return made


@pytest.fixture
def author(place: Place) -> Connection:
    return make_author(place)


@contextmanager
def writing(place: Place, statement: str) -> Iterator[list[str]]:
    """A superuser in the middle of a statement; what it failed with is known afterwards."""
    writer = place.as_("postgres")
    # Whoever waits for what he is not to wait for fails, and doesn't wait for the end of the test.
    writer.execute("SET statement_timeout = '60s'")
    failed: list[str] = []

    def write() -> None:
        try:
            writer.execute(statement.encode())
        except psycopg.Error as error:
            failed.append(str(error))

    place.superuser.execute("SELECT pg_advisory_lock(1)")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        assert wait_until(lambda: place.value(waiting) == 1, 30)
        yield failed
    finally:
        place.superuser.execute("SELECT pg_advisory_unlock(1)")
        thread.join()


def owned(conn: Connection) -> list[str]:
    """The trigger functions of the author's that the engine has made."""
    found = conn.execute(
        "SELECT p.proname FROM pg_proc AS p WHERE p.prorettype = 'trigger'::regtype"
        " AND p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proowner = 'st_author'::regrole ORDER BY 1"
    )
    return [name for (name,) in found]


def _called(names: list[str], write: str, source: str) -> list[str]:
    """Those of them that such a statement may call."""
    events = EVENTS[write]
    if source == "partitioned" and "upd" in events:
        events = events | {"ins", "del"}
    return [name for name in names if name.rpartition("_")[2] in events]


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
@pytest.mark.parametrize(("source", "write"), PLACES)
def test_nothing_is_moved_from_under_a_statement(
    place: Place, author: Connection, mode: str, source: str, write: str
) -> None:
    place.superuser.execute((SOURCES[source] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS, refresh_mode=mode)
    author.execute("SET lock_timeout = '100ms'")
    called = _called(owned(author), write, source)
    assert called
    with writing(place, WRITES[write]) as failed:
        for name in called:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                author.execute(f"ALTER FUNCTION pgtrickle_changes.{name}() SET SCHEMA evil".encode())
    assert failed == []
    if mode == "DIFFERENTIAL":
        pg_trickle.refresh_stream_table(author, "st")
    place.fresh("st")


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_what_was_moved_before_is_not_called_and_stops_nobody(place: Place, author: Connection, mode: str) -> None:
    place.superuser.execute((SOURCES["partitioned"] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS, refresh_mode=mode)
    for name in owned(author):
        author.execute(f"ALTER FUNCTION pgtrickle_changes.{name}() SET SCHEMA evil".encode())
        author.execute(BODY.format(name=name).encode())
    place.superuser.execute("INSERT INTO src VALUES (10, 1); UPDATE src SET v = 2; DELETE FROM src; TRUNCATE src")
    assert place.value("SELECT count(*) FROM evil.log") == 0


def test_who_owns_the_table_is_held_by_nothing(place: Place) -> None:
    """He may put triggers of his own there."""
    place.superuser.execute("CREATE TABLE src (id int PRIMARY KEY, v int)")
    pg_trickle.create_stream_table(place.superuser, "st", COUNTS)
    assert place.value(HELD) == 0
    pg_trickle.alter_stream_table(place.superuser, "st", refresh_mode="IMMEDIATE")
    assert place.value(HELD) == 0


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_what_holds_goes_with_the_stream_table(place: Place, author: Connection, mode: str) -> None:
    place.superuser.execute((SOURCES["partitioned"] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS, refresh_mode=mode)
    place.superuser.execute("CREATE TABLE another (v int); GRANT SELECT ON another TO st_author")
    pg_trickle.create_stream_table(author, "other", "SELECT v FROM another", refresh_mode=mode)
    # Of changes that are captured row by row, also before each row.
    assert place.value(HELD) == {"DIFFERENTIAL": 5, "IMMEDIATE": 3}[mode]
    pg_trickle.drop_stream_table(author, "st")
    assert place.value(f"{HELD} AND tgrelid = 'another'::regclass") == place.value(HELD) == 1
    pg_trickle.drop_stream_table(author, "other")
    assert place.value(HELD) == 0
