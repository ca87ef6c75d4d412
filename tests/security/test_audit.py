"""Audit: every refresh leaves its row, and nobody but the engine writes there (S41–S44, S57)."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from tests.security.conftest import TOTALS, Connection, Place, denied, guide

HISTORY = """
SELECT initiated_by, success, skipped_reason FROM pgtrickle.pgt_refresh_history WHERE pgt_name = %s ORDER BY refresh_id
"""


def history(place: Place, name: str = "st") -> list[tuple[Any, ...]]:
    return place.superuser.execute(HISTORY, (name,)).fetchall()


@pytest.mark.versions
def test_s41_every_refresh_leaves_one_row(place: Place, author: Connection, worker: Any) -> None:
    """Initial, manual, without changes, failed by hand, scheduled; the next test has those that fail by schedule."""
    pg_trickle.create_stream_table(author, "st", "SELECT id, 10 / tenant_id AS share FROM orders", schedule=None)
    place.superuser.execute("UPDATE orders SET tenant_id = 4 WHERE id = 1")
    pg_trickle.refresh_stream_table(author, "st")
    pg_trickle.refresh_stream_table(author, "st")
    expected = [("INITIAL", True, None), ("MANUAL", True, None), ("MANUAL", True, "no changes")]
    assert history(place) == expected
    place.superuser.execute("UPDATE orders SET tenant_id = 0 WHERE id = 1")
    with pytest.raises(psycopg.errors.DivisionByZero):
        pg_trickle.refresh_stream_table(author, "st")
    expected.append(("MANUAL", False, None))
    assert history(place) == expected
    place.superuser.execute("UPDATE orders SET tenant_id = 5 WHERE id = 1")
    pg_trickle.alter_stream_table(author, "st", schedule="calculated")
    expected.append(("SCHEDULER", True, None))
    worker.wait_for(lambda: len(history(place)) >= len(expected))
    assert history(place) == expected


def test_s41_what_is_skipped_leaves_a_row_too(place: Place, author: Connection, worker: Any) -> None:
    """A stream table isn't refreshed when what it reads couldn't be."""
    pg_trickle.create_stream_table(author, "lower", "SELECT id, 10 / tenant_id AS share FROM orders")
    pg_trickle.create_stream_table(
        author, "upper", "SELECT l.id, l.share, o.note FROM lower AS l JOIN orders AS o USING (id)"
    )
    place.superuser.execute("UPDATE orders SET tenant_id = 0, note = 'x' WHERE id = 1")
    worker.wait_for(lambda: ("SCHEDULER", None, '"lower" was not refreshed') in history(place, "upper"))
    worker.wait_for(lambda: ("SCHEDULER", False, None) in history(place, "lower"))


@pytest.mark.versions
def test_s42_the_first_audit_query(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    place.superuser.execute("INSERT INTO orders VALUES (99, 9, 9, 9, '')")
    pg_trickle.refresh_stream_table(author, "st")
    cursor = place.superuser.execute(guide("audit_last"))
    types = [place.superuser.adapters.types[column.type_code].name for column in cursor.description or ()]
    assert types == ["text", "text", "timestamptz", "timestamptz", "bool", "int8", "int8", "text"]
    (name, mode, started, finished, success, rows_in, rows_out, error), _ = cursor.fetchall()
    assert (name, mode, success, rows_in, rows_out, error) == ("st", "DIFFERENTIAL", True, 1, 1, None)
    assert started <= finished


@pytest.mark.versions
def test_s43_the_second_audit_query_lists_failures_alone(place: Place, author: Connection, worker: Any) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT id, 10 / tenant_id AS share FROM orders", schedule=None)
    place.superuser.execute("UPDATE orders SET tenant_id = 0 WHERE id = 1")
    with pytest.raises(psycopg.errors.DivisionByZero):
        pg_trickle.refresh_stream_table(author, "st")
    # One that is running, and one that failed long ago.
    place.superuser.execute(
        """INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, success)
           VALUES (0, 'running', 'FULL', 'MANUAL', now(), NULL),
                  (0, 'old', 'FULL', 'MANUAL', now() - interval '2h', false)"""
    )
    cursor = place.superuser.execute(guide("audit_failed"))
    names = [column.name for column in cursor.description or ()]
    (failed,) = (dict(zip(names, row, strict=True)) for row in cursor)
    assert failed["pgt_name"] == "st"
    assert "division by zero" in failed["error_message"]


def test_s44_what_the_engine_does_is_ordinary_sql(place: Place, author: Connection) -> None:
    """A statement-level audit trigger on a stream table sees its refreshes, as it sees anybody's writes."""
    pg_trickle.create_stream_table(author, "st", TOTALS)
    author.execute(
        """CREATE TABLE audited (operation text, who name);
           CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN INSERT INTO public.audited VALUES (TG_OP, current_user); RETURN NULL; END$$;
           CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON st EXECUTE FUNCTION audit()"""
    )
    place.superuser.execute("INSERT INTO orders VALUES (99, 9, 9, 9, '')")
    place.fresh("st")
    assert ("INSERT", "st_author") in author.execute("SELECT DISTINCT * FROM audited").fetchall()


