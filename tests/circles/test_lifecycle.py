"""What else is done to members of a circle: dropped, suspended, altered, looked at, given to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.circles.conftest import EDGES, REACH, STEPS, allow, close, contents, rows

Connection = psycopg.Connection[tuple[Any, ...]]
Fails = Callable[..., psycopg.Error]


def test_it_is_told_of(circle: Connection) -> None:
    pg_trickle.create_stream_table(circle, "reader", "SELECT count(*) FROM a")
    circle.execute("INSERT INTO edges VALUES (5, 1)")
    pg_trickle.refresh_stream_table(circle, "reader")
    assert rows(circle, "SELECT name, scc_id FROM pgtrickle.pgt_status()") == [
        ("public.a", 1), ("public.b", 1), ("public.reader", None),
    ]  # fmt: skip
    ((scc, count, members, rounds, at),) = rows(circle, "SELECT * FROM pgtrickle.pgt_scc_status()")
    assert (scc, count, members) == (1, 2, ["public.a", "public.b"])
    assert 1 < rounds < 10
    assert at is not None
    tree = [line for (line,) in rows(circle, "SELECT tree_line FROM pgtrickle.dependency_tree()")]
    assert [line.strip("│├└─ ") for line in tree][:3] == ["public.reader", "public.a", "public.b"]
    assert any("public.a (see above)" in line for line in tree)
    (explained,) = rows(circle, "SELECT string_agg(line, ' ') FROM pgtrickle.explain_stream_table('a') AS line")
    assert "public.b come to read it in turn" in str(explained)
    rows(circle, "SELECT * FROM pgtrickle.diamond_groups()")
    rows(circle, "SELECT * FROM pgtrickle.health_check()")
    pg_trickle.drop_stream_table(circle, "reader")
    tree = [line for (line,) in rows(circle, "SELECT tree_line FROM pgtrickle.dependency_tree()")]
    assert tree[0] == "public.a"


def test_one_is_not_dropped_from_under_the_others(circle: Connection, fails: Fails) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        error = fails("2BP01", pg_trickle.drop_stream_table, circle, name)
        assert f"public.{other} reads it" in (error.diag.message_detail or "")
    pg_trickle.create_stream_table(circle, "above", "SELECT src FROM a JOIN b USING (src, dst)")
    pg_trickle.drop_stream_table(circle, "b", cascade=True)
    left = (
        "SELECT relname FROM pg_class WHERE relname IN ('a', 'b', 'above') OR relname ~ '^(query|state|changes)_[0-9]'"
    )
    assert rows(circle, left) == []
    assert rows(circle, "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'pg_trickle%'") == []
    assert rows(circle, "SELECT * FROM pgtrickle.pgt_scc_status()") == []


def test_a_table_dropped_by_hand_takes_the_circle_apart(circle: Connection) -> None:
    circle.execute("DROP TABLE b CASCADE")
    circle.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert rows(circle, "SELECT pgt_name, scc_id FROM pgtrickle.pgt_stream_tables") == [("a", None)]
    pg_trickle.alter_stream_table(circle, "a", query="SELECT src, dst FROM edges")
    assert_fresh(circle, "a")


def test_a_circle_that_is_broken_leaves_right_tables(circle: Connection) -> None:
    circle.execute("INSERT INTO edges VALUES (5, 1)")
    pg_trickle.alter_stream_table(circle, "b", query="SELECT DISTINCT dst, src FROM edges")
    assert rows(circle, "SELECT DISTINCT scc_id FROM pgtrickle.pgt_stream_tables") == [(None,)]
    for statement in ("SELECT", "DELETE FROM edges WHERE src = 2", "INSERT INTO edges VALUES (2, 7)"):
        circle.execute(statement.encode())
        pg_trickle.refresh_stream_table(circle, "a")
        assert_fresh(circle, "a")
        assert_fresh(circle, "b")
    pg_trickle.alter_stream_table(circle, "b", refresh_mode="IMMEDIATE")
    assert_fresh(circle, "b")


def test_a_suspended_member_stops_the_circle(circle: Connection, fails: Fails) -> None:
    """Alone, the others would go on holding up what the suspended one still shows."""
    pg_trickle.create_stream_table(circle, "reader", "SELECT count(*) AS n FROM a")
    pg_trickle.suspend_stream_table(circle, "b")
    circle.execute("INSERT INTO edges VALUES (5, 1)")
    before = contents(circle, "a")
    error = fails("55000", pg_trickle.refresh_stream_table, circle, "a")
    assert '"b" is suspended' in str(error)
    pg_trickle.refresh_stream_table(circle, "reader")
    assert contents(circle, "a") == before
    told = rows(circle, "SELECT name, status FROM pgtrickle_changes.worker_stream_tables() ORDER BY 1")
    assert told == [("public.a", "SUSPENDED"), ("public.b", "SUSPENDED"), ("public.reader", "ACTIVE")]
    circle.execute("DELETE FROM edges WHERE src = 1")
    pg_trickle.resume_stream_table(circle, "b")
    pg_trickle.refresh_stream_table(circle, "reader")
    assert contents(circle, "a") == contents(circle, "b") == rows(circle, REACH)
    assert_fresh(circle, "reader")


def test_members_that_are_not_filled_yet_are_filled_together(db: Connection) -> None:
    allow(db)
    db.execute(EDGES.encode())
    db.execute("INSERT INTO edges VALUES (1, 2), (2, 1)")
    pg_trickle.create_stream_table(db, "a", "SELECT src, dst FROM edges", initialize=False)
    pg_trickle.create_stream_table(db, "b", STEPS.format(other="a"), initialize=False)
    pg_trickle.alter_stream_table(db, "a", query=STEPS.format(other="b"))
    assert contents(db, "a") == []
    pg_trickle.refresh_stream_table(db, "b")
    assert contents(db, "a") == contents(db, "b") == rows(db, REACH)
    assert rows(db, "SELECT DISTINCT status FROM pgtrickle.pgt_status()") == [("ACTIVE",)]


def test_definitions_change_under_it(circle: Connection) -> None:
    circle.execute("ALTER TABLE edges ADD COLUMN note text; ALTER TABLE a RENAME TO renamed")
    circle.execute("INSERT INTO edges VALUES (5, 1, 'n')")
    pg_trickle.refresh_stream_table(circle, "renamed")
    assert contents(circle, "renamed") == contents(circle, "b") == rows(circle, REACH)
    circle.execute("CREATE UNIQUE INDEX ON edges (src) NULLS NOT DISTINCT; DELETE FROM edges WHERE src = 1")
    pg_trickle.refresh_stream_table(circle, "b")
    assert contents(circle, "renamed") == contents(circle, "b") == rows(circle, REACH)


def test_a_capture_that_was_tampered_with_is_mended(circle: Connection) -> None:
    circle.execute("ALTER TABLE b DISABLE TRIGGER USER; DELETE FROM edges WHERE src = 1")
    pg_trickle.refresh_stream_table(circle, "a")
    assert contents(circle, "a") == contents(circle, "b") == rows(circle, REACH)
    assert rows(circle, "SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'capture_integrity'") == [
        ("OK",)
    ]


def test_a_failure_is_in_everybodys_history(circle: Connection, fails: Fails, worker: Any) -> None:
    circle.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('max_fixpoint_iterations', '1')")
    circle.execute("INSERT INTO edges VALUES (5, 6)")
    failed = """SELECT DISTINCT pgt_name FROM pgtrickle.pgt_refresh_history
                 WHERE NOT success AND error_message LIKE '%54000%' ORDER BY 1"""
    worker.wait_for(lambda: rows(circle, failed) == [("a",), ("b",)])
    circle.execute("DELETE FROM pgtrickle.pgt_settings WHERE name = 'max_fixpoint_iterations'")
    for name in ("a", "b"):
        pg_trickle.resume_stream_table(circle, name)
    worker.wait_for(lambda: contents(circle, "a") == contents(circle, "b") == rows(circle, REACH))


def test_the_worker_looks_after_it(circle: Connection, worker: Any) -> None:
    pg_trickle.create_stream_table(circle, "reader", "SELECT src, count(*) AS n FROM b GROUP BY src")
    for statement in (
        "INSERT INTO edges VALUES (5, 1)",
        "DELETE FROM edges WHERE src = 2",
        "INSERT INTO edges VALUES (2, 2)",
    ):
        circle.execute(statement.encode())
        worker.wait_for(lambda: contents(circle, "a") == contents(circle, "b") == rows(circle, REACH))
        worker.wait_until_idle()
        assert_fresh(circle, "reader")
    # By the schedule of one of them.
    pg_trickle.drop_stream_table(circle, "reader")
    pg_trickle.alter_stream_table(circle, "b", schedule="1s")
    circle.execute("DELETE FROM edges WHERE src = 5")
    worker.wait_for(lambda: contents(circle, "a") == contents(circle, "b") == rows(circle, REACH))


def test_sql_alone_closes_one_through_the_worker(db: Connection, worker: Any, fails: Fails) -> None:
    allow(db)
    db.execute(EDGES.encode())
    db.execute("INSERT INTO edges VALUES (1, 2), (2, 1)")
    db.execute("SELECT pgtrickle.create_stream_table('a', 'SELECT src, dst FROM edges')")
    db.execute("SELECT pgtrickle.create_stream_table('b', %s)", (STEPS.format(other="a"),))
    db.execute("SELECT pgtrickle.alter_stream_table('a', query => %s)", (STEPS.format(other="b"),))
    assert contents(db, "a") == contents(db, "b") == rows(db, REACH)
    bad = "SELECT src, max(dst) AS dst FROM b GROUP BY src"
    fails("0A000", db.execute, "SELECT pgtrickle.alter_stream_table('a', query => %s)", (bad,))


@pytest.fixture
def owners(database: Any, db: Connection) -> tuple[Connection, Connection]:
    """Two authors who may read the edges, and each other's tables in schema public."""
    db.execute(EDGES.encode())
    db.execute("INSERT INTO edges VALUES (1, 2), (2, 3), (3, 1)")
    allow(db)
    for name in ("st_first", "st_second"):
        database.make_role(name)
        db.execute(
            sql.SQL(
                """GRANT USAGE, CREATE ON SCHEMA public TO {role}; GRANT SELECT ON edges TO {role};
                   GRANT USAGE ON SCHEMA pgtrickle TO {role};
                   GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO {role}"""
            ).format(role=sql.Identifier(name))
        )
    return database.connect("st_first"), database.connect("st_second")


