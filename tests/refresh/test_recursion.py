"""Recursive queries are kept equal to what PostgreSQL makes of them: by the rule, not by running them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

import pg_trickle
from pg_trickle.algebra.linear import Consolidate, Filter
from pg_trickle.render import recursion
from pg_trickle.render.select import CommonTables
from pg_trickle.scalar import BOOL, composed
from pg_trickle.testing.oracle import differences
from tests.refresh.recursions import RECURSIONS, REMOVED, SHOWN, TABLES, batches, first, query
from tests.upkeep import check_states, last_refresh

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]
# Each takes seconds; so many are enough unless many are asked for.
ASKED = settings().max_examples
EXAMPLES = ASKED if ASKED > 200 else min(ASKED, 40)


def rules(conn: Connection, name: str) -> str:
    row = conn.execute(
        "SELECT plan #> '{explain,tree}' FROM pgtrickle.pgt_plans JOIN pgtrickle.pgt_stream_tables USING (pgt_id)"
        " WHERE pgt_name = %s",
        (name,),
    ).fetchone()
    assert row is not None
    return "; ".join(line["rule"] for line in row[0])


def refreshed(conn: Connection, name: str, assert_fresh: Oracle) -> None:
    """Refresh, by the delta alone, and compare everything."""
    pg_trickle.refresh_stream_table(conn, name)
    assert_fresh(conn, name)
    check_states(conn, name)
    mode, _, reason = last_refresh(conn, name)
    assert (mode, reason) == ("DIFFERENTIAL", None)


@contextmanager
def patience(rows: int) -> Iterator[None]:
    """Plans that derive all rows afresh when more than so many are in doubt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recursion, "PATIENCE", rows)
        patch.setattr(recursion, "BYTES_FOR_ONE_MORE", 2**40)
        yield


@pytest.mark.property
@pytest.mark.slow
@settings(max_examples=EXAMPLES)
@given(
    cases=st.lists(st.tuples(st.sampled_from(sorted(RECURSIONS)), st.sampled_from(SHOWN)), min_size=1, max_size=2),
    start=first,
    steps=batches,
    patient=st.sampled_from([1000, 1000, 3, 1]),
)
def test_recursions_equal_their_queries(db: Connection, assert_fresh: Oracle, cases, start, steps, patient) -> None:
    db.execute(TABLES.encode())
    names = []
    try:
        for statement in start:
            db.execute(statement.encode())
        for place, (title, shown) in enumerate(cases):
            names.append(f"st{place}")
            with patience(patient):
                pg_trickle.create_stream_table(db, names[-1], query(title, shown), schedule=None)
            assert "semi-naive" in rules(db, names[-1])
        for step in steps:
            for statement in step:
                db.execute(statement.encode())
            for name in names:
                refreshed(db, name, assert_fresh)
    finally:
        for name in names:
            pg_trickle.drop_stream_table(db, name)
        db.execute(REMOVED)


STEPS = (
    "INSERT INTO edges VALUES (4, 5, 'x', 1), (5, 6, 'x', 1.0)",
    "DELETE FROM edges WHERE (a, b) = (1, 2)",
    "INSERT INTO edges VALUES (3, 2, 'x', 2), (2, 4, NULL, 1), (2, 4, NULL, 1); DELETE FROM roots WHERE id = 3",
    "UPDATE edges SET a = b, b = a WHERE a = 2",
    "DELETE FROM edges WHERE ctid IN (SELECT ctid FROM edges WHERE a = 4 LIMIT 1); INSERT INTO roots VALUES (4, 1)",
    "UPDATE tree SET name = name || '!' WHERE id = 1; UPDATE tree SET parent = 1 WHERE id = 3",
    "UPDATE bounds SET most = 1; UPDATE edges SET cost = 1.50 WHERE cost = 1.5",
    "DELETE FROM roots; DELETE FROM tree WHERE id = 1",
    "INSERT INTO roots VALUES (1, 1), (NULL, 2); UPDATE edges SET b = NULL WHERE b = 6",
    "DELETE FROM edges; INSERT INTO edges VALUES (1, 2, 'x', 1), (2, 3, 'x', 1)",
    # What leads to 2 now is only what 2 leads to.
    "DELETE FROM edges WHERE a = 1; INSERT INTO edges VALUES (3, 2, 'x', 1)",
)
START = """
INSERT INTO edges VALUES (1, 2, 'x', 1.5), (2, 3, 'x', 1), (2, 3, 'x', 1.0), (1, 3, NULL, 2), (3, 4, 'y', NULL),
    (3, 1, 'x', 1), (NULL, 1, 'x', 1), (4, NULL, 'x', 1);
INSERT INTO roots VALUES (1, 1), (3, 0);
INSERT INTO tree VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 2, 'd'), (9, NULL, 'z');
"""


