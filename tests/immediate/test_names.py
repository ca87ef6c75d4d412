"""What a maintenance names was renamed or dropped: the writer is told which stream table, and what helps."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import ObjectNotInPrerequisiteState

import pg_trickle
from pg_trickle.testing.oracle import differences

Connection = psycopg.Connection[tuple[Any, ...]]

QUERIES: dict[str, LiteralString] = {
    "totals": "SELECT c_id, count(*) AS n, sum(amount) AS total FROM work.o GROUP BY c_id",
    "joined": "SELECT o.id, o.amount, c.region FROM work.o JOIN work.c ON c.id = o.c_id",
    "twiced": "SELECT id, work.twice(amount) AS t FROM work.o",
}


@pytest.fixture
def work(db: Connection) -> Connection:
    db.execute(
        """CREATE SCHEMA work;
           CREATE TABLE work.c (id int PRIMARY KEY, region text);
           CREATE TABLE work.o (id int PRIMARY KEY, c_id int, amount int, other int);
           CREATE FUNCTION work.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
           INSERT INTO work.c SELECT g, 'r' || g % 2 FROM generate_series(1, 4) AS g;
           INSERT INTO work.o SELECT g, g % 4 + 1, g, -g FROM generate_series(1, 9) AS g"""
    )
    return db


def add(db: Connection, *names: str) -> None:
    for name in names:
        pg_trickle.create_stream_table(db, name, QUERIES[name], refresh_mode="IMMEDIATE")


def told(failure: pytest.ExceptionInfo[psycopg.Error], name: str, detail: str) -> None:
    diagnostic = failure.value.diag
    assert f'"{name}"' in str(diagnostic.message_primary)
    assert detail in str(diagnostic.message_detail)
    assert "refresh_stream_table" in str(diagnostic.message_hint)
    assert "suspend_stream_table" in str(diagnostic.message_hint)


# What is done, what writes then, and what the writer is told.
RENAMED: dict[str, tuple[LiteralString, LiteralString, str]] = {
    "a column": (
        "ALTER TABLE work.o RENAME amount TO price",
        "UPDATE work.o SET price = price + 1",
        "work.o.amount is called work.o.price by now.",
    ),
    "a column that another one has the name of": (
        "ALTER TABLE work.o RENAME amount TO former; ALTER TABLE work.o RENAME other TO amount",
        "UPDATE work.o SET former = 77 WHERE id = 1",
        "work.o.amount is called work.o.former by now.",
    ),
    "a table": (
        "ALTER TABLE work.o RENAME TO orders",
        "DELETE FROM work.orders WHERE id = 1",
        "work.o is called work.orders by now.",
    ),
    "a schema": (
        "ALTER SCHEMA work RENAME TO other; CREATE SCHEMA work",
        "INSERT INTO other.o VALUES (100, 1, 5)",
        "work.",
    ),
    "a column of the stream tables": (
        "ALTER TABLE totals RENAME c_id TO c; ALTER TABLE joined RENAME id TO c",
        "INSERT INTO work.o VALUES (100, 1, 5)",
        " by now.",
    ),
}


@pytest.mark.versions
@pytest.mark.parametrize("renamed", RENAMED)
def test_what_was_renamed_stops_the_writer_until_it_is_followed(work: Connection, renamed: str) -> None:
    change, statement, detail = RENAMED[renamed]
    add(work, "totals", "joined")
    work.execute("UPDATE work.o SET amount = amount + 1; DELETE FROM work.o WHERE id = 9")
    work.execute(change)
    for name in ("joined", "totals"):
        with pytest.raises(ObjectNotInPrerequisiteState) as failure:
            work.execute(statement)
        told(failure, name, detail)
        with pytest.raises(ObjectNotInPrerequisiteState, match="has to be planned anew"):
            work.execute("SELECT * FROM pgtrickle.verify_stream_table(%s)", (name,))
        pg_trickle.refresh_stream_table(work, name)
    work.execute(statement)
    for name in ("joined", "totals"):
        assert differences(work, name) == []
        assert work.execute("SELECT ok FROM pgtrickle.verify_stream_table(%s)", (name,)).fetchone() == (True,)


@pytest.mark.versions
def test_what_is_called_as_before_again_is_maintained(work: Connection) -> None:
    """A renaming that was rolled back, or renamed back; in the session that was told of it."""
    add(work, "totals", "joined")
    work.execute("BEGIN; ALTER TABLE work.o RENAME amount TO price")
    with pytest.raises(ObjectNotInPrerequisiteState):
        work.execute("UPDATE work.o SET price = price + 1")
    work.execute("ROLLBACK")
    work.execute("UPDATE work.o SET amount = amount + 1")
    work.execute("ALTER TABLE work.o RENAME amount TO price; ALTER TABLE work.o RENAME price TO amount")
    work.execute("UPDATE work.o SET amount = amount + 1")
    work.execute("ALTER TABLE work.o ADD fresh int; ALTER TABLE work.o DROP other; ANALYZE work.o")
    work.execute("DELETE FROM work.o WHERE id < 4")
    assert differences(work, "totals") == differences(work, "joined") == []


def test_a_transaction_that_began_before_the_renaming(work: Connection, database: Any) -> None:
    add(work, "joined")
    older: Connection = database.connect()
    older.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    older.execute("SELECT 1")
    work.execute("ALTER TABLE work.o RENAME amount TO former; ALTER TABLE work.o RENAME other TO amount")
    with pytest.raises(ObjectNotInPrerequisiteState) as failure:
        older.execute("UPDATE work.o SET former = 4 WHERE id = 1")
    told(failure, "joined", "work.o.former")


def test_what_was_dropped(work: Connection) -> None:
    add(work, "totals", "joined")
    work.execute("ALTER TABLE work.o DROP amount CASCADE")
    for name in ("joined", "totals"):
        with pytest.raises(ObjectNotInPrerequisiteState) as failure:
            work.execute("UPDATE work.o SET c_id = 1")
        told(failure, name, "work.o.amount was dropped.")
        pg_trickle.suspend_stream_table(work, name)
    work.execute("UPDATE work.o SET c_id = 1")


@pytest.mark.versions
@pytest.mark.parametrize("name", ["totals", "joined"])
@pytest.mark.parametrize("is_planned", [True, False], ids=["in a session that has written", "in a new session"])
def test_an_index_that_was_dropped(work: Connection, database: Any, name: str, is_planned: bool) -> None:
    """Rebuilding one does no harm: another with the same columns is as good."""
    add(work, name)
    writer: Connection = database.connect()
    if is_planned:
        writer.execute("UPDATE work.o SET amount = amount + 1")
    (index,) = work.execute(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass AND indisunique", (name,)
    ).fetchone() or ("",)
    work.execute(sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(index)))
    writer.execute("UPDATE work.o SET amount = amount + 1")
    work.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index)))
    with pytest.raises(ObjectNotInPrerequisiteState) as failure:
        writer.execute("UPDATE work.o SET amount = 2, c_id = c_id % 4 + 1; DELETE FROM work.o WHERE id = 3")
    told(failure, name, "It was dropped")
    pg_trickle.refresh_stream_table(work, name)
    writer.execute("UPDATE work.o SET amount = 2, c_id = c_id % 4 + 1; DELETE FROM work.o WHERE id = 3")
    assert differences(work, name) == []


# What a maintenance counts on is dropped, and what could not be written until then.
WEAKENED: dict[str, tuple[LiteralString, LiteralString, LiteralString]] = {
    "a key": (
        "SELECT o.id, c.region FROM work.o LEFT JOIN work.c ON c.id = o.c_id",
        "ALTER TABLE work.c DROP CONSTRAINT c_pkey",
        "INSERT INTO work.c VALUES (1, 'again')",
    ),
    "a key of what nobody reads": (
        "SELECT o.id, o.amount FROM work.o LEFT JOIN work.c ON c.id = o.c_id",
        "ALTER TABLE work.c DROP CONSTRAINT c_pkey",
        "INSERT INTO work.c VALUES (1, 'again')",
    ),
    "another key, of what nobody reads": (
        "SELECT o.id, c.region FROM work.o JOIN work.c ON c.id = o.c_id LEFT JOIN work.coded d ON d.code = o.id",
        "ALTER TABLE work.coded ALTER code DROP NOT NULL, DROP CONSTRAINT coded_code_key",
        "INSERT INTO work.coded VALUES (9, 1)",
    ),
    "a key that is shown": (
        "SELECT id, amount FROM work.o",
        "ALTER TABLE work.o DROP CONSTRAINT o_pkey",
        "INSERT INTO work.o VALUES (1, 1, 1, 1)",
    ),
    "a key of a partitioned table": (
        "SELECT o.id, p.region FROM work.o LEFT JOIN work.parted p ON p.id = o.c_id",
        "ALTER TABLE work.parted DROP CONSTRAINT parted_pkey",
        "INSERT INTO work.parted VALUES (1, 'again')",
    ),
    "not null": (
        "SELECT id FROM work.o WHERE c_id NOT IN (SELECT v FROM work.never)",
        "ALTER TABLE work.never ALTER v DROP NOT NULL",
        "INSERT INTO work.never VALUES (NULL)",
    ),
}


@pytest.mark.versions
@pytest.mark.parametrize(("query", "change", "statement"), WEAKENED.values(), ids=WEAKENED)
@pytest.mark.parametrize("is_planned", [True, False], ids=["in a session that has written", "in a new session"])
def test_what_it_counts_on_was_dropped(
    work: Connection, database: Any, query: str, change: LiteralString, statement: LiteralString, is_planned: bool
) -> None:
    """It would be silently wrong; with a new plan it isn't."""
    work.execute(
        """CREATE TABLE work.never (v int NOT NULL); INSERT INTO work.never VALUES (3);
           CREATE TABLE work.coded (id int PRIMARY KEY, code int NOT NULL UNIQUE); INSERT INTO work.coded VALUES (1, 1);
           CREATE TABLE work.parted (id int PRIMARY KEY, region text) PARTITION BY RANGE (id);
           CREATE TABLE work.parted_1 PARTITION OF work.parted DEFAULT;
           INSERT INTO work.parted VALUES (1, 'x'), (2, 'y')"""
    )
    pg_trickle.create_stream_table(work, "s", query, refresh_mode="IMMEDIATE")
    writer: Connection = database.connect()
    if is_planned:
        for table in ("never", "o", "c", "parted", "coded"):
            writer.execute(f"DELETE FROM work.{table} WHERE false; INSERT INTO work.{table} TABLE work.{table} LIMIT 0")
    work.execute(change)
    with pytest.raises(ObjectNotInPrerequisiteState) as failure:
        writer.execute(statement)
    told(failure, "s", "on which its maintenance may count")
    pg_trickle.refresh_stream_table(work, "s")
    writer.execute(statement)
    assert differences(work, "s") == []


