"""Statements that change one row take a short way; what it rests on, and when it must not be taken."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.immediate.conftest import QUERIES, Connection, Shop, made
from tests.immediate.test_isolation import only
from tests.immediate.test_statements import TRIGGERS

MORE: dict[str, LiteralString] = {
    "some": """SELECT customer_id, count(*) FILTER (WHERE amount > 5) AS dear, sum(id) FILTER (WHERE amount > 5) AS s,
                      count(*) AS n FROM orders GROUP BY customer_id""",
    "named": "SELECT note, customer_id, count(*) AS n, count(amount) AS amounts FROM orders GROUP BY note, customer_id",
    "means": "SELECT customer_id, avg(amount) AS mean, bool_or(amount > 7) AS dear FROM orders GROUP BY customer_id",
    "ids": "SELECT id FROM orders WHERE amount > 5",
    "pairs_of_values": "SELECT DISTINCT note, customer_id FROM orders",
    "dear_kinds": "SELECT DISTINCT note FROM orders WHERE amount > 5",
    "amounts": "SELECT DISTINCT amount FROM orders",
    "dear_groups": """SELECT customer_id, sum(amount) AS total FROM orders
                       WHERE amount > 3 GROUP BY 1 HAVING count(*) > 2""",
    "late": """SELECT customer_id, count(*) * 2 AS twice, max(amount) FILTER (WHERE id > 20) AS late, min(note) AS note
                FROM orders GROUP BY customer_id""",
    "dearest": "SELECT note, customer_id, max(amount) AS most FROM orders WHERE amount > 5 GROUP BY note, customer_id",
}

STATEMENTS: list[LiteralString] = [
    # A group's first row, another, and both away again.
    "INSERT INTO orders VALUES (100, NULL, 7, 'a')",
    "INSERT INTO orders VALUES (101, NULL, NULL, NULL)",
    "UPDATE orders SET amount = 8 WHERE id = 101",
    "UPDATE orders SET amount = NULL WHERE id = 100",
    "DELETE FROM orders WHERE id = 100",
    "DELETE FROM orders WHERE id = 101",
    # Out of view and into it, to another group, under another key, with nothing changed.
    "UPDATE orders SET amount = 1 WHERE id = 20",
    "UPDATE orders SET amount = 9 WHERE id = 20",
    "UPDATE orders SET amount = 10 WHERE id = 20",
    "UPDATE orders SET customer_id = 2 WHERE id = 20",
    "UPDATE orders SET id = 120, amount = 4 WHERE id = 20",
    "UPDATE orders SET id = 121, amount = 14, customer_id = NULL, note = NULL WHERE id = 120",
    "UPDATE orders SET amount = amount WHERE id = 121",
    "UPDATE orders SET note = 'x' WHERE id = 121",
    # Several rows, of which one changes.
    "UPDATE orders SET amount = CASE id WHEN 2 THEN 77 ELSE amount END, note = CASE id WHEN 2 THEN 'y' ELSE note END"
    " WHERE id IN (1, 2, 3)",
    "UPDATE orders SET amount = amount WHERE id IN (1, 2)",
    "UPDATE orders SET amount = 3 WHERE false",
    "INSERT INTO orders VALUES (130, 3, 1, 'not shown')",
    "DELETE FROM orders WHERE id = 130",
    # Of several kinds at once, each of one row.
    "INSERT INTO orders VALUES (1, 1, 7, 'a') ON CONFLICT (id) DO UPDATE SET amount = 99, customer_id = 5",
    """MERGE INTO orders AS o USING (VALUES (2), (3), (200)) AS v(id) ON v.id = o.id
        WHEN MATCHED AND o.id = 2 THEN DELETE WHEN MATCHED THEN UPDATE SET amount = 1
        WHEN NOT MATCHED THEN INSERT VALUES (v.id, 2, 3, 'm')""",
    """WITH d AS (DELETE FROM orders WHERE id = 4), u AS (UPDATE orders SET amount = 2 WHERE id = 5)
       INSERT INTO orders VALUES (201, 6, 6, 'w')""",
]


@pytest.fixture
def more(shop: Shop) -> Shop:
    for name, query in MORE.items():
        shop.add(name, query)
    return shop


@pytest.mark.versions
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_statements_of_one_row(more: Shop, level: str) -> None:
    more.conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    more.run(*STATEMENTS, "COMMIT")


def test_statements_of_one_row_inside_others(more: Shop) -> None:
    """What an inner statement has done to the row is kept by the outer one, which is worked off after it."""
    for trigger in TRIGGERS.values():
        with more.conn.transaction(force_rollback=True):
            more.run(
                trigger,
                "INSERT INTO orders VALUES (100, 1, 7, 'a')",
                "UPDATE orders SET amount = amount / 2 WHERE id = 3",
                "UPDATE orders SET customer_id = 8 WHERE id = 4",
                "DELETE FROM orders WHERE id = 7",
                "SET CONSTRAINTS ALL IMMEDIATE",
            )


# Queries to which a row of the table is several rows.
SEVERAL: dict[str, LiteralString] = {
    "both_counted": """SELECT k, count(*) AS n, sum(amount) AS total
                         FROM (SELECT id AS k, amount FROM orders UNION ALL SELECT customer_id, amount FROM orders) AS u
                        GROUP BY k""",
    "both_distinct": """SELECT DISTINCT k FROM (SELECT id AS k FROM orders UNION ALL SELECT customer_id FROM orders)
                                              AS u""",
    "both_most": """SELECT k, max(amount) AS most
                      FROM (SELECT id AS k, amount FROM orders UNION ALL SELECT customer_id, amount FROM orders) AS u
                     GROUP BY k""",
    "valued": """SELECT v.k, sum(o.amount) AS total, count(*) AS n
                   FROM orders AS o CROSS JOIN LATERAL (VALUES (o.id), (o.customer_id)) AS v(k) GROUP BY v.k""",
    "sets": """SELECT customer_id, note, count(*) AS n, sum(amount) AS total FROM orders
                GROUP BY GROUPING SETS ((customer_id), (note), (customer_id, note))""",
    "twice": "SELECT v.k, count(*) AS n FROM orders CROSS JOIN (VALUES (1), (2)) AS v(k) GROUP BY v.k",
}


@pytest.mark.versions
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_row_of_the_table_that_is_several_rows_of_the_query(db: Connection, level: str) -> None:
    shop = made(db, SEVERAL)
    shop.conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    shop.run(
        # Both of its rows are of one group; of two; one of them moves, the other only changes.
        "UPDATE orders SET customer_id = 3 WHERE id = 3",
        "UPDATE orders SET amount = 50 WHERE id = 3",
        "UPDATE orders SET customer_id = 5, amount = 51 WHERE id = 3",
        "UPDATE orders SET customer_id = 6 WHERE id = 3",
        "UPDATE orders SET amount = 52 WHERE id = 3",
        "INSERT INTO orders VALUES (100, 1, 7, 'a')",
        "DELETE FROM orders WHERE id = 3",
        "DELETE FROM orders WHERE id = 100",
        *STATEMENTS,
        "COMMIT",
    )


UNDONE: LiteralString = """
    CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' THEN DELETE FROM orders WHERE id = NEW.id;
        ELSIF TG_OP = 'DELETE' THEN INSERT INTO orders VALUES (OLD.id, OLD.customer_id, OLD.amount + 1, 'back');
        ELSE UPDATE orders SET amount = OLD.amount, customer_id = OLD.customer_id WHERE id = NEW.id; END IF;
        RETURN NULL; END $$;
    CREATE TRIGGER undo AFTER INSERT OR UPDATE OR DELETE ON orders
       FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION undo()"""


def test_what_a_statement_does_may_be_undone_inside_it(more: Shop) -> None:
    more.run(
        UNDONE,
        "INSERT INTO orders VALUES (100, NULL, 7, 'a')",
        "INSERT INTO orders VALUES (100, 1, 2, 'a')",
        "UPDATE orders SET amount = 100, customer_id = 1 WHERE id = 5",
        "UPDATE orders SET amount = 1 WHERE id = 6",
        "DELETE FROM orders WHERE id = 7",
        "DELETE FROM orders WHERE id = 2",
    )


MOVED: list[LiteralString] = [
    # The last row of a group becomes the first of another; the first of another; the last of its own; neither; back.
    "UPDATE orders SET note = 'a' WHERE id = 1",
    "UPDATE orders SET note = 'b' WHERE id = 1",
    "UPDATE orders SET note = 'c' WHERE id = 2",
    "UPDATE orders SET note = 'b' WHERE id = 2",
    "UPDATE orders SET note = 'n' WHERE id = 2",
    "UPDATE orders SET note = NULL WHERE id = 1",
    "UPDATE orders SET note = 'b' WHERE id = 1",
    # Out of view, into it elsewhere, and from group to group out of view.
    "UPDATE orders SET amount = 1 WHERE id = 1",
    "UPDATE orders SET amount = 10, note = 'd' WHERE id = 1",
    "UPDATE orders SET amount = 2, note = 'e' WHERE id = 1",
    "UPDATE orders SET note = 'f' WHERE id = 1",
    "UPDATE orders SET amount = 20 WHERE id = 1",
    "UPDATE orders SET amount = 21 WHERE id = 1",
    # Several rows, of which one changes what is read.
    "UPDATE orders SET note = CASE id WHEN 1 THEN 'g' ELSE note END WHERE id < 3",
    "UPDATE orders SET note = CASE id WHEN 1 THEN 'n' ELSE 'g' END WHERE id < 3",
    "DELETE FROM orders WHERE id = 2",
    "DELETE FROM orders WHERE id = 1",
]


@pytest.fixture
def kinds(db: Connection) -> Shop:
    names = ("pairs_of_values", "dear_kinds", "amounts")
    return made(db, {"kinds": QUERIES["kinds"]} | {name: MORE[name] for name in names})


@pytest.mark.versions
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_row_goes_from_group_to_group(kinds: Shop, level: str) -> None:
    kinds.run(*MOVED)
    kinds.conn.execute("INSERT INTO orders VALUES (1, 1, 1, 'n'), (2, 1, 2, 'n')")
    kinds.conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
    kinds.run(*MOVED, "COMMIT")


ONWARDS: LiteralString = """
    CREATE FUNCTION onwards() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE orders SET note = TG_ARGV[0] WHERE id = NEW.id;
        RETURN NULL; END $$;
    CREATE TRIGGER onwards AFTER INSERT OR UPDATE ON orders
       FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION onwards('away')"""


SENT_ON: list[LiteralString] = [
    "UPDATE orders SET note = 'between' WHERE id = 1",
    "UPDATE orders SET note = 'between' WHERE id = 2",
    "INSERT INTO orders VALUES (100, 1, 7, 'between')",
    "UPDATE orders SET note = 'away' WHERE id = 3",
    "UPDATE orders SET note = 'between' WHERE id = 3",
]


def test_a_row_that_is_sent_on_leaves_nothing_of_the_group_between(kinds: Shop) -> None:
    kinds.run("UPDATE orders SET note = 'alone' WHERE id = 1", ONWARDS)
    number = kinds.one("SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'kinds'")
    empty = sql.SQL("SELECT k1 FROM {} WHERE n = 0").format(sql.Identifier("pgtrickle_changes", f"state_{number}_1"))
    for statement in SENT_ON:
        kinds.run(statement)
        assert kinds.conn.execute(empty).fetchall() == []


def test_what_stream_tables_on_them_write_back_is_followed(kinds: Shop) -> None:
    """A trigger on the shown rows writes the source between the statements for one row's group."""
    kinds.run("UPDATE orders SET note = 'alone' WHERE id = 1")
    kinds.run(
        """CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               UPDATE public.orders SET note = 'alone' WHERE id = 2; RETURN NULL; END $$;
           CREATE TRIGGER back AFTER INSERT ON kinds FOR EACH ROW WHEN (NEW.note = 'new') EXECUTE FUNCTION back()""",
        "UPDATE orders SET note = 'new' WHERE id = 1",
    )
    assert kinds.one("SELECT count(*) FROM kinds WHERE note = 'alone'") == 1


