"""In which order turns and rows are locked: where ordinary tables don't deadlock, stream tables don't make them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.test_isolation import Session

Connection = psycopg.Connection[tuple[Any, ...]]

# Row locks, made first; turns; and a turn above row locks, whose source's statements don't know of it.
QUERIES: dict[str, LiteralString] = {
    "totals": "SELECT shelf, count(*) AS n, sum(amount) AS total FROM stock GROUP BY shelf",
    "most": "SELECT shelf, max(amount) AS most FROM stock GROUP BY shelf",
    "named": "SELECT s.id, s.amount, g.name FROM stock AS s JOIN goods AS g ON g.id = s.good",
    "everything": "SELECT count(*) AS n FROM stock",
    "above": "SELECT t.n, g.name FROM totals AS t JOIN goods AS g ON g.id = t.shelf",
    "sold": "SELECT s.id, s.amount, x.shop FROM stock AS s JOIN sales AS x ON x.id = s.id",
    "kept": "SELECT s.id, s.remark, x.shop FROM stock AS s JOIN sales AS x ON x.id = s.id",
}


@pytest.fixture
def stock(db: Connection) -> Connection:
    db.execute(
        """CREATE TABLE goods (id int PRIMARY KEY, name text);
           CREATE TABLE stock (id int PRIMARY KEY, good int, shelf int, amount int, remark text);
           CREATE TABLE sales (id int PRIMARY KEY, shop int);
           INSERT INTO goods SELECT g, 'n' || g FROM generate_series(1, 9) AS g;
           INSERT INTO stock SELECT g, g % 9 + 1, g % 4, g, 'r' FROM generate_series(1, 20) AS g"""
    )
    return db


@pytest.fixture
def three(database: Any) -> Iterator[tuple[Session, ...]]:
    with ThreadPoolExecutor(3) as pool:
        watcher = database.connect()
        made = [Session(database.connect(), watcher, pool) for _ in range(3)]
        for session in made:
            session.run("SET deadlock_timeout = '10ms'")
        yield tuple(made)


@pytest.fixture
def sessions(three: tuple[Session, ...]) -> tuple[Session, Session]:
    return three[0], three[1]


def add(db: Connection, *names: str) -> None:
    for name in names:
        pg_trickle.create_stream_table(db, name, QUERIES[name], refresh_mode="IMMEDIATE")


# The first session's statements before the second's, which has to wait, and after.
SCENES: dict[str, tuple[tuple[str, ...], tuple[LiteralString, ...], LiteralString, LiteralString]] = {
    "rows that are only inserted": (
        ("totals", "most", "named"),
        ("INSERT INTO stock VALUES (100, 1, 1, 5)",),
        "INSERT INTO stock VALUES (101, 2, 2, 5)",
        "INSERT INTO stock VALUES (102, 2, 2, 5)",
    ),
    "a turn above the groups": (
        ("totals", "above"),
        ("INSERT INTO stock VALUES (100, 1, 1, 5)",),
        "INSERT INTO stock VALUES (101, 2, 2, 5)",
        "INSERT INTO stock VALUES (102, 2, 2, 5)",
    ),
    "a row that the other one is about to write": (
        ("named",),
        ("UPDATE stock SET amount = 7 WHERE id = 1",),
        "UPDATE stock SET amount = 7 WHERE id = 2",
        "UPDATE stock SET amount = 8 WHERE id = 2",
    ),
    "such a row and a turn above the groups": (
        ("totals", "above"),
        ("UPDATE stock SET amount = 70 WHERE id = 1",),
        "DELETE FROM stock WHERE id = 2",
        "UPDATE stock SET amount = 8, shelf = 9 WHERE id = 2",
    ),
    "two turns, of which one is taken": (
        ("everything", "named"),
        ("UPDATE goods SET name = name || '!' WHERE id = 1",),
        "INSERT INTO stock VALUES (101, 2, 2, 5)",
        "INSERT INTO stock VALUES (102, 2, 2, 5)",
    ),
    "a row that was locked before": (
        ("named", "totals"),
        ("SELECT FROM stock WHERE id = 1 FOR UPDATE",),
        "UPDATE stock SET amount = 8 WHERE id = 1",
        "UPDATE stock SET amount = 7 WHERE id = 1",
    ),
    "a referenced row": (
        ("named",),
        ("SELECT FROM goods WHERE id = 1 FOR UPDATE",),
        "UPDATE goods SET name = 'x' WHERE id = 1",
        "INSERT INTO stock VALUES (100, 1, 1, 5)",
    ),
}


@pytest.mark.parametrize("scene", SCENES)
def test_who_waits_holds_nothing_that_the_other_one_wants(
    stock: Connection, sessions: tuple[Session, Session], scene: str
) -> None:
    names, before, second, after = SCENES[scene]
    add(stock, *names)
    one, two = sessions
    one.begin()
    two.begin()
    for statement in before:
        one.run(statement)
    waiting = two.waits(second)
    one.run(after)
    one.run("COMMIT")
    waiting.result()
    two.run("COMMIT")
    for name in names:
        assert differences(stock, name) == []


def test_truncating_one_source_while_another_is_written(stock: Connection, three: tuple[Session, ...]) -> None:
    """Who has a source to himself waits for the turn; who has the turn doesn't wait for that source."""
    add(stock, "named")
    one, two, other = three
    other.begin()
    other.run("UPDATE goods SET name = 'x' WHERE id = 3")
    update = one.waits("UPDATE goods SET name = 'y' WHERE id = 4")
    truncate = two.waits("TRUNCATE stock")
    other.run("COMMIT")
    update.result()
    truncate.result()
    assert differences(stock, "named") == []