def test_each_owner_may_read_what_he_reads(
    owners: tuple[Connection, Connection], db: Connection, fails: Fails, worker: Any
) -> None:
    first, second = owners
    pg_trickle.create_stream_table(first, "a", "SELECT src, dst FROM edges")
    fails("42501", pg_trickle.create_stream_table, second, "b", STEPS.format(other="a"))
    first.execute("GRANT SELECT ON a TO st_second")
    pg_trickle.create_stream_table(second, "b", STEPS.format(other="a"))
    fails("42501", pg_trickle.alter_stream_table, first, "a", query=STEPS.format(other="b"))
    second.execute("GRANT SELECT ON b TO st_first")
    pg_trickle.alter_stream_table(first, "a", query=STEPS.format(other="b"))
    worker.wait_for(lambda: contents(db, "a") == contents(db, "b") == rows(db, REACH))
    db.execute("DELETE FROM edges WHERE src = 3")
    pg_trickle.refresh_stream_table(first, "a")
    assert contents(db, "a") == contents(db, "b") == rows(db, REACH)
    fails("42501", pg_trickle.drop_stream_table, first, "a", cascade=True)
    fails("42501", pg_trickle.suspend_stream_table, first, "b")
    worker.stop()
    first.execute("REVOKE SELECT ON a FROM st_second")
    before = contents(db, "a")
    db.execute("INSERT INTO edges VALUES (3, 4)")
    fails("42501", pg_trickle.refresh_stream_table, first, "a")
    assert contents(db, "a") == before
    # The way out: he who is no longer read leaves the circle.
    pg_trickle.alter_stream_table(first, "a", query="SELECT src, dst FROM edges")
    assert_fresh(db, "a")