TYPED: dict[str, LiteralString] = {
    "shown": "SELECT id, mood, kind, price, size, tags, data, word, body, at FROM things WHERE price > 1",
    "distinct_ones": "SELECT DISTINCT mood, kind, size, tags, word FROM things",
    "extreme_ones": "SELECT mood, min(word) AS first, max(price) AS most, max(kind) AS last FROM things GROUP BY mood",
    "summed": "SELECT word, sum(price) AS total, count(body) AS bodies FROM things GROUP BY word",
}


@pytest.mark.versions
def test_a_row_of_all_kinds_of_types(db: Connection) -> None:
    """It is kept as values: of a type that admits no NULL, one that is a row, long ones that are stored elsewhere."""
    db.execute(
        """CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
           CREATE DOMAIN kind AS text NOT NULL CHECK (value <> '');
           CREATE TYPE size AS (width int, height numeric(6, 1));
           CREATE TABLE things (id bigint PRIMARY KEY, mood mood, kind kind, price numeric(8, 2), size size,
                                tags text[], data bytea, word text COLLATE "POSIX", body text, at timestamptz)"""
    )
    shop = Shop(db)
    for name, query in TYPED.items():
        shop.add(name, query)
    shop.run(
        """INSERT INTO things SELECT 1, 'ok', 'k', 2.50, '(3,4.5)'::size, '{a,b}', '\\x00ff', 'Word',
                                     string_agg(md5(g::text), ''), '2026-01-01' FROM generate_series(1, 500) AS g""",
        "INSERT INTO things VALUES (2, 'happy', 'j', 0.50, (3, 4.5), NULL, NULL, 'wORD', 'short', NULL)",
        "INSERT INTO things SELECT * FROM things WHERE false",
        "UPDATE things SET price = 2.5, mood = 'sad' WHERE id = 2",
        "UPDATE things SET body = body || 'x', kind = 'l' WHERE id = 1",
        "UPDATE things SET size = (9, 9.9), word = 'other' WHERE id = 1",
        "UPDATE things SET size = (9, 9.90), tags = '{}' WHERE id = 1",
        "UPDATE things SET price = 1 WHERE id = 1",
        "UPDATE things SET price = 7 WHERE false",
        "DELETE FROM things WHERE id = 2",
        "DELETE FROM things WHERE id = 2",
        "DELETE FROM things WHERE id = 1",
    )


