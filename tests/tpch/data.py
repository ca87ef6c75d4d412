"""TPC-H's tables and queries: the data as the official generator makes it, the queries as the specification words them.

Of the queries' parameters the validation values are used.  Where the specification's ORDER BY leaves
open which rows a LIMIT keeps, the key decides.
"""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

HERE = Path(__file__).parent
TABLES = ("region", "nation", "supplier", "part", "partsupp", "customer", "orders", "lineitem")
NAMES = tuple(f"q{number:02}" for number in range(1, 23))

_COPY: LiteralString = "COPY {table} FROM STDIN (FORMAT csv, HEADER, NULL 'NA')"

Connection = psycopg.Connection[Any]


def queries(scale: float) -> dict[str, str]:
    """The 22 queries for data of that scale: the threshold of the eleventh depends on it."""
    fraction = sql.Literal(Decimal("0.0001") / Decimal(str(scale)))
    return {name: _read(f"queries/{name}.sql").format(fraction=fraction).as_string(None).strip() for name in NAMES}


def generate(scale: float, directory: Path) -> None:
    """Write the eight tables as CSV files."""
    program = Path(sys.executable).parent / "tpchgen-cli"
    command = [str(program), "csv", "--quiet", "--scale-factor", str(scale), "--output-dir", str(directory)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def load(conn: Connection, directory: Path) -> None:
    """Make the tables and fill them from the files."""
    conn.execute(_read("schema.sql"))
    for table in TABLES:
        statement = sql.SQL(_COPY).format(table=sql.Identifier(table))
        with (directory / f"{table}.csv").open("rb") as file, conn.cursor().copy(statement) as copy:
            while block := file.read(1 << 20):
                copy.write(block)
    conn.execute(_read("indexes.sql"))
    conn.execute("VACUUM ANALYZE")


def _read(name: str) -> sql.SQL:
    return sql.SQL((HERE / name).read_text())
