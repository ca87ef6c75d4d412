"""Where nothing can be written, what only reads works still: for whom it is, and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import pg_trickle
from pg_trickle.testing import EmbeddedServer

Connection = psycopg.Connection[tuple[Any, ...]]

SIZES = "SELECT stream_table, source_table, pending_rows FROM pgtrickle.change_buffer_sizes()"
VERDICT = "SELECT missing, extra, ok FROM pgtrickle.verify_stream_table('st')"
READ = "SELECT pgtrickle.read_gate('verify_stream_table', %s, %s, r.names, r.seal) FROM pgtrickle.reader AS r"


def fill(db: Connection) -> None:
    db.execute("CREATE TABLE t (a int PRIMARY KEY, b int)")
    db.execute("INSERT INTO t SELECT n, n % 3 FROM generate_series(1, 9) AS n")
    pg_trickle.create_stream_table(db, "st", "SELECT b, count(*) AS n FROM t GROUP BY b", schedule=None)
    db.execute("INSERT INTO t VALUES (10, 0), (11, 7)")


@pytest.fixture
def people(database: Any, db: Connection) -> Any:
    """An author who owns st, somebody with the same grants, and a monitor, all in read-only sessions."""
    made = {}
    for name in ("st_author", "st_other", "st_monitor"):
        database.make_role(name)
    db.execute("GRANT CREATE, USAGE ON SCHEMA public TO st_author; GRANT pg_monitor TO st_monitor")
    db.execute("GRANT USAGE ON SCHEMA pgtrickle TO st_author, st_other")
    db.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO st_author, st_other")
    fill(database.connect("st_author"))
    for name in ("st_author", "st_other", "st_monitor"):
        made[name] = database.connect(name)
        made[name].execute("SET default_transaction_read_only = on")
    yield made
    for conn in made.values():
        conn.close()
    db.execute("DROP OWNED BY st_author, st_other CASCADE")


@pytest.mark.versions
def test_in_a_read_only_transaction_it_is_as_in_any(people: dict[str, Connection]) -> None:
    author = people["st_author"]
    assert author.execute(VERDICT).fetchone() == (2, 1, False)
    assert author.execute(SIZES).fetchall() == [("public.st", "public.t", 2)]
    assert people["st_monitor"].execute(SIZES).fetchall() == [("public.st", "public.t", 2)]
    assert people["st_other"].execute(SIZES).fetchall() == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        people["st_other"].execute(VERDICT.encode())
    with pytest.raises(psycopg.errors.UndefinedTable):
        author.execute("SELECT * FROM pgtrickle.verify_stream_table('nowhere.st')")
    with author.transaction():
        author.execute("SET LOCAL transaction_isolation = 'serializable'")
        assert author.execute(VERDICT).fetchone() == (2, 1, False)


def test_what_was_granted_meanwhile_is_no_reason_to_write(people: dict[str, Connection], database: Any) -> None:
    """The plan's fingerprint is another, and what it stands for the same."""
    database.connect().execute("GRANT SELECT ON t TO PUBLIC; ALTER TABLE st ENABLE ROW LEVEL SECURITY")
    assert people["st_author"].execute(VERDICT.encode()).fetchone() == (2, 1, False)


def test_what_cant_be_done_there_is_said(people: dict[str, Connection], database: Any) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="cannot validate a query") as caught:
        people["st_author"].execute("SELECT * FROM pgtrickle.validate_query('SELECT 1 AS x')")
    assert "READ WRITE" in str(caught.value.diag.message_hint)
    writing = database.connect("st_author")
    writing.execute("ALTER TABLE st ENABLE ROW LEVEL SECURITY; ALTER TABLE st FORCE ROW LEVEL SECURITY")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="hides rows from its own owner"):
        people["st_author"].execute(VERDICT.encode())
    assert writing.execute(VERDICT).fetchone() == (2, 1, False)
    writing.close()


def test_nobody_calls_as_somebody_else(people: dict[str, Connection], database: Any) -> None:
    other = people["st_other"]
    name = Jsonb({"name": "public.st"})
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        other.execute(READ, (name, "st_other"))
    for caller in ("st_author", "postgres", None):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to call as"):
            other.execute(READ, (name, caller))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.execute("TABLE pgtrickle_changes.gate_secret")


def test_a_seal_is_of_one_session_and_one_transaction(people: dict[str, Connection], database: Any) -> None:
    author = people["st_author"]
    second = database.connect("st_author")
    call = "SELECT pgtrickle.read_gate('verify_stream_table', '{\"name\": \"public.st\"}', %s, '{}', %s)"
    with author.transaction():
        seal = author.execute("SELECT caller, seal FROM pgtrickle.reader").fetchone()
        assert author.execute(call, seal).fetchone() == ({"missing": 2, "extra": 1},)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            second.execute(call, seal)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        author.execute(call, seal)
    second.close()


def test_what_writes_does_not_come_in_this_way(people: dict[str, Connection], database: Any) -> None:
    author = database.connect("st_author")
    for action in ("drop_stream_table", "refresh_stream_table", "no such action"):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            author.execute(
                'SELECT pgtrickle.read_gate(%s, \'{"name": "public.st"}\', r.caller, r.names, r.seal)'
                " FROM pgtrickle.reader AS r",
                (action,),
            )
    author.close()


def test_a_leaky_function_does_not_see_the_secret(people: dict[str, Connection], database: Any, db: Connection) -> None:
    """Beside the view's own columns nothing gets to what a caller puts into a condition on it."""
    author = database.connect("st_author")
    author.execute("CREATE TABLE seen (what text)")
    author.execute(
        """CREATE FUNCTION leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0001
           AS 'BEGIN INSERT INTO public.seen VALUES ($1::text); RETURN true; END'"""
    )
    author.execute("SELECT FROM pgtrickle.reader AS r WHERE leak(r.seal) AND leak(r.caller::text) AND leak(r)")
    (secret,) = db.execute("SELECT secret::text FROM pgtrickle_changes.gate_secret").fetchone() or ("",)
    seen = [what for (what,) in db.execute("SELECT what FROM seen")]
    assert len(seen) == 3
    assert not any(secret.removeprefix("\\x") in what for what in seen)
    author.close()


@pytest.fixture
def standby() -> Iterator[Connection]:
    """A hot standby of a server that is gone: it stays as that was."""
    with EmbeddedServer.temporary() as server:
        with server.connect() as db:
            db.execute("CREATE EXTENSION pg_trickle")
            fill(db)
        server.stop()
        Path(server.data, "standby.signal").touch()
        server.start()
        with server.connect() as db:
            yield db


def test_on_a_standby_what_only_reads_works(standby: Connection) -> None:
    assert standby.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    assert standby.execute(VERDICT).fetchone() == (2, 1, False)
    assert standby.execute(SIZES).fetchall() == [("public.st", "public.t", 2)]
    status = standby.execute("SELECT name, status FROM pgtrickle.pgt_status()")
    assert status.fetchall() == [("public.st", "ACTIVE")]
    checks: dict[str, str] = dict(
        standby.execute("SELECT check_name, severity FROM pgtrickle.health_check()").fetchall()
    )
    assert checks["capture_integrity"] == "OK"
    for call in ("refresh_stream_table('st')", "validate_query('SELECT 1 AS x')"):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            standby.execute(f"SELECT pgtrickle.{call}".encode())
