"""What an INSERT brings is inserted as it is, many rows without looking, unless it may have been changed meanwhile."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.refresh.workload.randomness import afresh

Connection = psycopg.Connection[tuple[Any, ...]]

TABLES: LiteralString = """
    CREATE TABLE items (id int PRIMARY KEY, kind int, amount int, note text);
    CREATE TABLE kinds (kind int PRIMARY KEY, name text);
    INSERT INTO kinds SELECT g, 'k' || g FROM generate_series(0, 4) AS g;
    INSERT INTO items SELECT g, g % 5, g % 7, 'first' FROM generate_series(1, 20) AS g;
"""
QUERIES: dict[str, LiteralString] = {
    "shown": "SELECT id, amount * 2 AS twice FROM items WHERE amount > 1",
    "named": "SELECT i.id, k.name, i.amount FROM items AS i JOIN kinds AS k USING (kind) WHERE i.amount > 1",
}
MANY: LiteralString = "INSERT INTO items SELECT g, g %% 5, g %% 7, 'many' FROM generate_series(%s::int, %s::int) AS g"
# What becomes of a stream table is told by its statement triggers: an upsert fires those of INSERT and of UPDATE.
TELLTALE: LiteralString = """
    CREATE TABLE told (what text);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO public.told VALUES (TG_TABLE_NAME || ' ' || TG_OP); RETURN NULL; END$$;
    CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON shown FOR EACH STATEMENT EXECUTE FUNCTION tell();
    CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON named FOR EACH STATEMENT EXECUTE FUNCTION tell();
"""


@pytest.fixture
def items(db: Connection) -> Connection:
    made(db)
    db.execute(TELLTALE)
    return db


@pytest.fixture
def untold(db: Connection) -> Connection:
    made(db)
    return db


def made(conn: Connection) -> None:
    conn.execute(TABLES)
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(conn, name, query, refresh_mode="IMMEDIATE")


def check(conn: Connection) -> None:
    for name in QUERIES:
        assert differences(conn, name) == [], name


def told(conn: Connection) -> set[str]:
    rows = conn.execute("DELETE FROM told RETURNING what").fetchall()
    return {what for (what,) in rows}


PLAIN = {"shown INSERT", "named INSERT"}


@pytest.mark.versions
def test_many_rows_are_inserted_as_they_are(items: Connection):
    items.execute(MANY, (1000, 1400))
    assert told(items) == PLAIN
    check(items)


@pytest.mark.versions
@pytest.mark.parametrize("last", [1000, 1100])
def test_few_rows_are_inserted_as_they_are_over_what_somebody_has_put_there(items: Connection, last: int):
    items.execute("INSERT INTO shown VALUES (1000, -1); INSERT INTO named VALUES (1000, 'forged', -1)")
    told(items)
    items.execute(MANY, (1000, last))
    assert told(items) == {"shown INSERT", "shown UPDATE", "named INSERT", "named UPDATE"}
    check(items)


@pytest.mark.parametrize(
    "before",
    [
        "UPDATE items SET note = 'x' WHERE id = 1",
        "DELETE FROM items WHERE id = 1",
        "DO $$BEGIN DELETE FROM items; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END$$",
        "SET LOCAL track_counts = off",
    ],
)
def test_after_other_changes_of_the_transaction_rows_are_looked_up(items: Connection, before: LiteralString):
    with items.transaction():
        items.execute(before)
        told(items)
        items.execute(MANY, (1000, 1400))
        assert "shown UPDATE" in told(items)
        items.execute(MANY, (1500, 1600))
        assert "shown DELETE" in told(items)
        check(items)


def test_an_older_snapshot_looks_few_rows_up(items: Connection):
    with items.transaction():
        items.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        items.execute(MANY, (1000, 1100))
        assert "shown DELETE" in told(items)
        check(items)


NESTED: list[LiteralString] = [
    "UPDATE items SET amount = 70 WHERE id = new_id",
    # Some of it out of view, away, to other keys.
    "UPDATE items SET amount = 0 WHERE id = new_id AND id % 3 = 0",
    "DELETE FROM items WHERE id = new_id AND id % 3 = 0",
    "UPDATE items SET id = id + 50000 WHERE id = new_id AND id % 3 = 0",
    # What was there before; what came shortly before; the other source.
    "UPDATE items SET amount = amount + 1 WHERE id = new_id % 20",
    "DELETE FROM items WHERE id = new_id - 7",
    "UPDATE kinds SET name = name || '!' WHERE kind = new_id % 5 AND new_id % 50 = 0",
]
MEDDLING: LiteralString = """
    CREATE OR REPLACE FUNCTION meddling(new_id int) RETURNS int LANGUAGE plpgsql AS
        $f$BEGIN {statement}; RETURN new_id; END$f$;
    CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS
        $f$BEGIN PERFORM public.meddling(NEW.id); RETURN NULL; END$f$;
