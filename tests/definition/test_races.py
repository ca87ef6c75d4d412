"""Two at once who create, replace or drop a stream table of one name: the second waits, and is told what is so then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

import pg_trickle
from tests.definition.conftest import Connection

Act = Callable[[Connection], None]

QUERY = "SELECT a FROM t"


def create(conn: Connection) -> None:
    pg_trickle.create_stream_table(conn, "s", QUERY)


def create_if_not_exists(conn: Connection) -> None:
    pg_trickle.create_stream_table_if_not_exists(conn, "s", QUERY)


def replace(conn: Connection) -> None:
    pg_trickle.create_or_replace_stream_table(conn, "s", QUERY)


def drop(conn: Connection) -> None:
    pg_trickle.drop_stream_table(conn, "s")


def plain(conn: Connection) -> None:
    conn.execute("CREATE TABLE s (a int)")


class Second:
    """Acts in a thread, behind somebody whose transaction is open."""

    def __init__(self, db: Connection, conn: Connection, act: Act) -> None:
        self.error: BaseException | None = None
        self.notices: list[str | None] = []
        self._db, self._conn = db, conn
        conn.add_notice_handler(lambda diagnostic: self.notices.append(diagnostic.message_primary))
        self._thread = threading.Thread(target=self._run, args=(act,))
        self._thread.start()

    def _run(self, act: Act) -> None:
        try:
            act(self._conn)
        except psycopg.Error as exc:
            self.error = exc

    def wait_until_it_waits(self) -> None:
        blocked = "SELECT pg_blocking_pids(%s) <> '{}'"
        while self._thread.is_alive():
            if self._db.execute(blocked, (self._conn.info.backend_pid,)).fetchone() == (True,):
                return
        raise AssertionError(f"it did not wait, and said: {self.error}")

    def end(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def t(db: Connection) -> Connection:
    db.execute("CREATE TABLE t (a int PRIMARY KEY)")
    db.execute("INSERT INTO t VALUES (1)")
    return db


def race(t: Connection, database: Any, first: Act, second: Act, *, commit: bool = True) -> Second:
    one = database.connect(autocommit=False)
    # Begun here, it is for us to end.
    one.execute("SELECT")
    first(one)
    behind = Second(t, database.connect(), second)
    behind.wait_until_it_waits()
    one.commit() if commit else one.rollback()
    behind.end()
    return behind


def message(second: Second) -> str:
    assert isinstance(second.error, psycopg.Error)
    return f"{second.error.sqlstate} {second.error.diag.message_primary} ({second.error.diag.message_hint})"


@pytest.mark.versions
@pytest.mark.parametrize("first", [create, create_if_not_exists, replace])
def test_who_creates_what_another_has_created_is_told_so(t: Connection, database: Any, first: Act) -> None:
    told = message(race(t, database, first, create))
    assert told.startswith('42P07 relation "s" already exists (Choose another name')


@pytest.mark.parametrize("first", [create, create_if_not_exists, replace])
def test_if_not_exists_gets_a_notice(t: Connection, database: Any, first: Act) -> None:
    second = race(t, database, first, create_if_not_exists)
    assert second.error is None
    assert 'stream table "s" already exists, skipping' in second.notices


@pytest.mark.parametrize("first", [create, create_if_not_exists, replace])
def test_who_replaces_finds_it_as_it_wants_it(t: Connection, database: Any, assert_fresh: Any, first: Act) -> None:
    assert race(t, database, first, replace).error is None
    assert t.execute("SELECT count(*) FROM pgtrickle.pgt_stream_tables").fetchone() == (1,)
    assert_fresh(t, "s")


@pytest.mark.parametrize("second", [create, create_if_not_exists, replace])
def test_after_a_rollback_it_is_created(t: Connection, database: Any, assert_fresh: Any, second: Act) -> None:
    assert race(t, database, create, second, commit=False).error is None
    assert_fresh(t, "s")


@pytest.mark.parametrize("second", [create_if_not_exists, replace])
def test_after_a_drop_it_is_created(t: Connection, database: Any, assert_fresh: Any, second: Act) -> None:
    create(t)
    assert race(t, database, drop, second).error is None
    assert_fresh(t, "s")


def test_two_drops(t: Connection, database: Any) -> None:
    create(t)
    assert message(race(t, database, drop, drop)).startswith("42P01 ")


def test_an_ordinary_table_of_the_name_is_told_in_our_words_too(t: Connection, database: Any) -> None:
    told = message(race(t, database, plain, create))
    assert told.startswith('42P07 relation "s" already exists (Choose another name')


def test_a_snapshot_that_cannot_see_it_is_to_be_tried_again(t: Connection, database: Any) -> None:
    old = database.connect(autocommit=False)
    old.isolation_level = IsolationLevel.REPEATABLE_READ
    old.execute("SELECT FROM t")
    create(t)
    with pytest.raises(psycopg.errors.SerializationFailure):
        create_if_not_exists(old)


def test_names_without_their_lock_would_be_noticed(t: Connection, database: Any) -> None:
    t.execute(
        "CREATE OR REPLACE FUNCTION pgtrickle_changes.take_name(p_target text[]) RETURNS void LANGUAGE sql AS 'SELECT'"
    )
    second = race(t, database, create, create_if_not_exists)
    assert second.error is not None
