"""However a source comes to be written, the functions that this calls are held until the transaction is over."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import Connection, Place
from tests.security.test_functions_held import COUNTS, FILL, make_author, owned
from tests.security.test_functions_moving import MOVE

SOURCES = {
    "by statement": "CREATE TABLE src (id int PRIMARY KEY, v int)",
    "by row": """CREATE TABLE src (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
                 CREATE TABLE src_1 PARTITION OF src FOR VALUES FROM (0) TO (5);
                 CREATE TABLE src_2 PARTITION OF src DEFAULT""",
}


@dataclass(frozen=True)
class Way:
    """What has to be there, what writes the source in a transaction, and which functions that calls."""

    writes: str
    events: frozenset[str]
    before: str = ""


def _way(writes: str, events: str, before: str = "") -> Way:
    return Way(writes, frozenset(events.split()), before)


WAYS = {
    "COPY": _way("COPY src FROM STDIN", "ins"),
    "CASCADE": _way(
        "DELETE FROM above WHERE v = 3",
        "del",
        """CREATE TABLE above (v int PRIMARY KEY); INSERT INTO above SELECT generate_series(1, 9);
           ALTER TABLE src ADD FOREIGN KEY (v) REFERENCES above ON DELETE CASCADE""",
    ),
    "SET NULL": _way(
        "DELETE FROM above WHERE v = 3",
        "upd",
        """CREATE TABLE above (v int PRIMARY KEY); INSERT INTO above SELECT generate_series(1, 9);
           ALTER TABLE src ADD FOREIGN KEY (v) REFERENCES above ON DELETE SET NULL""",
    ),
    "ON UPDATE CASCADE": _way(
        "UPDATE above SET v = v + 100 WHERE v > 3",
        "upd",
        """CREATE TABLE above (v int PRIMARY KEY); INSERT INTO above SELECT generate_series(1, 9);
           ALTER TABLE src ADD FOREIGN KEY (v) REFERENCES above ON UPDATE CASCADE""",
    ),
    "a trigger": _way(
        "INSERT INTO other VALUES (70)",
        "ins",
        """CREATE TABLE other (v int);
           CREATE FUNCTION add() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO src VALUES (NEW.v, NEW.v); RETURN NULL; END';
           CREATE TRIGGER add AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION add()""",
    ),
    "a deferred trigger": _way(
        "INSERT INTO other VALUES (70); SET CONSTRAINTS ALL IMMEDIATE",
        "ins",
        """CREATE TABLE other (v int);
           CREATE FUNCTION add() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO src VALUES (NEW.v, NEW.v); RETURN NULL; END';
           CREATE CONSTRAINT TRIGGER add AFTER INSERT ON other DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION add()""",
    ),
    "a part that is undone": _way(
        """DO $$ BEGIN
               BEGIN INSERT INTO src VALUES (70, 70); RAISE 'undone'; EXCEPTION WHEN raise_exception THEN NULL; END;
               UPDATE src SET v = 5 WHERE id < 3;
           END $$""",
        "upd",
    ),
    "a cursor": _way(
        "DECLARE c CURSOR FOR SELECT * FROM src FOR UPDATE; FETCH c; DELETE FROM src WHERE CURRENT OF c",
        "del",
    ),
    "a function with settings": _way(
        "SELECT write()",
        "ins",
        """CREATE FUNCTION write() RETURNS void LANGUAGE sql SET search_path = public SET work_mem = '1MB'
               AS 'INSERT INTO src VALUES (70, 70)'""",
    ),
    "a replica": _way("SET LOCAL session_replication_role = replica; UPDATE src SET v = 7 WHERE id < 6", "upd"),
    "settings that are reset": _way(
        "UPDATE src SET v = 7 WHERE id < 6; RESET ALL; DELETE FROM src WHERE v = 7", "upd del"
    ),
    "TRUNCATE": _way("TRUNCATE src", "trunc"),
}


@pytest.fixture
def author(place: Place) -> Connection:
    return make_author(place)


def _written(writer: Connection, way: Way) -> None:
    if way.writes.startswith("COPY"):
        with writer.cursor() as cursor, cursor.copy(way.writes.encode()) as copy:
            copy.write("70\t70\n71\t7\n")
    else:
        writer.execute(way.writes.encode())


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("way", WAYS)
def test_whatever_writes_holds(place: Place, author: Connection, mode: str, source: str, way: str) -> None:
    place.superuser.execute(f"{SOURCES[source]};{FILL};{WAYS[way].before}".encode())
    pg_trickle.create_stream_table(author, "st", COUNTS, refresh_mode=mode)
    author.execute("SET lock_timeout = '100ms'")
    called = [name for name in owned(author) if name.rpartition("_")[2] in WAYS[way].events]
    assert called
    writer = place.as_("postgres")
    writer.execute("BEGIN")
    _written(writer, WAYS[way])
    for name in called:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            author.execute(MOVE.format(name=name).encode())
    writer.execute("COMMIT")
    if mode == "DIFFERENTIAL":
        pg_trickle.refresh_stream_table(author, "st")
        assert place.last_refresh("reason") is None or way == "TRUNCATE"
    assert_fresh(place.superuser, "st")
