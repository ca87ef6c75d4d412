"""After every statement, of whatever kind, an IMMEDIATE stream table is its query."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

import pg_trickle
from tests.immediate.conftest import Shop

SINGLE: list[LiteralString] = [
    "INSERT INTO orders VALUES (100, 1, 7, 'a'), (101, 2, 8, NULL), (102, NULL, 9, 'c')",
    "UPDATE orders SET amount = amount + 1 WHERE id < 10",
    "UPDATE orders SET customer_id = customer_id % 9 + 1",
    "UPDATE orders SET id = id + 1000",
    "DELETE FROM orders WHERE id % 3 = 0",
    "INSERT INTO orders VALUES (1, 1, 7, 'a') ON CONFLICT (id) DO UPDATE SET amount = 99, customer_id = 5",
    """INSERT INTO orders SELECT g, 1, 7, 'a' FROM generate_series(30, 60) AS g
           ON CONFLICT (id) DO UPDATE SET amount = excluded.amount""",
    "INSERT INTO orders VALUES (1, 1, 7, 'a') ON CONFLICT DO NOTHING",
    """MERGE INTO orders AS o USING (SELECT generate_series(30, 60) AS id) AS v ON v.id = o.id
        WHEN MATCHED AND o.id % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET amount = 1
        WHEN NOT MATCHED THEN INSERT VALUES (v.id, 2, 3, 'm')""",
    "TRUNCATE orders",
    "TRUNCATE orders, customers",
    "DELETE FROM orders",
    "INSERT INTO orders SELECT g, g % 9 + 1, g, 'bulk' FROM generate_series(100, 1500) AS g",
]


@pytest.mark.versions
def test_one_source(shop: Shop) -> None:
    for statement in SINGLE:
        with shop.conn.transaction(force_rollback=True):
            shop.run(statement, "INSERT INTO orders SELECT g, NULL, 1, 'again' FROM generate_series(5000, 5003) AS g")


SEVERAL: list[LiteralString] = [
    # Foreign keys that write.
    "DELETE FROM customers WHERE id IN (2, 3)",
    "UPDATE customers SET id = id + 100, region = 'far' WHERE id < 5",
    # Both sides of a join at once, whoever comes first.
    """WITH a AS (INSERT INTO customers VALUES (50, 'new')),
            b AS (INSERT INTO orders VALUES (500, 50, 5, 'x')) SELECT""",
    """WITH b AS (DELETE FROM orders WHERE customer_id = 4), a AS (DELETE FROM customers WHERE id = 4) SELECT""",
    """WITH a AS (UPDATE customers SET region = 'moved' WHERE id = 5),
            b AS (UPDATE orders SET amount = 0 WHERE customer_id = 5)
       INSERT INTO orders VALUES (600, 5, 6, 'y')""",
    "TRUNCATE customers CASCADE",
    "UPDATE customers SET region = region WHERE false",
]


def test_several_sources(shop: Shop) -> None:
    for statement in SEVERAL:
        with shop.conn.transaction(force_rollback=True):
            shop.run(statement, "INSERT INTO customers VALUES (70, 'z')", "INSERT INTO orders VALUES (700, 70, 1, 'z')")
    shop.run(*SEVERAL)


TRIGGERS: dict[str, LiteralString] = {
    "a row trigger changes the other source": """
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE customers SET region = region || '!' WHERE id = NEW.customer_id; RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION f();""",
    "a row trigger changes the row again": """
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE orders SET amount = amount + 100, customer_id = 9 WHERE id = NEW.id AND amount < 100;
            RETURN NULL; END $$;
        CREATE TRIGGER t AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION f();""",
    "a row trigger takes the row away again": """
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            DELETE FROM orders WHERE id = NEW.id; RETURN NULL; END $$;
        CREATE TRIGGER t AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION f();""",
    "a statement trigger writes both": """
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO customers SELECT max(id) + 1, 'late' FROM customers;
            IF pg_trigger_depth() = 1 THEN
                INSERT INTO orders SELECT max(id) + 1, (SELECT max(id) FROM customers), 3, 't' FROM orders;
            END IF; RETURN NULL; END $$;
        CREATE TRIGGER aaa AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH STATEMENT EXECUTE FUNCTION f();
        CREATE TRIGGER zzz AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH STATEMENT EXECUTE FUNCTION f();""",
    "a trigger fails half way and goes on": """
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            BEGIN
                UPDATE customers SET region = 'lost' WHERE id = NEW.customer_id;
                INSERT INTO orders VALUES (NEW.id + 5000, 1, 1, 'lost');
                RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END; RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE INSERT OR UPDATE ON orders
           FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION f();""",
    "a deferred constraint trigger writes": """
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE customers SET region = region || '?' WHERE id = NEW.customer_id; RETURN NEW; END $$;
        CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE ON orders DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION f();""",
    "a rule writes as well": """
        CREATE RULE r AS ON INSERT TO orders
            DO ALSO UPDATE customers SET region = 'ruled' WHERE id = NEW.customer_id;""",
}


def test_triggers_on_sources(shop: Shop) -> None:
    for trigger in TRIGGERS.values():
        with shop.conn.transaction(force_rollback=True):
            shop.run(
                trigger,
                "INSERT INTO orders VALUES (100, 1, 7, 'a'), (101, 2, 8, 'b')",
                "UPDATE orders SET amount = amount / 2 WHERE id IN (1, 2, 3)",
                "UPDATE orders SET customer_id = 8 WHERE id IN (4, 5)",
                "DELETE FROM orders WHERE id IN (7, 8)",
                "SET CONSTRAINTS ALL IMMEDIATE",
            )


@pytest.mark.parametrize("name", ["spans", "extremes", "lists", "totals", "counted", "joined"])
def test_triggers_on_the_stream_table_write_its_source(shop: Shop, name: str) -> None:
    """In the midst of the maintenance; what came is gone again before that has ended."""
    shop.conn.execute(
        f"""CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               DELETE FROM public.orders WHERE id < 1 OR amount > 1000; RETURN NULL; END $$;
           CREATE TRIGGER f AFTER INSERT OR UPDATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION f()""".encode()
    )
    shop.run(
        "INSERT INTO orders VALUES (0, 3, 5000, 'n'), (500, 4, 2000, 'n'), (501, 4, 20, 'm')",
        "UPDATE orders SET amount = 4000 WHERE id IN (5, 6)",
    )


def test_functions_that_write_inside_a_statement(shop: Shop) -> None:
    shop.run(
        """CREATE FUNCTION sell(customer int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
               UPDATE customers SET region = 'sold' WHERE id = customer;
               UPDATE orders SET amount = amount + 1 WHERE customer_id = customer;
               DELETE FROM orders WHERE id = (SELECT min(id) FROM orders WHERE customer_id = customer);
               RETURN customer; END $$""",
        "SELECT sell(1), sell(2)",
        "INSERT INTO orders SELECT 200 + g, sell(g), 5, 'f' FROM generate_series(1, 4) AS g",
        "UPDATE orders SET amount = sell(5) WHERE customer_id = 6",
        """DO $$ BEGIN FOR i IN 1..5 LOOP
               PERFORM sell(i); UPDATE orders SET amount = amount * 2 WHERE customer_id = i; END LOOP; END $$""",
    )


def test_copy(shop: Shop) -> None:
    with shop.conn.cursor().copy("COPY orders FROM STDIN") as copy:
        for number in range(300, 700):
            copy.write_row((number, number % 9 + 1, number, "c"))
    shop.check()


def test_what_is_rolled_back_is_gone_here_too(shop: Shop) -> None:
    with shop.conn.transaction(force_rollback=True):
        shop.run("DELETE FROM customers WHERE id = 1")
        with shop.conn.transaction(force_rollback=True):
            shop.run("UPDATE orders SET amount = 3", "DELETE FROM customers WHERE id < 5")
        shop.check()
        shop.run("INSERT INTO orders VALUES (900, 3, 1, 'in')")
    shop.check()
    assert shop.one("SELECT count(*) FROM joined") == 40


def test_a_failing_statement_leaves_no_note_behind(shop: Shop) -> None:
    shop.conn.execute("BEGIN; SAVEPOINT s")
    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.conn.execute("INSERT INTO orders SELECT 1, 1, 1, 'twice' FROM generate_series(1, 2)")
    shop.conn.execute("ROLLBACK TO s")
    shop.run("INSERT INTO orders VALUES (800, 1, 1, 'after')", "COMMIT")


def test_a_session_that_forgets_where_its_notes_end_looks_at_all(shop: Shop) -> None:
    shop.conn.execute("BEGIN")
    shop.run("INSERT INTO orders VALUES (800, 1, 1, 'x')", "DISCARD SEQUENCES", "DELETE FROM customers WHERE id = 2")
    shop.conn.execute(
        """CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               EXECUTE 'DISCARD SEQUENCES'; INSERT INTO customers VALUES (90, 'inner'); RETURN NULL; END $$;
           CREATE TRIGGER forget AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION forget()"""
    )
    shop.run("INSERT INTO orders VALUES (801, 2 + 1, 1, 'y')", "COMMIT")


def test_a_statement_undone_within_another_counts_for_nothing(shop: Shop) -> None:
    """Before it, in it and after it others are worked off in time, though what the session remembers isn't undone."""
    shop.conn.execute(
        """CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               BEGIN
                   INSERT INTO customers VALUES (91, 'undone');
                   UPDATE orders SET amount = amount / (customer_id - 2) WHERE id < 10;
               EXCEPTION WHEN division_by_zero THEN UPDATE customers SET region = 'done' WHERE id = NEW.customer_id;
               END;
               RETURN NULL; END $$;
           CREATE TRIGGER fail AFTER INSERT ON orders FOR EACH ROW WHEN (NEW.note = 'fail') EXECUTE FUNCTION fail();
           BEGIN"""
    )
    shop.run(
        "INSERT INTO orders VALUES (800, 1, 1, 'x')",
        "INSERT INTO orders VALUES (801, 3, 1, 'fail'), (802, 4, 1, 'fail')",
        "INSERT INTO orders VALUES (803, 3, 1, 'x')",
        "COMMIT",
    )


def test_a_transaction_of_many_statements_reads_no_more_for_the_last_one(shop: Shop) -> None:
    """Of notes, and of who has the turn."""
    del shop.names[:]
    reads = """SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::int FROM pg_class
                WHERE relname ~ '^(turn|under_way)_[0-9]+' AND relkind IN ('r', 'i')"""
    shop.conn.execute("BEGIN")
    costs = []
    for _ in range(2):
        shop.conn.execute(
            "DO $$ BEGIN FOR i IN 1..300 LOOP UPDATE orders SET amount = amount + 1 WHERE id = 1; END LOOP; END $$"
        )
        costs.append(shop.one(reads))
    shop.conn.execute("COMMIT")
    assert costs[1] < 2.5 * costs[0]


def test_between_statements_nothing_is_under_way(shop: Shop) -> None:
    shop.run(*SEVERAL[:5])
    tables = shop.conn.execute(
        "SELECT relname FROM pg_class WHERE relname ~ '^(under_way|held)_' AND relkind = 'r'"
    ).fetchall()
    assert len(tables) > 2
    for (name,) in tables:
        assert shop.one(f"SELECT count(*) FROM pgtrickle_changes.{name}") == 0


def test_what_is_not_read_may_change_for_nothing(shop: Shop) -> None:
    """No row is written, and nobody waits for anybody: not even for the turn."""
    del shop.names[:]
    before = {name: shop.version(name) for name in ("joined", "totals", "dear", "pairs")}
    shop.conn.execute("UPDATE orders SET note = note || 'x'")
    shop.conn.execute("UPDATE orders SET amount = amount WHERE id < 7")
    shop.conn.execute("DELETE FROM orders WHERE false")
    assert {name: shop.version(name) for name in before} == before


def test_a_subquery_within_what_a_subquery_gathers(shop: Shop) -> None:
    """What one statement hands to the next is another than in a refresh."""
    shop.add(
        "nested",
        """SELECT c.id, (SELECT max(r.n) FROM (SELECT (SELECT q.n FROM (SELECT b.id + b.amount AS n) AS q) AS n
             FROM (SELECT * FROM orders AS o WHERE o.customer_id = c.id) AS b) AS r) AS most FROM customers AS c""",
    )
    shop.run(*SEVERAL)


def test_names_that_want_quotes(shop: Shop) -> None:
    shop.run(
        r"""CREATE TABLE "Se;lect '$" ("a'b$$" int, "xid" int, "w" text, "%s %I" numeric, "__pgt_rows" int)""",
    )
    shop.add(
        '"St ""1"',
        """SELECT "a'b$$", count(*) AS "$1", sum("%s %I"), max("xid") AS "w", max("__pgt_rows") AS old
             FROM "Se;lect '$" GROUP BY 1""",
    )
    shop.add('"St 2"', """SELECT "w", "xid" AS new FROM "Se;lect '$" WHERE "w" <> '%L;' AND "__pgt_rows" > 0""")
    shop.run(
        """INSERT INTO "Se;lect '$"
           VALUES (1, 2, 'x', 3.50, 1), (1, 3, '%L;', 3.5, 2), (NULL, NULL, NULL, NULL, NULL)""",
        """UPDATE "Se;lect '$" SET "w" = '$$', "%s %I" = 3.500""",
        """WITH d AS (DELETE FROM "Se;lect '$" WHERE "xid" = 2) INSERT INTO "Se;lect '$" VALUES (5, 5, 'y', 5, 5)""",
    )


def test_prepared_transactions(shop: Shop) -> None:
    if shop.one("SHOW max_prepared_transactions") == "0":
        pytest.fail("the test's server should allow prepared transactions")
    shop.conn.execute("BEGIN")
    shop.run("DELETE FROM customers WHERE id = 1", "INSERT INTO orders VALUES (900, 3, 1, 'in')")
    shop.conn.execute("PREPARE TRANSACTION 'ours'")
    shop.conn.execute("COMMIT PREPARED 'ours'")
    shop.check()
    assert shop.one("SELECT count(*) FROM joined WHERE id = 900") == 1


def test_stream_tables_on_stream_tables(shop: Shop) -> None:
    """The change goes down within the statement, by several ways at once, also out of and into deferred ones."""
    shop.add("by_total", "SELECT n, count(*) AS customers, sum(total) AS total FROM totals GROUP BY n")
    shop.add("mixed", "SELECT t.customer_id, o.id, t.total FROM totals AS t JOIN orders AS o USING (customer_id)")
    shop.add("third", "SELECT b.id, b.total, e.least FROM mixed AS b JOIN extremes AS e USING (customer_id)")
    pg_trickle.create_stream_table(
        shop.conn, "late", "SELECT region, sum(n) AS n FROM regions GROUP BY region", schedule=None
    )
    shop.add("later", "SELECT count(*) AS n, sum(n) AS s FROM late")
    for statement in (*SINGLE, *SEVERAL):
        with shop.conn.transaction(force_rollback=True):
            shop.run(statement)
    shop.run(*SEVERAL)
    pg_trickle.refresh_stream_table(shop.conn, "late")
    shop.names.append("late")
    shop.check()