@pytest.mark.versions
def test_taking_a_turn_locks_the_sources(stock: Connection) -> None:
    """Also by a plan that the session has kept."""
    add(stock, "named")
    (turn,) = stock.execute("SELECT prosrc FROM pg_proc WHERE proname ~ '^maintain_.*_upd$'").fetchone() or ("",)
    update = next(
        line.strip() for line in turn.splitlines() if line.strip().startswith("UPDATE pgtrickle_changes.turn_")
    )
    stock.execute(
        "SET plan_cache_mode = force_generic_plan; PREPARE turn AS " + update.partition(" RETURNING ")[0].rstrip(";")
    )
    for _ in range(3):
        with stock.transaction(force_rollback=True):
            stock.execute("EXECUTE turn")
            locks = stock.execute("SELECT relation::regclass::text FROM pg_locks WHERE mode = 'AccessShareLock'")
            assert {"goods", "stock"} <= {name for (name,) in locks}


def test_a_turn_that_was_waited_for_is_not_kept_before_an_earlier_one(
    stock: Connection, three: tuple[Session, ...]
) -> None:
    """Who has taken the earlier one meanwhile comes to the later one, too."""
    add(stock, "named", "sold")
    one, two, other = three
    other.begin()
    other.run("INSERT INTO sales VALUES (1, 1)")
    waiting = one.waits("UPDATE stock SET amount = 7 WHERE id = 1")
    two.begin()
    two.run("UPDATE goods SET name = 'x' WHERE id = 9")
    other.run("COMMIT")
    one.is_held_up_by(two)
    two.run("INSERT INTO stock VALUES (100, 9, 1, 5)")
    two.run("COMMIT")
    waiting.result()
    assert differences(stock, "named") + differences(stock, "sold") == []


def test_who_has_waited_for_the_turn_does_not_have_it_while_he_waits_for_a_row(
    stock: Connection, three: tuple[Session, ...]
) -> None:
    """Who has that row goes on to write it, and takes the turn."""
    add(stock, "named")
    one, two, other = three
    other.begin()
    other.run("UPDATE goods SET name = 'x' WHERE id = 9")
    one.begin()
    one.run("SELECT FROM stock WHERE id = 1 FOR UPDATE")
    waiting = two.waits("UPDATE stock SET amount = 8 WHERE id = 1")
    other.run("COMMIT")
    two.is_held_up_by(one)
    one.run("UPDATE stock SET amount = 7 WHERE id = 1")
    one.run("COMMIT")
    waiting.result()
    assert differences(stock, "named") == []


def test_who_stands_in_line_has_written_nothing(stock: Connection, three: tuple[Session, ...]) -> None:
    """Until those before him have ended: they may go on to his rows."""
    add(stock, "named")
    one, two, other = three
    other.begin()
    other.run("UPDATE goods SET name = 'x' WHERE id = 9")
    one.begin()
    first = one.waits("UPDATE stock SET amount = 7 WHERE id = 1")
    second = two.waits("UPDATE stock SET amount = 8 WHERE id = 2")
    other.run("COMMIT")
    first.result()
    two.is_held_up_by(one)
    one.run("UPDATE stock SET amount = 9 WHERE id = 2")
    one.run("COMMIT")
    second.result()
    assert differences(stock, "named") == []


