"""A circle of stream tables holds the least fixpoint of their queries: what WITH RECURSIVE gives."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.circles.conftest import EDGES, REACH, STEPS, allow, contents, rows

Connection = psycopg.Connection[tuple[Any, ...]]


def settled(conn: Connection, refreshed: str = "a") -> None:
    """Refresh one, and both are right."""
    pg_trickle.refresh_stream_table(conn, refreshed)
    wanted = rows(conn, REACH)
    assert contents(conn, "a") == wanted
    assert contents(conn, "b") == wanted
    assert_fresh(conn, "a")
    assert_fresh(conn, "b")


def last(conn: Connection) -> list[tuple[Any, ...]]:
    """How each member was refreshed last."""
    return rows(
        conn,
        """SELECT pgt_name, refresh_mode FROM (
               SELECT pgt_name, refresh_mode FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 2) AS h
            ORDER BY pgt_name""",
    )


@pytest.mark.versions
def test_closing_a_circle_fills_it(circle: Connection) -> None:
    assert contents(circle, "a") == contents(circle, "b") == rows(circle, REACH)
    assert len(contents(circle, "a")) == 10
    assert_fresh(circle, "a")


def test_what_comes_is_found_from_where_it_is(circle: Connection) -> None:
    circle.execute("INSERT INTO edges VALUES (5, 6), (6, 1)")
    settled(circle)
    assert len(contents(circle, "a")) == 36
    assert last(circle) == [("a", "DIFFERENTIAL"), ("b", "DIFFERENTIAL")]


def test_rows_that_hold_up_each_other_alone_go(circle: Connection) -> None:
    circle.execute("INSERT INTO edges VALUES (5, 2)")
    settled(circle)
    circle.execute("DELETE FROM edges WHERE src = 1")
    settled(circle)
    assert all(src != 1 for src, _ in contents(circle, "a"))
    assert last(circle) == [("a", "FULL"), ("b", "FULL")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE edges SET dst = 9 WHERE src = 3",
        "TRUNCATE edges",
        "INSERT INTO edges VALUES (2, 1), (NULL, 1), (1, NULL), (1, 2), (1, 2)",
        "WITH gone AS (DELETE FROM edges WHERE src = 2 RETURNING 1) INSERT INTO edges VALUES (5, 1), (2, 2)",
        "BEGIN; DELETE FROM edges WHERE src = 1; INSERT INTO edges VALUES (1, 2); COMMIT",
    ],
)
def test_whatever_happens_to_the_edges(circle: Connection, statement: str) -> None:
    circle.execute("INSERT INTO edges VALUES (5, 2), (2, 3)")
    settled(circle, "b")
    for _ in range(2):
        circle.execute(statement.encode())
        settled(circle)
        settled(circle)


def test_a_refresh_sees_what_its_own_transaction_wrote(circle: Connection) -> None:
    for isolation in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        with circle.transaction():
            circle.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
            circle.execute("INSERT INTO edges VALUES (5, 1), (5, 6)")
            settled(circle)
            circle.execute("DELETE FROM edges WHERE src = 5")
            settled(circle, "b")
            circle.execute("INSERT INTO edges VALUES (5, 7)")
        settled(circle)
        circle.execute("DELETE FROM edges WHERE src = 5")
    settled(circle)


def test_nothing_to_do_costs_nothing_and_is_told(circle: Connection) -> None:
    settled(circle)
    before = rows(
        circle, "SELECT pgt_name, frontier::text, fixpoint_iterations FROM pgtrickle.pgt_stream_tables ORDER BY 1"
    )
    pg_trickle.refresh_stream_table(circle, "b")
    after = rows(
        circle, "SELECT pgt_name, frontier::text, fixpoint_iterations FROM pgtrickle.pgt_stream_tables ORDER BY 1"
    )
    assert after == before
    assert rows(
        circle, "SELECT pgt_name, skipped_reason FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 2"
    ) == [("b", "no changes"), ("a", "no changes")]


def test_a_stream_table_may_read_itself(circle: Connection) -> None:
    pg_trickle.create_stream_table(circle, "alone", "SELECT src, dst FROM edges")
    pg_trickle.alter_stream_table(circle, "alone", query=STEPS.format(other="alone"))
    for statement in (
        "INSERT INTO edges VALUES (5, 1), (7, 8)",
        "DELETE FROM edges WHERE src = 1",
        "UPDATE edges SET dst = 1 WHERE src = 7",
    ):
        for isolation in ("READ COMMITTED", "REPEATABLE READ"):
            with circle.transaction():
                circle.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
                circle.execute(statement.encode())
                pg_trickle.refresh_stream_table(circle, "alone")
                assert contents(circle, "alone") == rows(circle, REACH)
                assert_fresh(circle, "alone")
    settled(circle)
    pg_trickle.drop_stream_table(circle, "alone")
    assert rows(circle, "SELECT to_regclass('alone')") == [(None,)]


def test_what_it_need_not_be_monotone_in_makes_it_begin_with_nothing(circle: Connection) -> None:
    """Rows that come to ``blocked`` take paths away: stratified negation."""
    circle.execute("CREATE TABLE blocked (node int); CREATE TABLE nodes (node int, weight int)")
    query = STEPS.format(other="b") + " WHERE NOT EXISTS (SELECT FROM blocked AS x WHERE x.node = e.src)"
    query += " UNION SELECT node, max(weight) FROM nodes GROUP BY node"
    pg_trickle.alter_stream_table(circle, "a", query=query)
    circle.execute("INSERT INTO edges VALUES (5, 1)")
    circle.execute("INSERT INTO blocked VALUES (3); INSERT INTO nodes VALUES (7, 1)")
    pg_trickle.refresh_stream_table(circle, "a")
    for statement in ("INSERT INTO nodes VALUES (7, 2)", "INSERT INTO blocked VALUES (1)", "DELETE FROM blocked"):
        circle.execute(statement.encode())
        pg_trickle.refresh_stream_table(circle, "b")
        assert last(circle) == [("a", "FULL"), ("b", "FULL")]
        assert_fresh(circle, "a")
        assert_fresh(circle, "b")
        before = contents(circle, "a"), contents(circle, "b")
        pg_trickle.reinitialize_stream_table(circle, "a")
        pg_trickle.refresh_stream_table(circle, "a")
        assert (contents(circle, "a"), contents(circle, "b")) == before


def test_who_reads_a_circle_is_right_and_sees_no_empty_one(circle: Connection) -> None:
    pg_trickle.create_stream_table(circle, "counted", "SELECT src, count(*) AS n FROM b GROUP BY src")
    pg_trickle.create_stream_table(
        circle, "at_once", "SELECT src, count(*) AS n FROM a GROUP BY src", refresh_mode="IMMEDIATE"
    )
    for statement in ("DELETE FROM edges WHERE src = 2", "INSERT INTO edges VALUES (2, 1)", "DELETE FROM edges"):
        circle.execute(statement.encode())
        pg_trickle.refresh_stream_table(circle, "counted")
        assert_fresh(circle, "counted")
        assert_fresh(circle, "at_once")
        settled(circle)


def test_a_full_mode_member_takes_part(circle: Connection) -> None:
    pg_trickle.alter_stream_table(circle, "b", refresh_mode="FULL")
    for statement in ("INSERT INTO edges VALUES (5, 1)", "DELETE FROM edges WHERE src = 1"):
        circle.execute(statement.encode())
        settled(circle)


def test_policies_that_an_owner_forces_on_himself_disturb_nothing(circle: Connection) -> None:
    circle.execute("ALTER TABLE a ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    circle.execute("INSERT INTO edges VALUES (5, 1)")
    settled(circle)
    circle.execute("DELETE FROM edges WHERE src = 1")
    settled(circle, "b")


def test_rows_that_somebody_wrote_or_took_are_put_right(circle: Connection) -> None:
    circle.execute("DELETE FROM a WHERE src = 1")
    settled(circle)
    circle.execute("INSERT INTO b VALUES (77, 1)")
    pg_trickle.reinitialize_stream_table(circle, "b")
    settled(circle)
    circle.execute("INSERT INTO b VALUES (77, 1)")
    assert "repaired" in pg_trickle.repair_stream_table(circle, "b")
    settled(circle)


def test_three_in_a_circle_and_one_that_feeds_it(db: Connection) -> None:
    allow(db)
    db.execute(EDGES.encode())
    db.execute("INSERT INTO edges VALUES (1, 2), (2, 3), (3, 4)")
    pg_trickle.create_stream_table(db, "fed", "SELECT DISTINCT src, dst FROM edges WHERE src < dst")
    step = "SELECT src, dst FROM fed UNION SELECT r.src, e.dst FROM {} AS r JOIN fed AS e ON e.src = r.dst"
    pg_trickle.create_stream_table(db, "one", "SELECT src, dst FROM fed")
    pg_trickle.create_stream_table(db, "two", step.format("one"))
    pg_trickle.create_stream_table(db, "three", step.format("two"))
    pg_trickle.alter_stream_table(db, "one", query=step.format("three"))
    reach = REACH.replace("FROM edges", "FROM fed").replace("JOIN edges", "JOIN fed")
    for statement in (
        "INSERT INTO edges VALUES (4, 5), (5, 1)",
        "DELETE FROM edges WHERE src = 2",
        "INSERT INTO edges SELECT i, i + 1 FROM generate_series(4, 20) AS i",
    ):
        db.execute(statement.encode())
        pg_trickle.refresh_stream_table(db, "two")
        for name in ("one", "two", "three", "fed"):
            assert_fresh(db, name)
            assert name == "fed" or contents(db, name) == rows(db, reach)


def test_a_circle_that_never_settles_says_so_and_changes_nothing(circle: Connection, fails: Any) -> None:
    endless = STEPS.format(other="b") + " UNION SELECT src + 1, 1 FROM b"
    error = fails("54000", pg_trickle.alter_stream_table, circle, "a", query=endless)
    assert "100 rounds" in str(error)
    assert "max_fixpoint_iterations" in (error.diag.message_hint or "")
    settled(circle)
    circle.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('max_fixpoint_iterations', '2')")
    # A session's own setting doesn't count.
    circle.execute("SET pg_trickle.max_fixpoint_iterations = 1000")
    circle.execute("INSERT INTO edges SELECT i, i + 1 FROM generate_series(5, 12) AS i")
    fails("54000", pg_trickle.refresh_stream_table, circle, "a")
    circle.execute("DELETE FROM pgtrickle.pgt_settings WHERE name = 'max_fixpoint_iterations'")
    settled(circle)
