"""Whoever has a function half moved keeps nobody who writes a source waiting for long, and gets none called."""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.process import wait_until
from tests.security.conftest import Connection, Place
from tests.security.test_functions_held import BODY, COUNTS, FILL, HELD, SOURCES, WRITES, make_author, owned, writing

MOVE = "ALTER FUNCTION pgtrickle_changes.{name}() SET SCHEMA evil"
MISSED = "SELECT count(*) FROM pgtrickle_changes.missed_changes WHERE source_relid = 'src'::regclass"
WRITTEN = """INSERT INTO src VALUES (50, 1), (51, 2), (52, 3); UPDATE src SET v = 7 WHERE id > 50;
    DELETE FROM src WHERE id > 51"""


@pytest.fixture
def author(place: Place) -> Connection:
    return make_author(place)


def move_and_replace(author: Connection, names: list[str]) -> None:
    """What of these the author can."""
    author.execute("SET lock_timeout = '100ms'")
    for name in names:
        with suppress(psycopg.errors.LockNotAvailable):
            author.execute(MOVE.format(name=name).encode())
            author.execute(BODY.format(name=name).encode())


def lock(place: Place, what: str) -> str:
    """What an owner does to his own that a writer needs."""
    buffer = place.buffer("src", "st_author")
    names = owned(place.superuser)
    return "; ".join(
        {
            "functions": [MOVE.format(name=name) for name in names],
            "buffer": [f"LOCK TABLE {buffer}"],
            "sequence": [
                f"ALTER SEQUENCE {place.value('SELECT pg_get_serial_sequence(%s, %s)', buffer, 'seq')} CACHE 1"
            ],
        }[what]
    )