def test_a_row_that_is_not_in_view_costs_no_planning(more: Shop) -> None:
    """Planned for its values it would cost nothing, and PostgreSQL would plan anew for each row."""
    settings = more.conn.execute(
        """SELECT p.proconfig @> '{plan_cache_mode=force_generic_plan}' FROM pg_proc AS p
            WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname LIKE 'maintain%'
              AND p.prosrc LIKE '%INTO __pgt_single%'"""
    ).fetchall()
    assert len(settings) > 9
    assert {has for (has,) in settings} == {True}


def test_what_is_not_read_changes_nothing_for_one_row_either(more: Shop) -> None:
    del more.names[:]
    names = ("totals", "dear", "ids", "some", "means")
    before = {name: more.version(name) for name in names}
    more.conn.execute("UPDATE orders SET note = note || 'x' WHERE id = 30")
    more.conn.execute("UPDATE orders SET amount = amount WHERE id = 30")
    assert {name: more.version(name) for name in names} == before


def test_a_key_seen_twice_is_shown_as_it_is_or_told_to_try_again(more: Shop, database: Any) -> None:
    """In REPEATABLE READ: written anew after another transaction had deleted it, shown before or now or both."""
    only(more, "dear", "ids")
    other = database.connect()
    failed = []
    for before, after in ((20, 1), (1, 20), (1, 1), (20, 21)):
        more.run("DELETE FROM orders WHERE id = 500", "INSERT INTO orders VALUES (500, 1, 1, 'n')")
        more.conn.execute("UPDATE orders SET amount = %s WHERE id = 500", (before,))
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM orders")
        more.conn.execute("DELETE FROM orders WHERE id = 500")
        try:
            other.execute("INSERT INTO orders VALUES (500, 1, %s, 'n')", (after,))
            other.execute("UPDATE orders SET note = 'm' WHERE id = 500")
            other.execute("COMMIT")
        except psycopg.errors.SerializationFailure:
            failed.append((before, after))
            other.execute("ROLLBACK")
        more.check()
    assert (20, 21) in failed