"""


@pytest.mark.parametrize("rows", [1, 30, 400])
def test_what_triggers_do_to_the_rows_is_seen(items: Connection, rows: int):
    items.execute(MEDDLING.replace("{statement}", NESTED[0]))
    items.execute("CREATE TRIGGER meddle AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION meddle()")
    for place, statement in enumerate(NESTED, 1):
        items.execute(MEDDLING.replace("{statement}", statement))
        # In view, and a number that most of them do something about.
        items.execute(MANY, (1200 * place, 1200 * place + rows - 1))
        check(items)


@pytest.mark.parametrize("rows", [2, 30, 400])
def test_what_functions_of_the_statement_do_to_the_rows_is_seen(items: Connection, rows: int):
    """A function that is called row by row sees, and may change, the rows before its own."""
    for place, statement in enumerate(NESTED, 1):
        items.execute(MEDDLING.replace("{statement}", statement.replace("new_id", "(new_id - 1)")))
        items.execute(MANY.replace("SELECT g", "SELECT meddling(g)"), (1200 * place, 1200 * place + rows - 1))
        check(items)


@pytest.mark.parametrize("last", [10, 21, 500])
def test_rows_that_a_conflict_updates_are_seen(items: Connection, last: int):
    items.execute(
        "INSERT INTO items SELECT g, g %% 5, g %% 7, 'many' FROM generate_series(10, %s) AS g"
        " ON CONFLICT (id) DO UPDATE SET amount = 99",
        (last,),
    )
    check(items)


def test_a_row_that_its_trigger_changed_before_it_came_is_shown_as_it_came(items: Connection):
    items.execute(
        """CREATE FUNCTION dearer() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN NEW.amount := NEW.amount + 50; RETURN CASE WHEN NEW.id % 2 = 0 THEN NEW END; END$$;
           CREATE TRIGGER dearer BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION dearer()"""
    )
    for first, last in ((1000, 1000), (1001, 1001), (1002, 1009)):
        items.execute(MANY, (first, last))
        check(items)


def test_rows_that_somebody_put_into_the_stream_table_are_overwritten(items: Connection):
    items.execute("INSERT INTO shown VALUES (1000, -1); INSERT INTO named VALUES (1003, 'forged', -1)")
    items.execute(MANY, (1000, 1400))
    assert "shown UPDATE" in told(items)
    check(items)


def test_an_older_snapshot_inserts_a_key_that_another_has_deleted(items: Connection, database):
    items.execute(MANY, (1000, 1400))
    told(items)
    other = database.connect()
    items.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    items.execute("SELECT count(*) FROM items")
    other.execute("DELETE FROM items WHERE id >= 1000")
    with pytest.raises(psycopg.errors.SerializationFailure):
        items.execute(MANY, (1000, 1400))
    items.execute("ROLLBACK")
    pg_trickle.drop_stream_table(items, "named")
    other.execute(MANY, (1000, 1400))
    items.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    items.execute("SELECT count(*) FROM items")
    other.execute("DELETE FROM items WHERE id >= 1000")
    items.execute(MANY, (1000, 1400))
    items.execute("COMMIT")
    assert differences(items, "shown") == []


STATEMENTS = st.sampled_from(
    [
        "UPDATE items SET amount = amount + 1 WHERE id = (new_id - {n})",
        "UPDATE items SET amount = 0 WHERE id % 10 = {n}",
        "DELETE FROM items WHERE id = (new_id - {n})",
        "UPDATE items SET id = id + 100000 WHERE id = (new_id - {n})",
        "INSERT INTO items VALUES (new_id + 50000 + {n}, 1, 3, 'nested') ON CONFLICT DO NOTHING",
        "UPDATE items SET note = 'unread' WHERE id = (new_id - {n})",
        "PERFORM 1",
    ]
)
WAYS = st.lists(st.tuples(STATEMENTS, st.integers(1, 9), st.integers(1, 7)), max_size=2)
CALLS: LiteralString = """
    TRUNCATE items; INSERT INTO items SELECT g, g % 5, g % 7, 'first' FROM generate_series(1, 20) AS g;
    CREATE OR REPLACE FUNCTION meddling(new_id int) RETURNS int LANGUAGE plpgsql AS
        $f$BEGIN {called} RETURN new_id; END$f$;
    CREATE OR REPLACE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $f$
        DECLARE new_id int := NEW.id; BEGIN IF NEW.note = 'many' THEN {fired} END IF; RETURN NEW; END$f$;
    CREATE OR REPLACE TRIGGER meddle {at} INSERT ON items FOR EACH ROW EXECUTE FUNCTION meddle();
"""


def body(ways: list[tuple[str, int, int]]) -> str:
    """What is done for every so manieth row."""
    return " ".join(f"IF new_id % {every} = 0 THEN {one.replace('{n}', str(n))}; END IF;" for one, n, every in ways)


@pytest.mark.property
@afresh(max(20, settings().max_examples // 4))
@given(
    called=WAYS,
    fired=WAYS,
    at=st.sampled_from(["BEFORE", "AFTER"]),
    together=st.booleans(),
    rows=st.sampled_from([1, 2, 12, 251]),
)
def test_whatever_is_done_to_rows_while_they_are_inserted(
    untold: Connection,
    called: list[tuple[str, int, int]],
    fired: list[tuple[str, int, int]],
    at: str,
    together: bool,
    rows: int,
):
    text = CALLS.replace("{called}", body(called)).replace("{fired}", body(fired)).replace("{at}", at)
    untold.execute(text)
    untold.execute("BEGIN")
    for first in (1000, 2000):
        untold.execute(MANY.replace("SELECT g", "SELECT meddling(g)"), (first, first + rows - 1))
        check(untold)
        if not together:
            untold.execute("COMMIT")
            untold.execute("BEGIN")
    untold.execute("COMMIT")