@pytest.mark.versions
@pytest.mark.parametrize("name", ["totals", "joined"])
@pytest.mark.parametrize("began", ["before", "after"])
def test_tables_that_come_to_inherit_from_a_source(work: Connection, database: Any, name: str, began: str) -> None:
    """Who writes them fires no trigger of the source's; who writes that, and looks, is stopped until it is settled."""
    add(work, name)
    writer: Connection = database.connect()
    writer.execute("UPDATE work.o SET amount = 2 WHERE id = 1")
    if began == "before":
        # Its plans are made by a snapshot that doesn't show the child.
        writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; TABLE work.o")
    work.execute("CREATE TABLE work.child () INHERITS (work.o)")
    if began == "before":
        writer.execute("UPDATE work.o SET amount = 3 WHERE id = 1; COMMIT")
    work.execute("INSERT INTO work.child TABLE ONLY work.o LIMIT 1")
    with pytest.raises(ObjectNotInPrerequisiteState) as failure:
        writer.execute("UPDATE work.o SET amount = 4 WHERE id = 1")
    told(failure, name, "inherit from a source")
    work.execute("ALTER TABLE work.child NO INHERIT work.o")
    writer.execute("UPDATE work.o SET amount = 4 WHERE id = 1")
    assert differences(work, name) == []
    work.execute("ALTER TABLE work.child INHERIT work.o")
    pg_trickle.alter_stream_table(work, name, refresh_mode="AUTO")
    writer.execute("UPDATE work.o SET amount = 5 WHERE id = 1")
    pg_trickle.refresh_stream_table(work, name)
    assert differences(work, name) == []


