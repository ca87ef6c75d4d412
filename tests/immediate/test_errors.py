"""Values that the query, or only its changes, can't be computed for (SQLSTATE class 22, or what a function raises)."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.definition.conftest import AUTHOR

Connection = psycopg.Connection[tuple[Any, ...]]

QUERIES: dict[str, LiteralString] = {
    "ratio": "SELECT id, 100 / (v - 3) AS r FROM t WHERE v <> 3",
    "ratios": "SELECT k, sum(100 / v) AS r FROM t GROUP BY k",
    "least": "SELECT k, min(100 / v) AS r, count(*) AS n FROM t GROUP BY k",
    "joined": "SELECT t.id, 100 / (t.v - u.v) AS r FROM t JOIN u ON u.k = t.k",
    "filtered": "SELECT id, k FROM t WHERE 100 / v > 7",
}


@pytest.fixture
def ratios(db: Connection) -> Connection:
    db.execute(
        """CREATE TABLE t (id int PRIMARY KEY, k int, v int);
           CREATE TABLE u (k int PRIMARY KEY, v int);
           INSERT INTO t SELECT g, g % 3, 10 + g FROM generate_series(1, 12) AS g;
           INSERT INTO u VALUES (0, -1), (1, -2), (2, -3)"""
    )
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE")
    return db


def check(db: Connection) -> None:
    for name in QUERIES:
        assert differences(db, name) == [], name


FIXES: LiteralString = """
    CREATE FUNCTION fix() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE t SET v = 7 WHERE id = NEW.id AND v = 0; RETURN NULL; END $$;
    CREATE TRIGGER fix AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION fix()"""


@pytest.mark.versions
def test_values_that_are_gone_at_the_end_of_the_statement(ratios: Connection) -> None:
    """The query, as of then, can be computed: so it is."""
    ratios.execute(FIXES)
    for statement in ("INSERT INTO t VALUES (20, 1, 0), (21, 5, 3)", "UPDATE t SET v = 0 WHERE id IN (3, 4)"):
        ratios.execute(statement.encode())
        check(ratios)


def test_pairs_that_never_meet(ratios: Connection) -> None:
    """Of the rows of both sides that come and go at once."""
    for statement in (
        "WITH a AS (UPDATE u SET v = 11 WHERE k = 1) UPDATE t SET v = v + 500 WHERE k = 1",
        "WITH a AS (UPDATE u SET v = -11 WHERE k = 1) UPDATE t SET v = v - 500 WHERE k = 1",
    ):
        ratios.execute(statement.encode())
        check(ratios)
        ratios.execute("INSERT INTO t VALUES (30, 1, 99); DELETE FROM t WHERE id = 30")
        check(ratios)


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("UPDATE t SET v = 0 WHERE id = 5", ("filtered", "least", "ratios")),
        ("INSERT INTO u VALUES (9, 50); INSERT INTO t VALUES (50, 9, 50)", ("joined",)),
        ("WITH a AS (INSERT INTO u VALUES (9, 50)) INSERT INTO t VALUES (50, 9, 50)", ("joined",)),
    ],
)
def test_where_the_query_fails_the_writer_is_told(
    ratios: Connection, statement: LiteralString, names: tuple[str, ...]
) -> None:
    """By the name of the stream table, with what to do; and nothing has happened."""
    with pytest.raises(psycopg.errors.DivisionByZero) as failure, ratios.transaction():
        ratios.execute(statement)
    assert any(f'"{name}"' in str(failure.value.diag.message_primary) for name in names)
    assert "division by zero" in str(failure.value.diag.message_primary)
    assert "suspend_stream_table" in str(failure.value.diag.message_hint)
    check(ratios)
    for name in names:
        pg_trickle.suspend_stream_table(ratios, name)
    ratios.execute(statement)


UPPER: dict[str, tuple[LiteralString, type[psycopg.Error], str]] = {
    "what its query can't compute": (
        "SELECT id, 100 / (r - 50) AS q FROM ratio",
        psycopg.errors.DivisionByZero,
        'the query of stream table "upper" fails: division by zero',
    ),
    "what its query can't compute of several": (
        "SELECT sum(r)::int / min(CASE WHEN r = 50 THEN 0 ELSE 1 END) AS q FROM ratio",
        psycopg.errors.DivisionByZero,
        'the query of stream table "upper" fails: division by zero',
    ),
}


@pytest.mark.parametrize("query", UPPER)
def test_who_stands_above_is_named_where_his_query_fails(ratios: Connection, query: str) -> None:
    """And not what he reads, which is well, although its changes are tried twice."""
    text, error, message = UPPER[query]
    pg_trickle.create_stream_table(ratios, "upper", text, refresh_mode="IMMEDIATE")
    with pytest.raises(error) as failure, ratios.transaction():
        ratios.execute("INSERT INTO t VALUES (60, 1, 5)")
    assert failure.value.diag.message_primary == message
    assert "suspend_stream_table('public.upper')" in str(failure.value.diag.message_hint)
    pg_trickle.suspend_stream_table(ratios, "upper")
    ratios.execute("INSERT INTO t VALUES (60, 1, 5)")
    check(ratios)


def test_a_right_that_the_owner_above_has_lost_is_told_with_his_stream_table(ratios: Connection, database: Any) -> None:
    database.make_role("reader")
    ratios.execute(sql.SQL(AUTHOR).format(role=sql.Identifier("reader")))
    ratios.execute("GRANT SELECT ON ratio TO reader")
    reader = database.connect("reader")
    pg_trickle.create_stream_table(reader, "upper", "SELECT id, r + 1 AS q FROM ratio", refresh_mode="IMMEDIATE")
    ratios.execute("REVOKE SELECT ON ratio FROM reader")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as failure, ratios.transaction():
        ratios.execute("INSERT INTO t VALUES (60, 1, 5)")
    assert failure.value.diag.message_primary == 'permission denied to maintain stream table "upper"'
    assert "suspend_stream_table('public.upper')" in str(failure.value.diag.message_hint)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [("RAISE 'no more than 50'", psycopg.errors.RaiseException), ("ASSERT false", psycopg.errors.AssertFailure)],
)
def test_a_function_that_refuses_a_value_is_heard_with_the_name_of_the_stream_table(
    ratios: Connection, refusal: str, error: type[psycopg.Error]
) -> None:
    body = f"BEGIN IF v > 50 AND v < 1000 THEN {refusal}; END IF; RETURN v; END"
    ratios.execute(f"CREATE FUNCTION choosy(v int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ {body} $$".encode())
    query = "SELECT t.id, choosy(t.v + u.v) AS v FROM t JOIN u ON u.k = t.k"
    pg_trickle.create_stream_table(ratios, "chosen", query, refresh_mode="IMMEDIATE")
    with pytest.raises(error, match='"chosen" fails') as failure, ratios.transaction():
        ratios.execute("UPDATE t SET v = 100 WHERE id = 5")
    assert "suspend_stream_table('public.chosen')" in str(failure.value.diag.message_hint)
    # Pairs that never meet are none of the query's.
    ratios.execute("WITH a AS (UPDATE u SET v = -300 WHERE k = 1) UPDATE t SET v = v + 295 WHERE k = 1")
    assert differences(ratios, "chosen") == []
    check(ratios)


def test_what_cannot_fail_needs_no_subtransaction(ratios: Connection) -> None:
    """Their numbers overflow in transactions of many statements."""
    pg_trickle.create_stream_table(
        ratios,
        "plain",
        "SELECT k, sum(v * 2) AS s, max(v) AS m FROM t WHERE v > 3 GROUP BY k",
        refresh_mode="IMMEDIATE",
    )
    found = ratios.execute(
        """SELECT pgt_name, bool_or(prosrc LIKE '%data_exception%') FROM pg_proc JOIN pgtrickle.pgt_stream_tables
              ON proname LIKE format('maintain\\_%s\\_%s\\_ins', pgt_id, 't'::regclass::oid) GROUP BY 1"""
    ).fetchall()
    assert dict(found) == {**dict.fromkeys(QUERIES, True), "plain": False}
