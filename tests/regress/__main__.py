"""PostgreSQL's own regression tests, each query in them as a stream table.

    python -m tests.regress postgresql-18.6/src/test/regress join aggregates window

With ``--twin`` it is their own statements that change the tables, and these have stream tables of their own: each
statement has to do what it does in a database without.

The sources are those of PostgreSQL's distribution (of Debian's: ``apt-get source postgresql-18``); they are no part of
this project.  Without names of scripts all are run, which takes an hour or two.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from pg_trickle.testing import EmbeddedServer, installed_binaries
from tests.regress.changes import KEPT
from tests.regress.scripts import Statement, statements
from tests.regress.trial import Trial, tried
from tests.regress.twin import Beside

Connection = psycopg.Connection[tuple[Any, ...]]

TEMPLATE = "regress_template"
# What others build upon.
FIRST = ("test_setup", "create_misc", "create_type", "create_aggregate", "create_operator", "enum", "point", "path",
         "polygon", "box", "circle", "lseg", "line", "date", "time", "timetz", "timestamp", "timestamptz", "interval",
         "inet")  # fmt: skip
# They concern more than one database, or what comes before a transaction's first statement.
LEFT_OUT = re.compile(
    r"^(vacuum|checkpoint|discard|listen|notify|prepare\s+transaction|set\s+transaction|set\s+default_transaction"
    r"|(create|drop|alter)\s+(tablespace|database|subscription|system)|drop\s+extension|reindex\s+(database|system))",
    re.IGNORECASE,
)
# They would end what a trial needs.
ENDING = re.compile(
    r"^(begin|commit|rollback|start\s+transaction|end\b|savepoint|release|abort|lock\b"
    r"|(set|reset)\s+(local\s+)?session\s+auth)",
    re.IGNORECASE,
)
# Queries are tried in a session of their own, and then in another: each goes on keeping the plans of functions that are
# gone, looks through all of them at each DDL statement, and so gets slower and slower.
RENEWED_AFTER = 10
COPIES_HERE = re.compile(r"^copy\b.*\bstd(in|out)\b", re.IGNORECASE | re.DOTALL)


def main(arguments: list[str]) -> int:
    """Run scripts; 1 if a stream table was wrong, or a refresh failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.regress", description=__doc__)
    parser.add_argument("directory", type=Path, help="PostgreSQL's src/test/regress")
    parser.add_argument("scripts", nargs="*", help="names without .sql (all)")
    parser.add_argument("--mode", default="DIFFERENTIAL", choices=("DIFFERENTIAL", "AUTO", "IMMEDIATE"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--major", type=int, default=installed_binaries()[0].major, help="PostgreSQL's version")
    parser.add_argument("--twin", action="store_true", help="the scripts' own statements, beside a twin")
    options = parser.parse_intermixed_args(arguments)
    names = options.scripts or sorted(path.stem for path in (options.directory / "sql").glob("*.sql"))
    bad = 0
    with ExitStack() as stack:
        servers = [
            stack.enter_context(EmbeddedServer.temporary(options.major, in_memory=True))
            for _ in range(2 if options.twin else 1)
        ]
        for server in servers:
            prepare(server, options.directory)
        for name in names:
            counts: Counter[str] = Counter()
            trials = (
                run_beside(servers, options.directory, name, options.mode)
                if options.twin
                else run(servers[0], options.directory, name, options.mode, Random(f"{name} {options.seed}"))
            )
            for trial in trials:
                counts[trial.verdict] += 1
                if trial.verdict in {"wrong", "failed"}:
                    print(f"{trial.verdict}: {trial.query}\n{trial.detail}\n", flush=True)
            print(name, dict(counts), flush=True)
            bad += counts["wrong"] + counts["failed"]
    return 1 if bad else 0


def prepare(server: EmbeddedServer, directory: Path) -> None:
    """The database from which each script gets its own."""
    server.create_database(TEMPLATE)
    with server.connect(TEMPLATE, autocommit=True) as conn:
        conn.execute(f"CREATE EXTENSION pg_trickle; CREATE SCHEMA {KEPT}")
        for name in FIRST:
            script = directory / "sql" / f"{name}.sql"
            for statement in statements(script, directory) if script.exists() else ():
                if not statement.text.lower().startswith("drop"):
                    _carry_out(conn, statement)


def run(server: EmbeddedServer, directory: Path, name: str, mode: str, chance: Random) -> Iterator[Trial]:
    """What became of each query of a script; its other statements are carried out, whether they can or not."""
    database = _database(name)
    server.create_database(database, TEMPLATE)
    with server.connect(database, autocommit=True) as conn, ExitStack() as stack:
        conn.execute("SET statement_timeout = '20s'")
        seen = set[str]()
        for statement in statements(directory / "sql" / f"{name}.sql", directory):
            query = statement.query
            if query is not None and query not in seen and _is_superuser(conn):
                if len(seen) % RENEWED_AFTER == 0:
                    stack.close()
                    beside = stack.enter_context(server.connect(database, autocommit=True))
                seen.add(query)
                _set_alike(beside, conn)
                trial = tried(beside, query, mode, chance)
                if trial is not None:
                    yield trial
            _carry_out(conn, statement)
    server.drop_database(database)


def run_beside(servers: list[EmbeddedServer], directory: Path, name: str, mode: str) -> Iterator[Trial]:
    """What became of each statement of a script that changes something, on the first server and its twin."""
    database = _database(name)
    with ExitStack() as stack:
        sides = list[Connection]()
        for server in servers:
            server.create_database(database, TEMPLATE)
            sides.append(stack.enter_context(server.connect(database, autocommit=True)))
            sides[-1].execute("SET statement_timeout = '20s'")
        script = statements(directory / "sql" / f"{name}.sql", directory)
        here, there = sides
        yield from Beside(here, there, mode).run(filter(_can_be_carried_out, script))
    for server in servers:
        server.drop_database(database)


def _database(name: str) -> str:
    return f"regress_{re.sub('[^a-z0-9]', '_', name)}"


def _can_be_carried_out(statement: Statement) -> bool:
    is_here = statement.rows is None and COPIES_HERE.match(statement.text)
    return not (LEFT_OUT.match(statement.text) or is_here)


def _carry_out(conn: Connection, statement: Statement) -> None:
    if ENDING.match(statement.text) or not _can_be_carried_out(statement):
        return
    try:
        if statement.rows is None:
            conn.execute(statement.text.encode(), prepare=False)
        else:
            with conn.cursor().copy(statement.text.encode()) as copy:
                copy.write(statement.rows.encode())
    except psycopg.Error:
        # Many are there to fail.
        conn.rollback()


def _set_alike(conn: Connection, other: Connection) -> None:
    """Give a session what has been set in another."""
    conn.execute("RESET ALL")
    for setting in other.execute("SELECT name, setting FROM pg_settings WHERE source = 'session'").fetchall():
        conn.execute("SELECT set_config(%s, %s, false)", setting)


def _is_superuser(conn: Connection) -> bool:
    return conn.execute("SELECT current_user = session_user").fetchone() == (True,)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