# What makes statements write a source that name another table, and what ends that.
ABOVE: dict[str, tuple[LiteralString, LiteralString]] = {
    "a parent": (
        "CREATE TABLE work.above (id int NOT NULL, region text); ALTER TABLE work.c INHERIT work.above",
        "ALTER TABLE work.c NO INHERIT work.above",
    ),
    "a partitioned table": (
        """CREATE TABLE work.above (id int NOT NULL, region text) PARTITION BY RANGE (id);
           ALTER TABLE work.above ATTACH PARTITION work.c DEFAULT""",
        "ALTER TABLE work.above DETACH PARTITION work.c",
    ),
}


@pytest.mark.versions
@pytest.mark.parametrize(("change", "undo"), ABOVE.values(), ids=ABOVE)
def test_a_source_that_comes_to_inherit(
    work: Connection, database: Any, change: LiteralString, undo: LiteralString
) -> None:
    """Who names the table above it fires no trigger of a source's; who names one is stopped until it is settled."""
    add(work, "joined")
    writer: Connection = database.connect()
    writer.execute("UPDATE work.o SET amount = 2 WHERE id = 1")
    work.execute(change)
    work.execute("UPDATE work.above SET region = 'unseen' WHERE id = 2")
    for statement in ("UPDATE work.o SET amount = 3 WHERE id = 1", "DELETE FROM work.c WHERE id = 3"):
        with pytest.raises(ObjectNotInPrerequisiteState) as failure:
            writer.execute(statement)
        told(failure, "joined", "or a source from others")
    work.execute(undo)
    pg_trickle.refresh_stream_table(work, "joined")
    writer.execute("UPDATE work.o SET amount = 3 WHERE id = 1; DELETE FROM work.c WHERE id = 3")
    assert differences(work, "joined") == []


