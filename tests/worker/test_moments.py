"""A reader never sees two moments, while stream tables are created, altered and dropped and sources are written."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, sql

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]

CONFLICTS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
ACTIONS = 25


@pytest.fixture
def clocks(db: Connection, worker: Any) -> Connection:
    """Two clocks, a stream table on each and one on both; the reader knows by c which clock a table shows."""
    for clock in (1, 2):
        db.execute(f"CREATE TABLE clock_{clock} (n int NOT NULL)".encode())
        db.execute(f"INSERT INTO clock_{clock} VALUES (0)".encode())
        pg_trickle.create_stream_table(db, f"s{clock}", f"SELECT {clock} AS c, n FROM clock_{clock}")
    pair = "SELECT 1 AS c, n FROM clock_1 UNION ALL SELECT 2, n FROM clock_2"
    pg_trickle.create_stream_table(db, "pair", pair)
    pg_trickle.create_stream_table(db, "met", "SELECT a.n AS one, b.n AS two FROM clock_1 AS a CROSS JOIN clock_2 AS b")
    worker.wait_until_idle()
    return db


def tick(conn: Connection, dice: random.Random) -> None:
    """One clock, the other or both, in one transaction."""
    with conn.transaction():
        for clock in dice.choice([(1,), (2,), (1, 2), (2, 1)]):
            conn.execute(f"UPDATE clock_{clock} SET n = n + 1".encode())


def look(conn: Connection) -> dict[tuple[int, int], list[str]]:
    """What the stream tables show in one snapshot: each clock one time, or there are more than two keys."""
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    with conn.transaction():
        names = conn.execute("SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE pgt_name <> 'met'").fetchall()
        parts = [
            sql.SQL("SELECT c, n, {text} FROM {name}").format(text=sql.Literal(name), name=sql.Identifier(name))
            for (name,) in names
        ]
        parts += [sql.SQL(part).format() for part in ("SELECT 1, one, 'met' FROM met", "SELECT 2, two, 'met' FROM met")]
        seen: dict[tuple[int, int], list[str]] = {}
        for clock, n, name in conn.execute(sql.SQL(" UNION ALL ").join(parts)):
            seen.setdefault((clock, n), []).append(name)
        return seen


@dataclass
class Changer:
    """Creates stream tables on others, alters them to read others, and drops them."""

    conn: Connection
    dice: random.Random
    reads: dict[str, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    def act(self) -> None:
        leaves = [name for name in self.reads if name not in self.reads.values()]
        action = self.dice.choice(["create", "create", "alter", "drop"] if leaves else ["create"])
        name = f"m{sum(self.done.values())}" if action == "create" else self.dice.choice(leaves)
        source = self.dice.choice(["s1", "s2", "pair", *(one for one in self.reads if one != name)])
        try:
            if action == "create":
                pg_trickle.create_stream_table(self.conn, name, f"SELECT c, n FROM {source}")
            elif action == "alter":
                pg_trickle.alter_stream_table(self.conn, name, query=f"SELECT c, n + 0 AS n FROM {source}")
            else:
                pg_trickle.drop_stream_table(self.conn, name)
        except CONFLICTS:
            self.done["conflict"] += 1
            return
        self.done[action] += 1
        if action == "drop":
            del self.reads[name]
        else:
            self.reads[name] = source


@pytest.mark.property
@pytest.mark.parametrize("seed", [1, 2])
def test_each_clock_shows_one_time_wherever_it_is_read(
    clocks: Connection, worker: Any, database: Any, assert_fresh: Any, seed: int
) -> None:
    stop = threading.Event()
    wrong: list[object] = []
    times: set[tuple[int, int]] = set()

    def write() -> None:
        conn, dice = database.connect(), random.Random(seed)
        while not stop.is_set():
            tick(conn, dice)

    def read() -> None:
        conn = database.connect()
        while not stop.is_set():
            try:
                seen = look(conn)
            except (psycopg.errors.UndefinedTable, psycopg.errors.InternalError, *CONFLICTS):
                # Dropped since the snapshot.
                continue
            times.update(seen)
            if len(seen) != 2:
                wrong.append(seen)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    changer = Changer(database.connect(), random.Random(seed))
    for thread in threads:
        thread.start()
    try:
        for _ in range(ACTIONS):
            changer.act()
        # On a busy machine fewer moments are seen in the same number of changes.
        worker.wait_for(lambda: len(times) > ACTIONS / 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert min(changer.done[action] for action in ("create", "alter", "drop")) > 0
    assert changer.done["conflict"] < ACTIONS / 4
    worker.wait_until_idle()
    for name in ("s1", "s2", "pair", "met", *changer.reads):
        assert_fresh(clocks, name)
