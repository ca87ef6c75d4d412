"""TPC-DS as scripts for ``python -m tests.regress``: a schema with its data, and each of the 99 queries.

    python -m tests.regress.tpcds DIRECTORY --scale 0.02
    python -m tests.regress DIRECTORY q14 q64

Data and queries are those of DuckDB's generator, which is no part of this project: ``pip install duckdb==0.9.2`` (later
wheels are without it).  The server must be able to read the directory.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEYS = {
    "store_sales": "ss_item_sk, ss_ticket_number",
    "catalog_sales": "cs_item_sk, cs_order_number",
    "web_sales": "ws_item_sk, ws_order_number",
    "store_returns": "sr_item_sk, sr_ticket_number",
    "catalog_returns": "cr_item_sk, cr_order_number",
    "web_returns": "wr_item_sk, wr_order_number",
    "inventory": "inv_date_sk, inv_item_sk, inv_warehouse_sk",
}
"""Of the fact tables; a dimension's key is its first column."""
_DAYS = re.compile(r"\binterval (\d+) days", re.IGNORECASE)


def main(arguments: list[str]) -> int:
    """Write the scripts."""
    parser = argparse.ArgumentParser(prog="python -m tests.regress.tpcds", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--scale", type=float, default=0.02)
    options = parser.parse_args(arguments)
    scripts, data = options.directory / "sql", options.directory / "data"
    for place in (scripts, data):
        place.mkdir(parents=True, exist_ok=True)
    made = importlib.import_module("duckdb").connect()
    made.execute(f"CALL dsdgen(sf={options.scale})")
    (scripts / "test_setup.sql").write_text("\n".join(_tables(made, data.absolute())))
    for number, query in made.execute("SELECT query_nr, query FROM tpcds_queries()").fetchall():
        (scripts / f"q{number:02}.sql").write_text(_DAYS.sub(r"interval '\1 days'", query))
    return 0


def _tables(made: Any, data: Path) -> Iterator[str]:
    """Statements that make and fill the tables, with keys and an index on every reference to one."""
    for (table,) in made.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall():
        made.execute(f"COPY {table} TO '{data}/{table}.csv' (HEADER false)")
        columns = made.execute(f"SELECT name, type FROM pragma_table_info('{table}') ORDER BY cid").fetchall()
        yield f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns)});"
        yield f"COPY {table} FROM '{data}/{table}.csv' (FORMAT csv);"
        yield f"ALTER TABLE {table} ADD PRIMARY KEY ({KEYS.get(table, columns[0][0])});"
        yield from (f"CREATE INDEX ON {table} ({name});" for name, _ in columns[1:] if name.endswith("_sk"))
        yield f"ANALYZE {table};"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