def test_who_has_rows_does_not_stand_in_line(stock: Connection, three: tuple[Session, ...]) -> None:
    """Somebody who does may come to wait for them, keeping his place."""
    add(stock, "named", "sold")
    one, two, other = three
    other.begin()
    other.run("INSERT INTO sales VALUES (1, 1)")
    one.begin()
    one.run("UPDATE stock SET shelf = 3 WHERE id = 2")
    two.begin()
    first = two.waits("UPDATE stock SET amount = 7 WHERE id = 2")
    second = one.waits("UPDATE stock SET amount = 8 WHERE id = 1")
    other.run("COMMIT")
    second.result()
    one.run("COMMIT")
    first.result()
    two.run("COMMIT")
    assert differences(stock, "named") + differences(stock, "sold") == []


def test_a_statement_of_two_kinds_takes_all_turns_at_the_first(stock: Connection, three: tuple[Session, ...]) -> None:
    """What it updates isn't read by the stream table that comes first, what it inserts is."""
    add(stock, "named", "kept")
    one, two, other = three
    other.begin()
    other.run("SELECT FROM stock WHERE id = 1 FOR UPDATE")
    waiting = one.waits(
        """INSERT INTO stock VALUES (1, 1, 3, 7), (50, 1, 3, 7)
               ON CONFLICT (id) DO UPDATE SET amount = excluded.amount"""
    )
    two.begin()
    two.run("INSERT INTO sales VALUES (1, 1)")
    other.run("COMMIT")
    one.is_held_up_by(two)
    two.run("UPDATE goods SET name = 'x' WHERE id = 3")
    two.run("COMMIT")
    waiting.result()
    assert differences(stock, "named") + differences(stock, "kept") == []


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO stock VALUES (1, 1, 1, 8) ON CONFLICT (id) DO UPDATE SET amount = 8",
        """MERGE INTO stock USING (VALUES (1)) AS v(id) ON stock.id = v.id
            WHEN MATCHED AND remark IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET amount = 8""",
        "WITH a AS (UPDATE stock SET amount = 8 WHERE id = 1) DELETE FROM stock WHERE id = 2",
    ],
)
def test_statements_of_two_kinds_take_turns_before_groups(
    stock: Connection, three: tuple[Session, ...], statement: LiteralString
) -> None:
    add(stock, "totals", "named")
    one, two, other = three
    other.begin()
    other.run("SELECT FROM stock WHERE id = 1 FOR UPDATE")
    waiting = one.waits(statement)
    two.begin()
    two.run("UPDATE goods SET name = 'x' WHERE id = 9")
    other.run("COMMIT")
    one.is_held_up_by(two)
    two.run("INSERT INTO stock VALUES (100, 9, 1, 5)")
    two.run("COMMIT")
    waiting.result()
    assert differences(stock, "named") + differences(stock, "totals") == []


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_older_snapshot_does_not_wait_for_a_turn_with_what_is_below_it(
    stock: Connection, three: tuple[Session, ...], level: str
) -> None:
    """Waiting would end in 40001 all the same, or in a deadlock."""
    add(stock, "totals", "above")
    one, two, other = three
    other.begin()
    other.run("SELECT FROM stock WHERE id = 1 FOR UPDATE")
    two.begin(level)
    two.run("SELECT 1")
    waiting = two.waits("UPDATE stock SET amount = 7 WHERE id = 1")
    one.begin()
    one.run("UPDATE goods SET name = 'x' WHERE id = 9")
    other.run("COMMIT")
    with pytest.raises(psycopg.errors.SerializationFailure, match='stream table "above"'):
        waiting.result()
    one.run("INSERT INTO stock VALUES (100, 1, 1, 5)")
    one.run("COMMIT")
    two.run("ROLLBACK")
    assert differences(stock, "totals") + differences(stock, "above") == []


def test_what_is_not_read_waits_for_nobody(stock: Connection, sessions: tuple[Session, Session]) -> None:
    add(stock, "totals", "named", "above")
    one, two = sessions
    two.run("SET lock_timeout = '2s'")
    one.begin()
    one.run("UPDATE stock SET amount = 7 WHERE id = 1")
    two.run("UPDATE stock SET remark = 'x' WHERE id = 2")
    two.run("SELECT FROM stock WHERE id = 3 FOR UPDATE")
    one.run("COMMIT")


