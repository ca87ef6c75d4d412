"""How long after a commit the change is in the stream table, with a worker running."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import pg_trickle
from bench.measure import Spread
from pg_trickle.testing.playground import prepare, start_worker
from pg_trickle.testing.server import EmbeddedServer

Connection = psycopg.Connection[Any]

CHAIN = 10
GIVE_UP_SECONDS = 60
WORKER_STOP_SECONDS = 10


@contextmanager
def running_worker(server: EmbeddedServer, dbname: str) -> Iterator[None]:
    """A worker as a process of its own, as in production."""
    prepare(server, dbname)
    with tempfile.TemporaryDirectory() as directory:
        worker = start_worker(server, Path(directory) / "worker.log", dbname=dbname)
        try:
            yield
        finally:
            worker.end(signal.SIGTERM, signal.SIGKILL, seconds_each=WORKER_STOP_SECONDS)


def latency(writer: Connection, reader: Connection, samples: int) -> Spread:
    """From the commit of one changed order to the row in a stream table over the 3-way join."""
    pg_trickle.create_stream_table(
        writer,
        "seen",
        """
        SELECT o.id, c.name, p.category, o.qty
          FROM orders AS o
          JOIN customers AS c ON c.id = o.customer_id
          JOIN products  AS p ON p.id = o.product_id
         WHERE o.qty > 5
        """,
    )
    spread = _sample(writer, reader, "seen", samples)
    pg_trickle.drop_stream_table(writer, "seen")
    return spread


def chain(writer: Connection, reader: Connection, samples: int) -> Spread:
    """The same through stream tables each of which reads the one before."""
    below = "orders"
    names = [f"link_{place}" for place in range(1, CHAIN + 1)]
    for name in names:
        query = sql.SQL("SELECT id, customer_id, qty FROM {below} WHERE qty > 5").format(below=sql.Identifier(below))
        pg_trickle.create_stream_table(writer, name, query.as_string(None))
        below = name
    spread = _sample(writer, reader, names[-1], samples)
    for name in reversed(names):
        pg_trickle.drop_stream_table(writer, name)
    return spread


def crowd(writer: Connection, reader: Connection, samples: int, *, others: int) -> Spread:
    """As ``latency``, among others that hang together with it by customers, and have nothing to do."""
    for place in range(others // 2):
        writer.execute(sql.SQL("CREATE TABLE {notes} (id int PRIMARY KEY, customer_id int)").format(notes=_side(place)))
        queries = (
            "SELECT n.id, c.name FROM {notes} AS n JOIN customers AS c ON c.id = n.customer_id",
            "SELECT customer_id, count(*) AS n FROM {notes} GROUP BY customer_id",
        )
        for name, query in zip(("of", "by"), queries, strict=True):
            text = sql.SQL(query).format(notes=_side(place)).as_string(None)
            pg_trickle.create_stream_table(writer, f"notes_{name}_{place}", text)
    spread = latency(writer, reader, samples)
    for place in range(others // 2):
        for name in ("of", "by"):
            pg_trickle.drop_stream_table(writer, f"notes_{name}_{place}")
        writer.execute(sql.SQL("DROP TABLE {notes}").format(notes=_side(place)))
    return spread


def _side(place: int) -> sql.Identifier:
    return sql.Identifier(f"notes_{place}")


def _sample(writer: Connection, reader: Connection, table: str, samples: int) -> Spread:
    found = writer.execute("SELECT max(id) FROM orders").fetchone()
    first = 1 + (found[0] if found else 0)
    chance = random.Random(1)
    seek = sql.SQL("SELECT FROM {table} WHERE id = %s").format(table=sql.Identifier(table))
    times = []
    for number in range(first, first + samples + 1):
        # Writers don't keep step with the worker's clock.
        time.sleep(chance.uniform(0.01, 0.06))
        writer.execute("INSERT INTO orders VALUES (%s, 1, 1, 9, 1, now())", (number,))
        times.append(_until(partial(_is_there, reader, seek, number)))
    return Spread.of(times[1:])


def _is_there(reader: Connection, seek: sql.Composed, number: int) -> bool:
    return reader.execute(seek, (number,), prepare=True).rowcount == 1


def _until(is_there: Callable[[], bool]) -> float:
    """Milliseconds until it is there."""
    began = time.perf_counter()
    while not is_there():
        if time.perf_counter() - began > GIVE_UP_SECONDS:
            raise TimeoutError("the change never reached the stream table: is the worker alive?")
    return (time.perf_counter() - began) * 1000