@pytest.mark.versions
@pytest.mark.parametrize("what", ["functions", "buffer", "sequence"])
@pytest.mark.parametrize("source", SOURCES)
def test_nobody_waits_for_long(place: Place, author: Connection, source: str, what: str) -> None:
    """However many rows he writes; and what was missed is made good."""
    place.superuser.execute((SOURCES[source] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS)
    with author.transaction(force_rollback=True):
        author.execute(lock(place, what).encode())
        for statement in WRITTEN.split(";"):
            began = monotonic()
            place.superuser.execute(statement.encode())
            assert monotonic() - began < 2.5
    assert place.value(MISSED) > 0
    pg_trickle.refresh_stream_table(author, "st")
    assert "locked" in place.last_refresh("reason")
    place.fresh("st")
    assert place.value(MISSED) == 0
    place.superuser.execute("INSERT INTO src VALUES (60, 60)")
    pg_trickle.refresh_stream_table(author, "st")
    assert place.last_refresh("reason") is None
    place.fresh("st")


@pytest.mark.versions
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("write", ["INSERT", "UPDATE", "DELETE"])
def test_what_is_not_held_is_not_called(place: Place, author: Connection, source: str, write: str) -> None:
    """He has it half moved when the statement begins, and is done when that is nearly over."""
    place.superuser.execute((SOURCES[source] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS)
    names = owned(place.superuser)
    author.execute("BEGIN")
    for name in names:
        author.execute(MOVE.format(name=name).encode())
    with writing(place, WRITES[write]) as failed:
        for name in names:
            author.execute(BODY.format(name=name).encode())
        author.execute("COMMIT")
    assert failed == []
    assert place.value("SELECT count(*) FROM evil.log") == 0
    pg_trickle.refresh_stream_table(author, "st")
    place.fresh("st")


def test_no_writer_switches_capture_off_for_himself(place: Place, author: Connection) -> None:
    """How a transaction remembers what isn't held only a superuser may set."""
    place.superuser.execute((SOURCES["plain"] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS)
    writer = place.role("writer")
    place.superuser.execute("GRANT INSERT ON src TO writer")
    (mark,) = writer.execute(
        "SELECT DISTINCT substring(pg_get_triggerdef(oid) FROM 'pgtrickle_not_held_[a-z_0-9]+') FROM pg_trigger"
        " WHERE tgname LIKE 'pg_trickle_cdc%'"
    ).fetchone() or (None,)
    assert mark is not None
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute(f"SET backtrace_functions = {mark}".encode())


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
def test_immediate_waits_and_goes_on(place: Place, author: Connection, ends: str) -> None:
    """As for all that it writes; what has gone meanwhile isn't called, and stops nobody."""
    place.superuser.execute((SOURCES["plain"] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS, refresh_mode="IMMEDIATE")
    names = owned(place.superuser)
    author.execute("BEGIN")
    for name in names:
        author.execute(MOVE.format(name=name).encode())
        author.execute(BODY.format(name=name).encode())
    writer = place.as_("postgres")
    thread = threading.Thread(target=writer.execute, args=(b"INSERT INTO src VALUES (50, 50)",))
    thread.start()
    try:
        assert wait_until(lambda: place.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, 30)
    finally:
        author.execute(ends.encode())
        thread.join()
    assert place.value("SELECT count(*) FROM src WHERE id = 50") == 1
    assert place.value("SELECT count(*) FROM evil.log") == 0
    if ends == "ROLLBACK":
        place.fresh("st")


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_a_partition_that_came_later_calls_nothing_that_is_not_held(
    place: Place, author: Connection, mode: str
) -> None:
    """PostgreSQL copies row triggers to it, but none that hold when a statement begins; until these are made anew."""
    place.superuser.execute(
        (
            """CREATE TABLE src (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
               CREATE TABLE src_1 PARTITION OF src FOR VALUES FROM (0) TO (100);"""
            + FILL
        ).encode()
    )
    pg_trickle.create_stream_table(author, "st", COUNTS, refresh_mode=mode)
    place.superuser.execute("CREATE TABLE src_2 PARTITION OF src FOR VALUES FROM (100) TO (200)")
    names = owned(place.superuser)
    with writing(place, WRITES["INSERT"].replace("src", "src_2")) as failed:
        move_and_replace(author, names)
    assert place.value("SELECT count(*) FROM evil.log") == 0
    # Whose rows can't be followed, IMMEDIATE mode refuses.
    assert ["can't be followed" in failure for failure in failed] == ([True] if mode == "IMMEDIATE" else [])
    pg_trickle.refresh_stream_table(author, "st")
    place.fresh("st")


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_what_a_partition_held_that_came_and_went_is_not_shown(place: Place, author: Connection, mode: str) -> None:
    """Before anybody looked: its rows were never the stream table's."""
    place.superuser.execute(
        (
            """CREATE TABLE src (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
               CREATE TABLE src_1 PARTITION OF src FOR VALUES FROM (0) TO (100);"""
            + FILL
        ).encode()
    )
    pg_trickle.create_stream_table(author, "st", COUNTS, refresh_mode=mode)
    place.superuser.execute("CREATE TABLE src_2 PARTITION OF src FOR VALUES FROM (100) TO (200)")
    place.superuser.execute("INSERT INTO src VALUES (150, 4), (50, 4); UPDATE src SET id = id + 50 WHERE id = 50")
    place.superuser.execute("ALTER TABLE src DETACH PARTITION src_2")
    if mode == "DIFFERENTIAL":
        pg_trickle.refresh_stream_table(author, "st")
    else:
        place.superuser.execute("UPDATE src SET v = v WHERE id = 1")
    place.fresh("st")


@pytest.mark.parametrize("above", ["PARTITION", "INHERITANCE"])
@pytest.mark.parametrize("write", ["UPDATE", "DELETE"])
def test_what_is_written_by_way_of_a_parent_is_held(place: Place, author: Connection, above: str, write: str) -> None:
    """Its statement triggers are the parent's."""
    place.superuser.execute(
        {
            "PARTITION": """CREATE TABLE whole (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
                            CREATE TABLE src PARTITION OF whole DEFAULT""",
            "INHERITANCE": "CREATE TABLE whole (id int, v int); CREATE TABLE src () INHERITS (whole)",
        }[above]
        + ";"
        + FILL
    )
    pg_trickle.create_stream_table(author, "st", COUNTS)
    author.execute("SET lock_timeout = '100ms'")
    called = [name for name in owned(author) if name.endswith(write.lower()[:3])]
    assert called
    with writing(place, WRITES[write].replace("src", "whole")) as failed:
        for name in called:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                author.execute(MOVE.format(name=name).encode())
    assert failed == []
    pg_trickle.refresh_stream_table(author, "st")
    place.fresh("st")


BECOMES_A_CHILD = {
    "a partition": (
        SOURCES["partitioned"],
        """CREATE TABLE whole (id int, v int) PARTITION BY RANGE (id);
           ALTER TABLE whole ATTACH PARTITION src DEFAULT""",
    ),
    "a child": (
        "CREATE TABLE src (id int, v int); CREATE TABLE src_1 () INHERITS (src)",
        "CREATE TABLE whole (id int, v int); ALTER TABLE src INHERIT whole",
    ),
}


@pytest.mark.versions
@pytest.mark.parametrize(
    ("kind", "write"),
    [
        (kind, write)
        for write in ("INSERT", "UPDATE", "DELETE")
        for kind in BECOMES_A_CHILD
        if (kind, write) != ("a child", "INSERT")
    ],
)
def test_a_source_that_becomes_a_child_is_held_at_once(place: Place, author: Connection, kind: str, write: str) -> None:
    """Before any refresh has looked at it, who writes its parent calls what its row triggers call."""
    source, becomes = BECOMES_A_CHILD[kind]
    place.superuser.execute((source + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS)
    place.superuser.execute(becomes)
    names = owned(place.superuser)
    with writing(place, WRITES[write].replace("src", "whole")) as failed:
        move_and_replace(author, names)
    assert failed == []
    assert place.value("SELECT count(*) FROM evil.log") == 0
    place.fresh("st")


def test_a_rollback_to_a_savepoint_forgets_what_was_held(place: Place, author: Connection) -> None:
    """It lets go of the locks, too: what comes after it asks anew."""
    place.superuser.execute((SOURCES["partitioned"] + ";" + FILL).encode())
    pg_trickle.create_stream_table(author, "st", COUNTS)
    names = [name for name in owned(place.superuser) if not name.endswith("trunc")]
    author.execute("SET lock_timeout = '100ms'")
    writer = place.as_("postgres")
    writer.execute("BEGIN; SAVEPOINT s; INSERT INTO src VALUES (50, 1); ROLLBACK TO s")
    with author.transaction(force_rollback=True):
        for name in names:
            author.execute(MOVE.format(name=name).encode())
    writer.execute("INSERT INTO src VALUES (51, 1)")
    for name in names:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            author.execute(MOVE.format(name=name).encode())
    writer.execute("COMMIT")
    place.fresh("st")


@pytest.mark.parametrize("first", ["postgres", "st_author"])
def test_what_one_owner_has_half_moved_costs_nobody_else_a_change(place: Place, author: Connection, first: str) -> None:
    """Whoever comes second to a source has a buffer with the first one's name at the beginning of its own."""
    place.superuser.execute((SOURCES["plain"] + ";" + FILL).encode())
    owners = {"postgres": (place.superuser, "mine"), "st_author": (author, "his")}
    for conn, name in sorted(owners.values(), key=lambda owner: owner != owners[first]):
        pg_trickle.create_stream_table(conn, name, COUNTS)
    with author.transaction(force_rollback=True):
        for name in owned(place.superuser):
            author.execute(MOVE.format(name=name).encode())
        place.superuser.execute("INSERT INTO src VALUES (77, 77)")
    pg_trickle.refresh_stream_table(place.superuser, "mine")
    assert place.last_refresh("reason") is None
    place.fresh("mine", "his")


def test_who_owns_what_is_below_a_source_is_held_there(place: Place, author: Connection) -> None:
    """Whoever writes a partition trusts its owner, and not that of what it is part of."""
    author.execute(
        "CREATE TABLE src (id int, v int) PARTITION BY RANGE (id); CREATE TABLE src_1 PARTITION OF src DEFAULT"
    )
    place.role("other")
    place.superuser.execute("ALTER TABLE src_1 OWNER TO other; GRANT SELECT ON src_1 TO st_author")
    pg_trickle.create_stream_table(author, "st", COUNTS)
    assert place.value(f"{HELD} AND tgrelid = 'src_1'::regclass AND tgtype & 1 = 0") == 1


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_the_owner_of_a_stream_table_that_is_read_need_not_trust_the_sources_owner(
    place: Place, author: Connection, mode: str
) -> None:
    """His refreshes write it, as him."""
    other = place.author("other")
    other.execute("CREATE TABLE base (id int PRIMARY KEY, v int); GRANT SELECT ON base TO st_author")
    pg_trickle.create_stream_table(author, "mid", "SELECT id, v FROM base")
    author.execute("GRANT SELECT ON mid TO other")
    pg_trickle.create_stream_table(other, "top", "SELECT v, count(*) AS n FROM mid GROUP BY v", refresh_mode=mode)
    held = HELD + " AND tgrelid = 'mid'::regclass"
    assert place.value(held) == 1
    guards = (
        "SELECT bool_and(tgqual IS NOT NULL) FROM pg_trigger"
        " WHERE tgrelid = 'mid'::regclass AND tgtype & 3 = 0 AND NOT tgisinternal"
    )
    assert place.value(guards)


def test_who_gives_a_source_away_is_held_there(place: Place, author: Connection) -> None:
    """Once the capture is looked at."""
    author.execute("CREATE TABLE src (id int PRIMARY KEY, v int)")
    pg_trickle.create_stream_table(author, "st", COUNTS)
    assert place.value(HELD) == 0
    place.superuser.execute("ALTER TABLE src OWNER TO postgres; GRANT SELECT ON src TO st_author")
    pg_trickle.refresh_stream_table(author, "st")
    assert place.value(HELD) == 1
