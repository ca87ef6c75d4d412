"""Which circles are accepted, and which are refused with the construct in the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.circles.conftest import EDGES, REACH, STEPS, allow, close, contents, rows

Connection = psycopg.Connection[tuple[Any, ...]]
Fails = Callable[..., psycopg.Error]

REFUSED = {
    "an aggregate": "SELECT src, max(dst) AS dst FROM b GROUP BY src",
    "a count above": "SELECT src, dst FROM edges UNION SELECT 1, count(*)::int FROM b",
    "EXCEPT": "SELECT src, dst FROM edges EXCEPT SELECT src, dst FROM b",
    "INTERSECT": "SELECT src, dst FROM edges INTERSECT SELECT src, dst FROM b",
    "LEFT JOIN": "SELECT DISTINCT e.src, b.dst FROM edges AS e LEFT JOIN b ON b.src = e.dst",
    "FULL JOIN": "SELECT DISTINCT e.src, b.dst FROM edges AS e FULL JOIN b ON b.src = e.dst",
    "NOT EXISTS": "SELECT DISTINCT src, dst FROM edges AS e WHERE NOT EXISTS (SELECT FROM b WHERE b.src = e.dst)",
    "NOT IN": "SELECT DISTINCT src, dst FROM edges WHERE dst NOT IN (SELECT src FROM b)",
    "a subquery in an expression": "SELECT DISTINCT src, (dst IN (SELECT src FROM b))::int AS dst FROM edges",
    "a scalar subquery": "SELECT DISTINCT src, (SELECT max(src) FROM b) AS dst FROM edges",
    "a window function": "SELECT src, row_number() OVER (PARTITION BY src ORDER BY dst)::int AS dst FROM b",
    "DISTINCT ON": "SELECT DISTINCT ON (src) src, dst FROM b ORDER BY src, dst",
    "LIMIT": "SELECT src, dst FROM b ORDER BY src, dst LIMIT 3",
    "LIMIT without ORDER BY": "SELECT DISTINCT src, dst FROM (SELECT * FROM b LIMIT 3) AS x",
    "UNION ALL": "SELECT src, dst FROM edges UNION ALL SELECT src, dst FROM b",
    "a join without DISTINCT": "SELECT b.src, e.dst FROM b JOIN edges AS e ON e.src = b.dst",
    "time": "SELECT DISTINCT b.src, b.dst FROM b JOIN seen ON seen.node = b.src AND seen.at > now() - interval '1 day'",
    "volatile": "SELECT DISTINCT src, (random() * 10)::int AS dst FROM b",
}
NAMED = {
    "an aggregate": "aggregate",
    "EXCEPT": "EXCEPT",
    "LEFT JOIN": "LEFT JOIN",
    "NOT EXISTS": "NOT EXISTS",
    "a window function": "window function",
    "DISTINCT ON": "DISTINCT ON",
    "LIMIT": "LIMIT",
    "UNION ALL": "several times",
    "FULL JOIN": "FULL JOIN",
}


@pytest.mark.parametrize("mode", ["AUTO", "FULL"])
def test_what_may_take_rows_back_is_refused_by_name(db: Connection, fails: Fails, mode: str) -> None:
    allow(db)
    db.execute(EDGES.encode())
    db.execute("INSERT INTO edges VALUES (1, 2), (2, 3); CREATE TABLE seen (node int, at timestamptz)")
    pg_trickle.create_stream_table(db, "a", "SELECT src, dst FROM edges", refresh_mode=mode)
    pg_trickle.create_stream_table(db, "b", STEPS.format(other="a"))
    for name, query in REFUSED.items():
        error = fails("0A000", pg_trickle.alter_stream_table, db, "a", query=query)
        assert NAMED.get(name, "") in str(error), name
        assert "public.a reads public.b, which reads public.a" in (error.diag.message_detail or ""), name
        assert error.diag.message_hint, name
    assert rows(db, "SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE scc_id IS NOT NULL") == []
    pg_trickle.refresh_stream_table(db, "b")
    assert_fresh(db, "b")


ACCEPTED = [
    STEPS.format(other="b"),
    "SELECT src, dst FROM edges WHERE src IN (SELECT dst FROM b) UNION SELECT src, dst FROM edges WHERE src = 1",
    "SELECT DISTINCT e.src, e.dst FROM edges AS e WHERE EXISTS (SELECT FROM b WHERE b.dst = e.src) OR e.src = 1",
    "SELECT DISTINCT b.src, coalesce(e.dst, 0) AS dst FROM b LEFT JOIN edges AS e ON e.src = b.dst",
    "SELECT src, dst FROM edges UNION SELECT dst, x FROM b CROSS JOIN LATERAL unnest(ARRAY[src, dst]) AS u(x)",
    "WITH w AS (SELECT src, dst FROM b UNION SELECT dst, src FROM b) SELECT src, dst FROM edges UNION SELECT * FROM w",
    "WITH RECURSIVE r AS (SELECT * FROM b UNION SELECT r.src, e.dst FROM r JOIN edges AS e ON e.src = r.dst)"
    " SELECT * FROM r UNION SELECT src, dst FROM edges",
    "SELECT b.src, max(e.dst) AS dst FROM (SELECT 1 AS src) AS b JOIN edges AS e ON true GROUP BY b.src"
    " UNION SELECT src, dst FROM b",
]


@pytest.mark.parametrize("query", ACCEPTED)
def test_what_only_adds_is_accepted_and_least(circle: Connection, fails: Fails, query: str) -> None:
    # OR of an EXISTS needs no more than that the mark is never denied; that isn't looked for yet.
    if " OR " in query:
        fails("0A000", pg_trickle.alter_stream_table, circle, "a", query=query)
        return
    pg_trickle.alter_stream_table(circle, "a", query=query)
    for statement in (
        "INSERT INTO edges VALUES (5, 1), (1, 1)",
        "DELETE FROM edges WHERE src = 1",
        "INSERT INTO edges VALUES (1, 3)",
        "DELETE FROM edges",
    ):
        circle.execute(statement.encode())
        pg_trickle.refresh_stream_table(circle, "a")
        found = contents(circle, "a"), contents(circle, "b")
        assert_fresh(circle, "a")
        assert_fresh(circle, "b")
        pg_trickle.reinitialize_stream_table(circle, "b")
        pg_trickle.refresh_stream_table(circle, "b")
        assert (contents(circle, "a"), contents(circle, "b")) == found


def test_one_that_is_maintained_at_once_is_in_no_circle(circle: Connection, fails: Fails) -> None:
    error = fails("0A000", pg_trickle.alter_stream_table, circle, "a", refresh_mode="IMMEDIATE")
    assert "IMMEDIATE" in str(error)
    pg_trickle.create_stream_table(circle, "c", "SELECT src, dst FROM edges", refresh_mode="IMMEDIATE")
    pg_trickle.create_stream_table(circle, "d", STEPS.format(other="c"))
    error = fails("0A000", pg_trickle.alter_stream_table, circle, "c", query=STEPS.format(other="d"))
    assert "IMMEDIATE" in str(error)
    pg_trickle.create_stream_table(circle, "e", STEPS.format(other="a"), refresh_mode="IMMEDIATE")
    error = fails("0A000", pg_trickle.alter_stream_table, circle, "a", query=STEPS.format(other="e"))
    for name in ("a", "b", "c", "d"):
        pg_trickle.refresh_stream_table(circle, name)
        assert_fresh(circle, name)


def test_a_view_in_between_may_not_close_a_circle_by_itself(circle: Connection, fails: Fails) -> None:
    """Nobody calls alter_stream_table: the refresh notices."""
    allow(circle, "off")
    circle.execute("CREATE VIEW between_them AS SELECT src, dst FROM edges")
    pg_trickle.create_stream_table(circle, "lower", "SELECT DISTINCT src, dst FROM between_them")
    pg_trickle.create_stream_table(circle, "upper", STEPS.format(other="lower"))
    circle.execute("CREATE OR REPLACE VIEW between_them AS SELECT src, dst FROM upper UNION SELECT src, dst FROM edges")
    error = fails("42P17", pg_trickle.refresh_stream_table, circle, "lower")
    assert "lower reads" in (error.diag.message_detail or "")
    allow(circle)
    circle.execute("INSERT INTO edges VALUES (5, 1)")
    pg_trickle.refresh_stream_table(circle, "lower")
    for name in ("lower", "upper"):
        pg_trickle.refresh_stream_table(circle, name)
        assert contents(circle, name) == rows(circle, REACH)
    circle.execute("DELETE FROM edges WHERE src = 1")
    pg_trickle.refresh_stream_table(circle, "upper")
    assert contents(circle, "lower") == contents(circle, "upper") == rows(circle, REACH)
    circle.execute("CREATE OR REPLACE VIEW between_them AS SELECT src, dst FROM edges")
    pg_trickle.refresh_stream_table(circle, "upper")
    assert_fresh(circle, "lower")
    assert_fresh(circle, "upper")
    assert rows(circle, "SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE scc_id IS NOT NULL") == [(2,)]


def test_one_that_is_there_goes_on_when_they_are_no_longer_allowed(circle: Connection, fails: Fails) -> None:
    allow(circle, "off")
    for statement in ("INSERT INTO edges VALUES (5, 1)", "DELETE FROM edges WHERE src = 2"):
        circle.execute(statement.encode())
        pg_trickle.refresh_stream_table(circle, "a")
        assert contents(circle, "a") == contents(circle, "b") == rows(circle, REACH)
    # A new plan for what is there; but no new member.
    circle.execute("CREATE UNIQUE INDEX ON a (dst, src) NULLS NOT DISTINCT; ALTER TABLE edges ADD COLUMN note text")
    pg_trickle.refresh_stream_table(circle, "b")
    pg_trickle.create_stream_table(circle, "c", STEPS.format(other="a"))
    fails("42P17", pg_trickle.alter_stream_table, circle, "b", query=STEPS.format(other="c"))
    fails("42P17", pg_trickle.alter_stream_table, circle, "b", query=STEPS.format(other="a"))


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_two_at_once_can_not_close_a_circle_unseen(database: Any, db: Connection, isolation: str) -> None:
    db.execute(EDGES.encode())
    pg_trickle.create_stream_table(db, "a", "SELECT DISTINCT src, dst FROM edges")
    pg_trickle.create_stream_table(db, "b", "SELECT DISTINCT src, dst FROM edges")
    other = database.connect()
    ended: list[str | None] = []

    def second() -> None:
        try:
            pg_trickle.alter_stream_table(other, "b", query=STEPS.format(other="a"))
            ended.append(None)
        except psycopg.Error as error:
            ended.append(error.sqlstate)

    other.execute(f"SET default_transaction_isolation = '{isolation.lower()}'".encode())
    with db.transaction():
        pg_trickle.alter_stream_table(db, "a", query=STEPS.format(other="b"))
        thread = threading.Thread(target=second)
        thread.start()
        while not rows(db, f"SELECT FROM pg_locks WHERE NOT granted AND pid = {other.info.backend_pid}"):
            assert thread.is_alive()
    thread.join()
    assert ended[0] in {"42P17", "40001"}
    assert rows(db, "SELECT count(*) FROM pgtrickle.pgt_dependencies") == [(3,)]


def test_a_plan_of_ones_own_making_does_not_pass(circle: Connection, fails: Fails) -> None:
    """The plan comes from the caller; without the compiler's word for it no circle is closed."""
    plan = pg_trickle.api.compile_locally(circle, "a", "SELECT src, max(dst) AS dst FROM b GROUP BY src", existing=True)
    forged = plan.to_json()
    assert "circular" not in forged
    fails(
        "0A000",
        circle.execute,
        "SELECT pgtrickle.alter_stream_table_with_plan('a', query => %s, plan => %s)",
        ("SELECT src, max(dst) AS dst FROM b GROUP BY src", psycopg.types.json.Jsonb(forged)),
    )