@pytest.mark.versions
@pytest.mark.parametrize("titles", [("closure", "with texts", "not in", "from groups", "ways", "costs", "documents")])
def test_recursions_follow_what_happens(db: Connection, assert_fresh: Oracle, titles: tuple[str, ...]) -> None:
    follow(db, titles, lambda name: refreshed(db, name, assert_fresh))


def follow(conn: Connection, titles: Iterable[str], check: Callable[[str], None]) -> None:
    """Make a stream table of each, and check them all after each step."""
    conn.execute((TABLES + START).encode())
    names = {f"st{place}": title for place, title in enumerate(titles)}
    for name, title in names.items():
        pg_trickle.create_stream_table(conn, name, query(title), schedule=None)
    for step in STEPS:
        conn.execute(step.encode())
        for name in names:
            check(name)


def test_all_other_recursions_follow_too(db: Connection, assert_fresh: Oracle) -> None:
    follow(db, RECURSIONS, lambda name: refreshed(db, name, assert_fresh))


def test_the_same_inside_the_writing_statement(db: Connection, assert_fresh: Oracle) -> None:
    db.execute((TABLES + START).encode())
    for place, title in enumerate(RECURSIONS):
        with patience(1 if place % 3 == 2 else 1000):
            pg_trickle.create_stream_table(db, f"st{place}", query(title), schedule=None, refresh_mode="IMMEDIATE")
    for step in STEPS:
        db.execute(step.encode())
        for place in range(len(RECURSIONS)):
            assert_fresh(db, f"st{place}")
            check_states(db, f"st{place}")


def _none(like: recursion.Recursive) -> sql.Composable:
    return sql.SQL("SELECT {columns} FROM {table} WHERE FALSE").format(
        columns=sql.SQL(", ").join(map(sql.Identifier, like.stage.column_names)), table=like.target.table
    )


def _without_cascade(like: recursion.Recursive, changed: sql.Identifier, common: CommonTables) -> sql.Composable:
    cut = replace(like.operator, step=Filter(like.operator.step, (composed(sql.SQL("FALSE"), frozenset(), BOOL),)))
    return GONE(replace(like, operator=cut), changed, common)


def _one_step(like: recursion.Recursive, *given: Any) -> sql.Composable:
    cut = replace(like.operator, step=Filter(like.operator.step, (composed(sql.SQL("FALSE"), frozenset(), BOOL),)))
    return DERIVED(replace(like, operator=cut), *given)


GONE, DERIVED, CHANGE = recursion._gone, recursion._derived, recursion.Recursive.change
MUTANTS: dict[str, tuple[object, str, object]] = {
    "what follows from lost rows is kept": (recursion, "_gone", _without_cascade),
    "what is still derived stays lost": (recursion, "_again", lambda like, *_: _none(like)),
    "what came is overlooked": (recursion, "_new", lambda like, *_: _none(like)),
    "what follows from new rows is overlooked": (recursion, "_derived", _one_step),
    "a way lost and a way won cancel": (
        recursion.Recursive,
        "change",
        lambda like, derived: Consolidate(CHANGE(like, derived)),
    ),
    "rows derived again count as new, too": (recursion.Recursive, "alike", lambda *_: sql.SQL("FALSE")),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_half_of_the_rule_is_noticed(db: Connection, monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    monkeypatch.setattr(*MUTANTS[mutant])
    wrong = []

    def check(name: str) -> None:
        pg_trickle.refresh_stream_table(db, name)
        wrong.extend(differences(db, name))

    try:
        follow(db, ("closure", "reached from one", "ways", "ways upwards"), check)
    except psycopg.errors.UniqueViolation as exc:
        wrong.append((str(exc), 0, 0))
    assert wrong