def test_a_key_that_is_as_good_will_do(work: Connection) -> None:
    add(work, "totals", "joined")
    work.execute("CREATE UNIQUE INDEX again ON work.c (id); ALTER TABLE work.c DROP CONSTRAINT c_pkey")
    work.execute("ALTER TABLE work.c ADD PRIMARY KEY USING INDEX again; DELETE FROM work.c WHERE id = 2")
    work.execute("ALTER TABLE work.o ADD UNIQUE (other); UPDATE work.o SET amount = 1 WHERE id < 5")
    work.execute("ALTER TABLE work.o DROP CONSTRAINT o_other_key; UPDATE work.o SET c_id = 1 WHERE id = 4")
    assert differences(work, "totals") == differences(work, "joined") == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("DROP FUNCTION work.twice CASCADE", "does not exist"),
        ("ALTER FUNCTION work.twice RENAME TO double", "does not exist"),
        ("REVOKE EXECUTE ON FUNCTION work.twice FROM PUBLIC", "permission denied"),
    ],
)
def test_a_function_that_is_gone_or_closed(database: Any, work: Connection, change: LiteralString, word: str) -> None:
    database.make_role("author")
    work.execute(
        """GRANT USAGE ON SCHEMA work TO author; GRANT USAGE ON SCHEMA pgtrickle TO author;
           ALTER TABLE work.o OWNER TO author"""
    )
    add(work, "twiced")
    work.execute("ALTER TABLE twiced OWNER TO author")
    pg_trickle.refresh_stream_table(work, "twiced")
    work.execute(change)
    with pytest.raises(psycopg.Error) as failure:
        work.execute("UPDATE work.o SET amount = 7")
    assert '"twiced"' in str(failure.value.diag.message_primary)
    assert word in str(failure.value.diag.message_primary)
    assert "suspend_stream_table" in str(failure.value.diag.message_hint)
    pg_trickle.suspend_stream_table(work, "twiced")
    work.execute("UPDATE work.o SET amount = 7")


@pytest.mark.parametrize("planned", ["here", "in between"])
def test_what_it_counts_on_was_dropped_since_the_snapshot(work: Connection, database: Any, planned: str) -> None:
    """Whichever statement the session's plan is made in: an older one doesn't see it, and what it finds is kept."""
    work.execute("CREATE TABLE work.never (v int NOT NULL); INSERT INTO work.never VALUES (3)")
    query = "SELECT c.id FROM work.c WHERE c.id NOT IN (SELECT v FROM work.never)"
    pg_trickle.create_stream_table(work, "others", query, refresh_mode="IMMEDIATE")
    writer = database.connect("postgres")
    writer.autocommit = False
    writer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    writer.execute("SELECT FROM work.o")
    if planned == "here":
        writer.execute("INSERT INTO work.never VALUES (30)")
        writer.rollback()
        writer.execute("SELECT FROM work.o")
    work.execute("ALTER TABLE work.never ALTER v DROP NOT NULL")
    with pytest.raises(psycopg.errors.SerializationFailure):
        writer.execute("INSERT INTO work.never VALUES (NULL)")
    writer.rollback()
    with pytest.raises(ObjectNotInPrerequisiteState) as failure:
        writer.execute("INSERT INTO work.never VALUES (NULL)")
    told(failure, "others", "NOT NULL")
    writer.rollback()
    pg_trickle.refresh_stream_table(work, "others")
    writer.execute("INSERT INTO work.never VALUES (NULL)")
    writer.commit()
    assert differences(work, "others") == []


def test_a_source_whose_alteration_was_undone(work: Connection, database: Any) -> None:
    work.execute("CREATE TABLE work.never (v int NOT NULL); INSERT INTO work.never VALUES (3)")
    query = "SELECT c.id FROM work.c WHERE c.id NOT IN (SELECT v FROM work.never)"
    pg_trickle.create_stream_table(work, "others", query, refresh_mode="IMMEDIATE")
    work.execute("BEGIN; ALTER TABLE work.never ALTER v DROP NOT NULL; ROLLBACK")
    writer = database.connect("postgres")
    writer.autocommit = False
    for level in psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ:
        writer.isolation_level = level
        writer.execute("INSERT INTO work.never VALUES (1)")
        writer.commit()
        assert differences(work, "others") == []