def test_a_turn_that_was_given_up_is_free(stock: Connection, sessions: tuple[Session, Session]) -> None:
    """Back to a savepoint, though the transaction goes on."""
    add(stock, "named")
    one, two = sessions
    two.run("SET lock_timeout = '2s'")
    one.begin()
    one.run("SAVEPOINT before")
    one.run("UPDATE stock SET amount = 7 WHERE id = 1")
    one.run("ROLLBACK TO before")
    two.run("UPDATE stock SET amount = 9 WHERE id = 1")
    one.run("UPDATE stock SET amount = 8 WHERE id = 1")
    one.run("COMMIT")
    assert differences(stock, "named") == []


def test_suspending_does_not_wait_with_a_lock_that_a_writer_wants(
    stock: Connection, sessions: tuple[Session, Session]
) -> None:
    add(stock, "named")
    one, two = sessions
    for action in ("suspend_stream_table", "resume_stream_table"):
        one.begin()
        one.run("UPDATE stock SET amount = amount + 1 WHERE id = 1")
        waiting = two.waits(f"SELECT pgtrickle.{action}('named')")
        one.run("UPDATE goods SET name = name || '?' WHERE id = 1")
        one.run("COMMIT")
        waiting.result()
    assert differences(stock, "named") == []


def test_nothing_is_left_on_the_tables_at_the_bottom(stock: Connection) -> None:
    add(stock, "totals", "above")
    left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pg\\_trickle%' AND tgname LIKE '%\\_first'"
    assert stock.execute(left).fetchone() == (1,)
    pg_trickle.suspend_stream_table(stock, "above")
    assert stock.execute(left).fetchone() == (0,)
    pg_trickle.resume_stream_table(stock, "above")
    assert stock.execute(left).fetchone() == (1,)
    pg_trickle.drop_stream_table(stock, "above")
    assert stock.execute(left).fetchone() == (0,)


# A stream table above one with a turn, and what stands beside it; whose turn is held up meanwhile; two statements that
# come to several of them.
ABOVE: dict[str, tuple[dict[str, LiteralString], str, LiteralString, LiteralString]] = {
    "one whose number lies between": (
        {
            "named": QUERIES["named"],
            "sold": QUERIES["sold"],
            "top": "SELECT n.id, n.name, x.shop FROM named AS n JOIN sales AS x ON x.id = n.id",
        },
        "top",
        "INSERT INTO stock VALUES (100, 1, 1, 5)",
        "INSERT INTO sales VALUES (1, 1)",
    ),
    "two, of which one has other sources": (
        {
            "named": QUERIES["named"],
            "sold": QUERIES["sold"],
            "top": "SELECT n.id, n.name, x.shop FROM named AS n JOIN sold AS x ON x.id = n.id",
        },
        "top",
        "INSERT INTO stock VALUES (100, 1, 1, 5)",
        "INSERT INTO sales VALUES (1, 1)",
    ),
    "a table below that is truncated": (
        {
            "named": QUERIES["named"],
            "sold": QUERIES["sold"],
            "top": "SELECT n.id, n.name, x.shop FROM named AS n JOIN sales AS x ON x.id = n.id",
        },
        "top",
        "INSERT INTO sales VALUES (1, 1)",
        "TRUNCATE stock",
    ),
    "one that reads another column of a source": (
        {
            "named": QUERIES["named"],
            "top": "SELECT n.id, n.name, s.remark FROM named AS n JOIN stock AS s ON s.id = n.id",
        },
        "named",
        "UPDATE stock SET amount = 7 WHERE id = 1",
        "UPDATE goods SET name = 'x' WHERE id = 9",
    ),
}


@pytest.mark.parametrize("scene", ABOVE)
def test_who_stands_above_comes_before_what_it_reads(stock: Connection, three: tuple[Session, ...], scene: str) -> None:
    """Single statements, which stop where another session has a turn that they come to."""
    queries, where, first, second = ABOVE[scene]
    for name, query in queries.items():
        pg_trickle.create_stream_table(stock, name, query, refresh_mode="IMMEDIATE")
    (number,) = stock.execute(
        "SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (where,)
    ).fetchone() or (0,)
    one, two, other = three
    other.begin()
    other.conn.execute(sql.SQL("SELECT FROM pgtrickle_changes.{} FOR UPDATE").format(sql.Identifier(f"turn_{number}")))
    doing = [one.waits(first), two.waits(second)]
    other.run("COMMIT")
    for statement in doing:
        statement.result()
    assert [difference for name in queries for difference in differences(stock, name)] == []