def test_a_member_is_given_to_somebody_else(circle: Connection, database: Any) -> None:
    database.make_role("st_heir")
    circle.execute("GRANT USAGE, CREATE ON SCHEMA public TO st_heir; GRANT SELECT ON edges, a TO st_heir")
    circle.execute("ALTER TABLE b OWNER TO st_heir")
    circle.execute("DELETE FROM edges WHERE src = 1")
    pg_trickle.refresh_stream_table(circle, "a")
    assert contents(circle, "a") == contents(circle, "b") == rows(circle, REACH)
    assert_fresh(circle, "b")


def test_two_circles_one_on_the_other(circle: Connection) -> None:
    close(circle, "c", "d")
    pg_trickle.alter_stream_table(
        circle, "c", query=STEPS.format(other="d").replace("FROM edges AS e\n", "FROM a AS e WHERE e.src > 1\n")
    )
    for statement in ("INSERT INTO edges VALUES (5, 1)", "DELETE FROM edges WHERE src = 3"):
        circle.execute(statement.encode())
        pg_trickle.refresh_stream_table(circle, "d")
        for name in ("a", "b", "c", "d"):
            assert_fresh(circle, name)
        assert contents(circle, "a") == rows(circle, REACH)


def test_a_fuse_holds_the_whole_circle_back(circle: Connection, fails: Fails) -> None:
    circle.execute("SELECT pgtrickle.alter_stream_table('a', fuse_ceiling => 3)")
    circle.execute("INSERT INTO edges SELECT i, i + 1 FROM generate_series(5, 9) AS i")
    before = contents(circle, "b")
    fails("55000", pg_trickle.refresh_stream_table, circle, "b")
    assert contents(circle, "b") == before
    circle.execute("SELECT pgtrickle.reset_fuse('a')")
    pg_trickle.refresh_stream_table(circle, "b")
    assert contents(circle, "a") == contents(circle, "b") == rows(circle, REACH)
