"""Would the tests of circles notice if one went on where it has to begin with nothing?  Each mistake must be found."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.circular import restarting
from tests.circles.conftest import REACH, STEPS, contents, rows

Connection = psycopg.Connection[tuple[Any, ...]]

# The same without ``blocked``'s sources, which a circle need not be monotone in.
FREE = REACH.replace("FROM edges AS e", "FROM free AS e").replace("JOIN edges AS e", "JOIN free AS e")
STATEMENTS = (
    "INSERT INTO edges VALUES (5, 2)",
    "INSERT INTO blocked VALUES (1)",
    "DELETE FROM blocked",
    # What is behind it goes on reaching itself.
    "DELETE FROM edges WHERE src = 1",
    "UPDATE edges SET dst = 6 WHERE src = 4",
    "INSERT INTO edges VALUES (6, 4), (6, 3)",
    "INSERT INTO a VALUES (77, 78); SELECT pgtrickle.reinitialize_stream_table('a')",
    "TRUNCATE edges",
    "INSERT INTO edges VALUES (1, 2), (2, 1)",
)


def examine(db: Connection) -> None:
    """A circle over the edges whose start isn't blocked; after each statement both hold the least fixpoint."""
    unblocked = " WHERE NOT EXISTS (SELECT FROM blocked AS x WHERE x.node = e.src)"
    db.execute("CREATE TABLE blocked (node int)")
    db.execute(f"CREATE VIEW free AS SELECT * FROM edges AS e{unblocked}".encode())
    for name, other in (("a", "b"), ("b", "a")):
        first, second = STEPS.format(other=other).split("UNION")
        query = f"{first}{unblocked} UNION {second}{unblocked}"
        pg_trickle.alter_stream_table(db, name, query=query)
    for statement in STATEMENTS:
        db.execute(statement.encode())
        pg_trickle.refresh_stream_table(db, "a")
        wanted = rows(db, FREE)
        assert contents(db, "a") == wanted, statement
        assert contents(db, "b") == wanted, statement


# What is done wrong: (function, what it says, what it says then).
MUTANTS = {
    "rows that went": ("why_afresh", "OR (s.value ->> 4)::boolean OR", "OR"),
    "rows that take others away": ("why_afresh", "OR v_restart @> s.key::jsonb", ""),
    "doubts": ("why_afresh", "p_table.needs_reinit", "false"),
    "what was there stays": ("converge", "+ pgtrickle_changes.empty_member(p_runs[v_i].st)", ""),
    "one round": ("rounds", "WHILE v_written > 0", "WHILE v_round < 1"),
}


def mutate(db: Connection, function: str, says: str, then: str) -> None:
    (definition,) = rows(db, f"SELECT pg_get_functiondef('pgtrickle_changes.{function}'::regproc)")[0]
    assert says in definition
    db.execute(definition.replace(says, then).encode())


def test_the_examination_is_passed(circle: Connection) -> None:
    examine(circle)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_is_done_wrong_with_circles_is_found(circle: Connection, mutant: str) -> None:
    mutate(circle, *MUTANTS[mutant])
    # Rows that are there already may also be refused.
    with pytest.raises((AssertionError, psycopg.errors.UniqueViolation)):
        examine(circle)


def test_a_compiler_that_knows_nothing_of_it_is_found(circle: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which sources may take rows away, it says in the plan."""
    monkeypatch.setattr("pg_trickle.compile.restarting", lambda *args, **named: restarting(*args, **named) and ())
    with pytest.raises(AssertionError):
        examine(circle)