def test_s57_nobody_writes_the_history(place: Place) -> None:
    author, reader = place.split()
    place.run("pgtrickle_admin", "pgtrickle_admin")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    admin = place.role("admin", None)
    place.run("pgtrickle_user", "pgtrickle_user")
    application = place.role("application")
    place.superuser.execute("GRANT pgtrickle_admin TO admin; GRANT pgtrickle_user TO application")
    for conn in (author, reader, admin, application):
        denied(
            conn,
            "DELETE FROM pgtrickle.pgt_refresh_history",
            "UPDATE pgtrickle.pgt_refresh_history SET success = true",
            "INSERT INTO pgtrickle.pgt_refresh_history (pgt_id) VALUES (1)",
            "TRUNCATE pgtrickle.pgt_refresh_history",
            "ALTER TABLE pgtrickle.pgt_refresh_history DISABLE ROW LEVEL SECURITY",
            "SELECT pgtrickle_changes.record_refresh(NULL, 'x', 'MANUAL', now(), 0, 0, '', '', now())",
        )


def test_s57_log_lines_bear_no_values(place: Place, author: Connection, worker: Any, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        pg_trickle.create_stream_table(author, "st", "SELECT note::int AS number FROM orders WHERE note ~ 'treasure'")
        place.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, 1, 'treasure')")
        worker.wait_for(lambda: ("SCHEDULER", False, None) in history(place))
    assert "treasure" not in " ".join(str(vars(record)) for record in caplog.records)


def everything(error: psycopg.Error) -> str:
    """All that a client is told of an error."""
    fields = (getattr(error.diag, name) for name in dir(error.diag) if not name.startswith("_"))
    return " ".join(field for field in fields if isinstance(field, str))


def test_s57_nor_do_those_of_the_server_when_the_worker_refreshes(
    place: Place, author: Connection, worker: Any
) -> None:
    log = place.database.server.log
    before = log.stat().st_size
    pg_trickle.create_stream_table(author, "st", "SELECT note::int AS number FROM orders WHERE note ~ 'treas'")
    place.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, 1, 'treasure')")
    worker.wait_for(lambda: ("SCHEDULER", False, None) in history(place))
    assert b"treasure" not in log.read_bytes()[before:]


@pytest.mark.versions
@pytest.mark.parametrize("value", ["treasure", 'trea"sure', "trea\nsure", "treasüre"])
def test_s57_a_reader_is_told_no_values_of_sources(
    place: Place, author: Connection, worker: Any, fails: Any, value: str
) -> None:
    """By history, status or the error of a stream table of his own above it; the owner is told when he refreshes."""
    query = "SELECT id, note::int AS number FROM orders WHERE id > 90"
    pg_trickle.create_stream_table(author, "st", query, schedule=None)
    reader = place.author("reader")
    place.superuser.execute("REVOKE ALL ON orders FROM reader; GRANT SELECT ON st TO reader")
    pg_trickle.create_stream_table(reader, "upper", "SELECT count(*) AS n FROM st", schedule=None)
    place.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, 1, %s)", (value,))
    told = fails("22P02", pg_trickle.refresh_stream_table, author, "st")
    assert value in everything(told)
    beside = fails("22P02", pg_trickle.refresh_stream_table, reader, "upper")
    assert "sure" not in everything(beside)
    author.execute("SELECT pgtrickle.alter_stream_table('st', schedule => 'calculated')")
    worker.wait_for(lambda: ("SCHEDULER", False, None) in history(place))
    shown = [
        str(reader.execute(sql.SQL("SELECT * FROM pgtrickle.{}").format(sql.SQL(where))).fetchall())
        for where in ("pgt_refresh_history", "stream_tables_info", "get_refresh_history('st')", "health_check()")
    ]
    assert 'invalid input syntax for type integer: "..." (SQLSTATE 22P02)' in shown[0]
    assert "sure" not in " ".join(shown)


SPOILT = {
    "a value": ("SELECT 1", "22P02", "Token"),
    "a constraint": ("ALTER TABLE lower ADD CHECK (id <> 99)", "23514", "Failing row"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_s60_a_stranger_is_told_no_rows_of_what_he_reads(
    place: Place, author: Connection, how: str, fails: Any
) -> None:
    """Who refreshes what reads his table sees its errors without DETAIL and CONTEXT; the owner sees all."""
    command, sqlstate, detail = SPOILT[how]
    note = "note" if how == "a constraint" else "note::json"
    pg_trickle.create_stream_table(
        author, "lower", f"SELECT id, {note} AS note FROM orders WHERE id > 90", schedule=None, refresh_mode="FULL"
    )
    author.execute(command.encode())
    stranger = place.author("stranger")
    place.superuser.execute("REVOKE ALL ON lower FROM stranger; GRANT SELECT (id) ON lower TO stranger")
    pg_trickle.create_stream_table(stranger, "upper", "SELECT id FROM lower", schedule=None)
    place.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, 1, 'treasure trove')")
    told = fails(sqlstate, pg_trickle.refresh_stream_table, stranger, "upper")
    assert "treasure" not in everything(told)
    assert "for its owner to see" in str(told.diag.message_detail)
    for who in (author, place.superuser):
        told = fails(sqlstate, pg_trickle.refresh_stream_table, who, "lower")
        assert detail in str(told.diag.message_detail)
        assert "treasure" in everything(told)


@pytest.mark.versions
def test_s60_a_writer_is_told_no_values_of_what_he_does_not_read(place: Place, author: Connection, fails: Any) -> None:
    query = """SELECT o.id, (o.note || c.secret)::int AS number
                 FROM orders AS o JOIN customers AS c ON c.id = o.customer_id WHERE o.id > 90"""
    pg_trickle.create_stream_table(author, "st", query, refresh_mode="IMMEDIATE")
    writer = place.role("writer")
    place.superuser.execute("GRANT INSERT ON orders TO writer")
    told = fails("22P02", writer.execute, "INSERT INTO orders VALUES (99, 1, 1, 1, 'x \"y\"')")
    assert 'the query of stream table "st" fails: invalid input syntax for type integer: "..."' in everything(told)
    assert "secret 1" not in everything(told)
