"""Sessions that write at random what many stream tables share, and what of it may fail.

Transactions that take rows and tables in one order don't deadlock on ordinary tables: so a deadlock among them is of
IMMEDIATE's making, and counted.  Others write in any order, suspend and switch in between; of them it is only asked
that each error is one that a client expects, and that afterwards every stream table is its query.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import settings
from psycopg import errors, sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.immediate.test_isolation import LEVELS

Connection = psycopg.Connection[tuple[Any, ...]]
pytestmark = [pytest.mark.property, pytest.mark.slow]

WRITERS = 4
# Of a session: some seconds in the profile ci, hours of fuzzing.
TRANSACTIONS = max(20, settings().max_examples // 4)
SEED = int(os.environ.get("SOAK_SEED", "1"))

SCHEMA: LiteralString = """
    CREATE TABLE goods (id int PRIMARY KEY, name text);
    CREATE TABLE stock (id int PRIMARY KEY, good int, shelf int, amount int);
    CREATE TABLE sales (id int, good int, shelf int, amount int) PARTITION BY RANGE (shelf);
    CREATE TABLE sales_low PARTITION OF sales FOR VALUES FROM (MINVALUE) TO (2);
    CREATE TABLE sales_high PARTITION OF sales DEFAULT;
    INSERT INTO goods SELECT g, 'n' || g FROM generate_series(0, 5) AS g;
    INSERT INTO stock SELECT g, g % 6, g % 4, g FROM generate_series(1, 40) AS g;
