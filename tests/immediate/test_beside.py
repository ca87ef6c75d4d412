"""What goes on beside maintenance, or around it: partitions that come and go, procedures, handlers that suspend."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.test_isolation import LEVELS, Session

Connection = psycopg.Connection[tuple[Any, ...]]

QUERIES: dict[str, LiteralString] = {
    "sold": "SELECT shop, count(*) AS n, max(amount) AS most FROM sales GROUP BY shop",
    "named": "SELECT x.id, x.amount, s.name FROM sales AS x JOIN shops AS s ON s.id = x.shop",
}


@pytest.fixture
def sales(db: Connection) -> Connection:
    db.execute(
        """CREATE TABLE shops (id int PRIMARY KEY, name text);
           CREATE TABLE sales (id int, shop int, amount int) PARTITION BY RANGE (id);
           CREATE TABLE sales_1 PARTITION OF sales FOR VALUES FROM (0) TO (100);
           CREATE TABLE sales_2 (LIKE sales);
           INSERT INTO shops SELECT g, 'n' || g FROM generate_series(1, 3) AS g;
           INSERT INTO sales SELECT g, g % 3 + 1, g FROM generate_series(1, 20) AS g;
           INSERT INTO sales_2 SELECT g, g % 3 + 1, g FROM generate_series(100, 110) AS g"""
    )
    for name, query in QUERIES.items():
        pg_trickle.create_stream_table(db, name, query, refresh_mode="IMMEDIATE")
    return db


@pytest.fixture
def sessions(database: Any, sales: Connection) -> Iterator[tuple[Session, Session]]:
    del sales
    with ThreadPoolExecutor(2) as pool:
        watcher = database.connect()
        yield Session(database.connect(), watcher, pool), Session(database.connect(), watcher, pool)


def wrong(conn: Connection) -> list[object]:
    return [difference for name in QUERIES for difference in differences(conn, name)]


def test_a_partition_comes_while_somebody_writes(sales: Connection, sessions: tuple[Session, Session]) -> None:
    """His next statement recomputes, in his transaction; the other writer sees it when he has committed."""
    one, two = sessions
    one.begin()
    one.run("INSERT INTO sales VALUES (21, 1, 500)")
    two.run("ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES FROM (100) TO (200)")
    one.run("INSERT INTO sales VALUES (150, 2, 900)")
    assert wrong(one.conn) == []
    waiting = two.waits("UPDATE sales SET amount = amount + 1 WHERE id = 105")
    one.run("COMMIT")
    waiting.result()
    assert wrong(sales) == []


@pytest.mark.parametrize("how", ["", " CONCURRENTLY"])
def test_a_partition_goes_while_somebody_writes(
    sales: Connection, sessions: tuple[Session, Session], how: LiteralString
) -> None:
    one, two = sessions
    sales.execute("ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES FROM (100) TO (200)")
    sales.execute("INSERT INTO sales VALUES (151, 2, 901)")
    assert wrong(sales) == []
    one.begin()
    one.run("INSERT INTO sales VALUES (150, 2, 900)")
    waiting = two.waits("ALTER TABLE sales DETACH PARTITION sales_2" + how)
    one.run("COMMIT")
    waiting.result()
    one.run("INSERT INTO sales VALUES (22, 2, 7)")
    assert wrong(sales) == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_partition_comes_after_the_snapshot(sales: Connection, sessions: tuple[Session, Session], level: str) -> None:
    """Whoever writes next in a younger snapshot recomputes, if this one doesn't."""
    one, two = sessions
    one.begin(level)
    one.run("SELECT count(*) FROM sales")
    two.run("ALTER TABLE sales ATTACH PARTITION sales_2 FOR VALUES FROM (100) TO (200)")
    one.run("INSERT INTO sales VALUES (23, 1, 700)")
    one.run("UPDATE sales SET amount = 1000 WHERE id = 110")
    one.run("COMMIT")
    two.run("INSERT INTO sales VALUES (152, 1, 7)")
    assert wrong(sales) == []


def test_procedures_that_commit_between_statements(sales: Connection) -> None:
    """Also where a transaction begins within a call, undoes a part, and goes on to the next."""
    sales.execute(
        """CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
           BEGIN
               FOR i IN 1..6 LOOP
                   UPDATE sales SET amount = amount + 1, shop = shop % 3 + 1 WHERE id = i;
                   INSERT INTO shops VALUES (10 + i, 'new');
                   IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
                   BEGIN
                       DELETE FROM sales WHERE id < 10;
                       RAISE division_by_zero;
                   EXCEPTION WHEN division_by_zero THEN UPDATE shops SET name = name || '!' WHERE id = 1;
                   END;
                   DELETE FROM sales WHERE id = 10 + i;
                   COMMIT AND CHAIN;
               END LOOP;
           END $$"""
    )
    sales.execute("CALL work()")
    assert wrong(sales) == []


@pytest.mark.parametrize("nested", [False, True])
def test_a_handler_suspends_what_has_failed(sales: Connection, nested: bool) -> None:
    """In the block that caught the error of a maintenance; also within a statement on another source."""
    pg_trickle.create_stream_table(sales, "shares", "SELECT id, 100 / amount AS s FROM sales", refresh_mode="IMMEDIATE")
    sales.execute(
        """CREATE FUNCTION zero() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
               UPDATE sales SET amount = 0 WHERE id = 3;
               RETURN NULL;
           EXCEPTION WHEN division_by_zero THEN
               PERFORM pgtrickle.suspend_stream_table('shares');
               UPDATE sales SET amount = 0 WHERE id = 3;
               RETURN NULL;
           END $$;
           CREATE TABLE tasks (id int);
           CREATE TRIGGER zero AFTER INSERT ON tasks EXECUTE FUNCTION zero();
           CREATE TRIGGER zero AFTER UPDATE ON shops EXECUTE FUNCTION zero()"""
    )
    sales.execute("UPDATE shops SET name = 'x' WHERE id = 2" if nested else "INSERT INTO tasks VALUES (1)")
    status = sales.execute("SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'shares'").fetchone()
    assert (status, wrong(sales)) == (("SUSPENDED",), [])
    sales.execute("UPDATE sales SET amount = 1 WHERE id = 3")
    pg_trickle.resume_stream_table(sales, "shares")
    assert differences(sales, "shares") == []