def test_closing_a_second_circle_through_the_first(circle: Connection) -> None:
    pg_trickle.create_stream_table(circle, "c", STEPS.format(other="a"))
    pg_trickle.alter_stream_table(
        circle, "b", query=STEPS.format(other="a") + " UNION SELECT dst, src FROM c WHERE dst > 3"
    )
    assert rows(circle, "SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE scc_id = 1 ORDER BY 1") == [
        ("a",), ("b",), ("c",),
    ]  # fmt: skip
    for statement in ("INSERT INTO edges VALUES (5, 1)", "DELETE FROM edges WHERE src = 1"):
        circle.execute(statement.encode())
        pg_trickle.refresh_stream_table(circle, "c")
        for name in ("a", "b", "c"):
            assert_fresh(circle, name)
    pg_trickle.alter_stream_table(circle, "b", query=STEPS.format(other="a"))
    assert rows(circle, "SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE scc_id = 1 ORDER BY 1") == [
        ("a",),
        ("b",),
    ]
    circle.execute("DELETE FROM edges WHERE src = 2")
    pg_trickle.refresh_stream_table(circle, "c")
    for name in ("a", "b", "c"):
        assert contents(circle, name) == rows(circle, REACH), name


def test_other_circles_are_left_alone(circle: Connection) -> None:
    close(circle, "c", "d")
    assert rows(circle, "SELECT scc_id, count(*)::int FROM pgtrickle.pgt_stream_tables GROUP BY 1 ORDER BY 1") == [
        (1, 2), (3, 2),
    ]  # fmt: skip
    pg_trickle.drop_stream_table(circle, "d", cascade=True)
    assert rows(circle, "SELECT DISTINCT scc_id FROM pgtrickle.pgt_stream_tables") == [(1,)]