"""

# Row locks, groups read again, turns, and each of them above another.
QUERIES: dict[str, LiteralString] = {
    "totals": "SELECT shelf, count(*) AS n, sum(amount) AS total FROM stock GROUP BY shelf",
    "most": "SELECT shelf, min(amount) AS least, max(amount) AS most FROM stock GROUP BY shelf",
    "dear": "SELECT id, amount * 2 AS twice FROM stock WHERE amount > 5",
    "shelves": "SELECT DISTINCT shelf FROM stock",
    "often": "SELECT good, count(*) AS n FROM stock GROUP BY good HAVING count(*) > 6",
    "named": "SELECT s.id, s.amount, g.name FROM stock AS s JOIN goods AS g ON g.id = s.good",
    "unsold": "SELECT g.id FROM goods AS g WHERE NOT EXISTS (SELECT FROM sales AS s WHERE s.good = g.id)",
    "everything": "SELECT count(*) AS n, sum(amount) AS total FROM stock",
    "sold": "SELECT good, sum(amount) AS total, max(amount) AS most FROM sales GROUP BY good",
    "above": "SELECT t.n, g.name FROM totals AS t JOIN goods AS g ON g.id = t.shelf",
    "below": "SELECT name, count(*) AS n, max(amount) AS most FROM named GROUP BY name",
    "mixed": "SELECT d.twice, s.id FROM dear AS d JOIN sales AS s ON s.amount = d.twice",
    "beside": "SELECT s.id, s.amount, g.shelf FROM stock AS s JOIN sales AS g ON g.id = s.id",
    "top": "SELECT n.id, n.name, s.shelf FROM named AS n JOIN sales AS s ON s.id = n.id",
}
# Joins, and whose writers may share their turns; nothing beside them has a turn that lets one through after the other.
SHARED: dict[str, tuple[tuple[str, ...], LiteralString]] = {
    "named": (("stock",), QUERIES["named"]),
    "amounts": (
        ("stock", "goods"),
        """SELECT g.name, count(*) AS n, sum(s.amount) AS total, avg(s.amount) AS mean
             FROM stock AS s JOIN goods AS g ON g.id = s.good GROUP BY g.name""",
    ),
    "names": (
        ("stock", "goods"),
        """SELECT s.shelf, count(g.name) AS n, avg(g.id) AS mean
             FROM stock AS s JOIN goods AS g ON g.id = s.good GROUP BY s.shelf""",
    ),
    "kinds": (
        ("stock", "goods"),
        """SELECT g.name, count(*) AS n, sum(s.id) AS total FROM stock AS s JOIN goods AS g ON g.id = s.good
            GROUP BY g.name""",
    ),
    "below": ((), "SELECT name, count(*) AS n, max(amount) AS most FROM named GROUP BY name"),
    "totals": ((), QUERIES["totals"]),
    "most": ((), QUERIES["most"]),
}


# What ends a transaction, and what PostgreSQL says of it.
EXPECTED = (errors.SerializationFailure, errors.DeadlockDetected)

# In the order in which ordered transactions take them; the values that a statement's rows are found by.
STATEMENTS: tuple[tuple[str, tuple[LiteralString, ...]], ...] = (
    (
        "good",
        (
            "UPDATE goods SET name = %(amount)s WHERE id = %(good)s",
            "INSERT INTO goods VALUES (%(id)s, 'new')",
            "DELETE FROM goods WHERE id = %(good)s",
            "INSERT INTO goods VALUES (%(good)s, 'back') ON CONFLICT (id) DO UPDATE SET name = 'there'",
            "SELECT FROM goods WHERE id = %(good)s FOR UPDATE",
        ),
    ),
    (
        "old",
        (
            "INSERT INTO stock VALUES (%(id)s, %(good)s, %(shelf)s, %(amount)s)",
            """INSERT INTO stock SELECT %(id)s + 1000000 * g, g %% 6, g %% 4, g FROM generate_series(1, 30) AS g
                ORDER BY random()""",
            "UPDATE stock SET amount = amount + 1 WHERE id = %(old)s",
            "UPDATE stock SET shelf = %(shelf)s, good = %(good)s WHERE id = %(old)s",
            "DELETE FROM stock WHERE id = %(old)s",
            """INSERT INTO stock VALUES (%(old)s, %(good)s, %(shelf)s, %(amount)s)
                   ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, shelf = excluded.shelf""",
            """MERGE INTO stock AS s USING (VALUES (%(old)s)) AS v(id) ON s.id = v.id
                WHEN MATCHED AND s.amount %% 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET amount = %(amount)s""",
            """WITH moved AS (DELETE FROM stock WHERE id = %(old)s RETURNING *)
               INSERT INTO stock SELECT %(id)s, good, shelf, amount + 1 FROM moved""",
            "COPY stock FROM STDIN",
        ),
    ),
    (
        "id",
        (
            "INSERT INTO sales VALUES (%(id)s, %(good)s, %(shelf)s, %(amount)s)",
            "INSERT INTO sales SELECT %(id)s, g %% 6, g %% 4, g FROM generate_series(1, 20) AS g",
        ),
    ),
)
# What ordinary tables would be deadlocked by as well.
UNORDERED: tuple[LiteralString, ...] = (
    "INSERT INTO sales_low VALUES (%(id)s, %(good)s, %(shelf)s %% 2, %(amount)s)",
    "UPDATE stock SET amount = amount %% 17 + 1 WHERE shelf = %(shelf)s",
    "DELETE FROM stock WHERE id > 1000 AND good = %(good)s",
    "UPDATE sales SET shelf = %(shelf)s, amount = %(amount)s WHERE good = %(good)s",
    "DELETE FROM sales WHERE amount < %(amount)s",
    "SELECT FROM stock WHERE shelf = %(shelf)s FOR UPDATE",
    "INSERT INTO sales SELECT id, good, shelf, amount FROM stock WHERE id <= 40",
    "INSERT INTO stock SELECT %(id)s + 1000000 * shelf, 1, shelf, n FROM totals WHERE shelf < 100",
    "WITH a AS (UPDATE goods SET name = 'w' WHERE id = %(good)s) DELETE FROM stock WHERE good = %(good)s",
    "TRUNCATE goods",
    "TRUNCATE sales, stock",
    """MERGE INTO sales AS s USING stock AS t ON s.id = t.id AND s.shelf = t.shelf
        WHEN MATCHED THEN UPDATE SET amount = t.amount, shelf = %(shelf)s
        WHEN NOT MATCHED THEN INSERT VALUES (t.id, t.good, t.shelf, t.amount)""",
    """DO $$ BEGIN
           BEGIN
               UPDATE stock SET amount = amount + 1 WHERE id < 9;
               UPDATE goods SET name = 'undone'; RAISE division_by_zero;
           EXCEPTION WHEN division_by_zero THEN UPDATE goods SET name = 'done' WHERE id = 3;
           END; INSERT INTO goods VALUES (3, 'x') ON CONFLICT DO NOTHING; END $$""",
)
# Not sales as well: two that truncate two sources of one stream table each wait for what the other has.
WHOLE: tuple[LiteralString, ...] = ("TRUNCATE stock",)


class Writer:
    """A session that writes what its chance tells it to; no two give new rows the same number."""

    def __init__(self, conn: Connection, seed: int, number: int) -> None:
        self.conn = conn
        self.chance = random.Random(f"{seed}/{number}")
        self.number = number
        self.ids = itertools.count(1000 + number, WRITERS)
        self.outcomes: Counter[str] = Counter()
        self.levels: tuple[str, ...] = LEVELS
        self.shared: tuple[int, ...] = ()

    def ordered(self, most: int) -> list[tuple[LiteralString, dict[str, Any]]]:
        """Statements that take their rows in the one order."""
        if self.chance.random() < 0.02:
            return [(self.chance.choice(WHOLE), {})]
        chosen = []
        for table in sorted(self.chance.randrange(len(STATEMENTS)) for _ in range(self.chance.randint(1, most))):
            key, statements = STATEMENTS[table]
            row = self.row()
            chosen.append((table, row[key], self.chance.choice(statements), row))
        return [(statement, row) for _, _, statement, row in sorted(chosen, key=lambda one: one[:2])]

    def any_order(self) -> list[tuple[LiteralString, dict[str, Any]]]:
        ordered = [*self.ordered(3), (self.chance.choice(UNORDERED), self.row())]
        self.chance.shuffle(ordered)
        return ordered

    def row(self) -> dict[str, Any]:
        return {
            "id": next(self.ids),
            "good": self.chance.randrange(6),
            "shelf": self.chance.randrange(4),
            "amount": self.chance.randrange(1, 20),
            "old": self.chance.randrange(1, 41),
        }

    def transact(self, statements: list[tuple[LiteralString, dict[str, Any]]]) -> None:
        """One transaction; it counts what came of it, by how many statements it has."""
        level = self.chance.choice(self.levels)
        name = "one" if len(statements) == 1 else "several"
        try:
            self.conn.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
            for statement, row in statements:
                self.carry_out(statement, row)
            self.outcomes["shared"] += self.shares()
            self.end()
            self.outcomes[f"{name}: done"] += 1
        except EXPECTED as exc:
            self.conn.execute("ROLLBACK")
            # Rows that went to another partition are followed by nobody, whatever the level; and of several statements
            # the first may share a turn that another one needs whole.
            told = "another partition" in str(exc) or (name == "several" and "for one source" in str(exc))
            if level == "READ COMMITTED" and exc.sqlstate == "40001" and not told:
                raise
            self.outcomes[f"{name}: {exc.sqlstate}"] += 1

    def shares(self) -> int:
        """Of how many stream tables it has the turn together with others."""
        return sum(
            self.conn.execute(
                sql.SQL(
                    """SELECT FROM pgtrickle_changes.{} AS s JOIN pgtrickle_changes.{} AS t ON t.holder <> s.holder
                        WHERE s.holder = pg_current_xact_id_if_assigned() AND s.side <> 0"""
                ).format(sql.Identifier(f"slots_{number}"), sql.Identifier(f"turn_{number}"))
            ).rowcount
            for number in self.shared
        )

    def carry_out(self, statement: LiteralString, row: dict[str, Any]) -> None:
        undone = self.chance.random() < 0.1
        if undone:
            self.conn.execute("SAVEPOINT before")
        if statement.startswith("COPY"):
            with self.conn.cursor().copy(statement) as copy:
                copy.write_row((row["id"], row["good"], row["shelf"], row["amount"]))
        else:
            self.conn.execute(statement, row)
        if undone:
            self.conn.execute("ROLLBACK TO before")

    def end(self) -> None:
        how = self.chance.random()
        if how < 0.1:
            self.conn.execute("ROLLBACK")
        elif how < 0.2:
            self.conn.execute(f"PREPARE TRANSACTION 'of {self.number}'".encode())
            self.conn.execute(f"{self.chance.choice(('COMMIT', 'ROLLBACK'))} PREPARED 'of {self.number}'".encode())
        else:
            self.conn.execute("COMMIT")


class Soak:
    """Writers at work, and the stream tables over what they write."""

    def __init__(self, database: Any, seed: int, queries: dict[str, LiteralString]) -> None:
        self.conn: Connection = database.connect()
        self.conn.execute(SCHEMA)
        self.queries = queries
        for name, query in queries.items():
            pg_trickle.create_stream_table(self.conn, name, query, refresh_mode="IMMEDIATE")
        self.writers = [Writer(database.connect(), seed, number) for number in range(WRITERS)]
        for writer in self.writers:
            writer.conn.execute("SET deadlock_timeout = '100ms'")

    def run(self, task: Callable[[Writer], None], meanwhile: Callable[[], None] = lambda: None) -> Counter[str]:
        """Every writer does a task a number of times; what came of it."""

        def work(writer: Writer) -> None:
            for _ in range(TRANSACTIONS):
                task(writer)

        with ThreadPoolExecutor(WRITERS) as pool:
            doing = [pool.submit(work, writer) for writer in self.writers]
            meanwhile()
            for one in doing:
                one.result()
        total: Counter[str] = Counter()
        for writer in self.writers:
            total += writer.outcomes
            writer.outcomes.clear()
        return total

    def check(self) -> None:
        for name in self.queries:
            assert differences(self.conn, name) == [], name

    def share(self, number: int = 0) -> None:
        """Have turns shared as if it had just been earned: nobody has them, in part or whole, meanwhile."""
        found = self.conn.execute("SELECT pgt_name, pgt_id FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id DESC")
        numbers = {name: number for name, number in found if SHARED[name][0]}
        for name, identifier in numbers.items():
            sources = SHARED[name][0]
            turn, slots, side = (
                sql.Identifier("pgtrickle_changes", f"{kind}_{identifier}") for kind in ("turn", "slots", "side")
            )
            with self.conn.transaction():
                self.conn.execute(sql.SQL("SELECT FROM {} FOR UPDATE").format(turn))
                self.conn.execute(sql.SQL("SELECT FROM {} ORDER BY slot FOR UPDATE").format(slots))
                self.conn.execute(
                    "SELECT setval(%s, %s::regclass::oid::bigint)",
                    (side.as_string(self.conn), sources[number % len(sources)]),
                )
        for writer in self.writers:
            writer.shared = tuple(numbers.values())
            # Older snapshots never share.
            writer.levels = (*LEVELS, *["READ COMMITTED"] * 5)


@pytest.fixture
def soak(database: Any) -> Soak:
    return Soak(database, SEED, QUERIES)


@pytest.fixture
def sharing(database: Any) -> Soak:
    found = Soak(database, SEED, {name: query for name, (_, query) in SHARED.items()})
    found.share()
    return found


def test_single_statements_do_not_deadlock(soak: Soak) -> None:
    outcomes = soak.run(lambda writer: writer.transact(writer.ordered(1)))
    soak.check()
    assert outcomes["one: 40P01"] == 0, outcomes
    # Of those with older snapshots, most meet somebody who has committed since.
    assert outcomes["one: done"] > outcomes.total() // 3, outcomes


def test_single_statements_that_share_turns_do_not_deadlock(sharing: Soak) -> None:
    """None comes to another source when it has begun, so they share to the end."""
    outcomes: Counter[str] = Counter()
    # How many meet others at work depends on what else the machine does, so there is a second chance.
    for _ in range(2):
        outcomes += sharing.run(lambda writer: writer.transact(writer.ordered(1)))
        if outcomes["shared"] >= TRANSACTIONS:
            break
    sharing.check()
    assert outcomes["one: 40P01"] == 0, outcomes
    assert outcomes["shared"] >= TRANSACTIONS, outcomes
    sides = sharing.conn.execute("SELECT last_value FROM pg_sequences WHERE sequencename LIKE 'side\\_%'").fetchall()
    assert sides == sharing.conn.execute("SELECT 'stock'::regclass::oid::bigint FROM generate_series(1, 4)").fetchall()


def test_transactions_that_share_turns_and_need_them_whole(sharing: Soak) -> None:
    """Sharing ends again and again, in the middle of transactions, and begins anew."""

    def share() -> None:
        for number in range(TRANSACTIONS):
            sharing.share(number)

    outcomes = sharing.run(lambda writer: writer.transact(writer.any_order()), share)
    sharing.check()
    assert outcomes["shared"] > 0, outcomes
    assert outcomes["several: done"] > outcomes.total() // 10, outcomes


def test_transactions_in_one_order_hardly_ever_deadlock(soak: Soak) -> None:
    outcomes = soak.run(lambda writer: writer.transact(writer.ordered(4)))
    soak.check()
    assert outcomes["several: 40P01"] <= outcomes.total() // 20, outcomes


def test_whatever_is_written_and_switched_meanwhile(soak: Soak) -> None:
    """Only a deadlock, or a snapshot that is too old, ends a transaction."""

    def again(action: Callable[..., object], *arguments: Any, **named: Any) -> None:
        while True:
            try:
                action(soak.conn, *arguments, **named)
                return
            except EXPECTED:
                continue

    def switch() -> None:
        for name in ("totals", "named", "sold", "above"):
            again(pg_trickle.alter_stream_table, name, refresh_mode="AUTO")
            again(pg_trickle.refresh_stream_table, name)
            again(pg_trickle.alter_stream_table, name, refresh_mode="IMMEDIATE")
            again(pg_trickle.suspend_stream_table, name)
            again(pg_trickle.resume_stream_table, name)

    outcomes = soak.run(lambda writer: writer.transact(writer.any_order()), switch)
    soak.check()
    assert outcomes["several: done"] > outcomes.total() // 5, outcomes
