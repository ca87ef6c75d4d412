"""Two tables with their change buffers, filled so that old, new and change are known, and Z-sets read from plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from pg_trickle.algebra.plan import Plan
from pg_trickle.algebra.source import Empty, Field, Scan, Source
from pg_trickle.render.parts import WEIGHT
from pg_trickle.render.select import CommonTables
from pg_trickle.rewrite.specialise import specialised
from pg_trickle.scalar import INT4, NUMERIC, Column, Identity, Type

JSON = Type("json", Identity.NONE, hashable=False)
COLUMNS = {"a": INT4, "b": INT4, "x": NUMERIC, "j": JSON}
SOURCES = {
    "r": Source(11, "public", "r", "changes_11", indexed=("a",)),
    "s": Source(12, "public", "s", "changes_12"),
}

# The last refresh, in transaction 104 and up to change 1000 of each buffer, saw all below 105 but 100 and 102.
FRONTIER = ("100:105:100,102", "104", Jsonb({"11": 1000, "12": 1000}))
UNSEEN = (("102", 7), ("104", 1001), ("105", 900), ("250", 2000))
SEEN = (("50", 9), ("101", 1), ("103", 5000), ("104", 1000))

Row = tuple[int | None, int | None, str | None, str]
ZSet = dict[tuple[str | None, ...], int]


@dataclass(frozen=True)
class Contents:
    """A table as it is and the changes that made it so: stay + go became stay + come.

    ``passing`` came and went within the interval; ``past`` are changes from before it, which must be overlooked.
    """

    stay: list[Row]
    go: list[Row]
    come: list[Row]
    passing: list[Row]
    past: list[tuple[Row, int]]
    places: list[int]


# Few values and many nulls: rows must collide, or no group has two of them.  Some numbers are equal, but not identical.
keys = st.none() | st.integers(0, 3)
rows = st.lists(
    st.tuples(keys, keys, st.none() | st.sampled_from(["1", "1.0", "1.00", "2.5", "-3"]), st.sampled_from(["1", "[]"])),
    max_size=5,
)
contents = st.builds(
    Contents,
    stay=rows,
    go=rows,
    come=rows,
    passing=rows,
    past=rows.map(lambda found: [(row, -1 if place % 2 else 1) for place, row in enumerate(found)]),
    places=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)


def scan(table: str, alias: str, columns: str = "abx") -> Scan:
    """A scan of r or s whose columns are named after the alias."""
    return Scan(SOURCES[table], tuple(Field(Column(f"{alias}_{name}", COLUMNS[name]), name, name) for name in columns))


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Make the tables and buffers."""
    conn.execute("CREATE SCHEMA IF NOT EXISTS pgtrickle_changes")
    for name, source in SOURCES.items():
        conn.execute(
            sql.SQL("CREATE TABLE {table} (a int, b int, x numeric, j json)").format(table=sql.Identifier(name))
        )
        conn.execute(
            sql.SQL(
                "CREATE TABLE pgtrickle_changes.{buffer} (xid xid8 NOT NULL, seq bigint NOT NULL, w smallint NOT NULL,"
                " a int, b int, x numeric, j json)"
            ).format(buffer=sql.Identifier(source.buffer))
        )


def fill(conn: psycopg.Connection[Any], tables: dict[str, Contents]) -> None:
    """Put contents into the tables, and what led to them into the buffers."""
    for name, table in tables.items():
        changes = [(row, -1) for row in table.go] + [(row, 1) for row in table.come]
        changes += [(row, w) for row in table.passing for w in (1, -1)]
        new = [(*UNSEEN[table.places[n % len(table.places)]], w, *row) for n, (row, w) in enumerate(changes)]
        past = [(*SEEN[n % len(SEEN)], w, *row) for n, (row, w) in enumerate(table.past)]
        with conn.cursor() as cursor:
            cursor.executemany(
                sql.SQL("INSERT INTO {table} VALUES (%s, %s, %s, %s)").format(table=sql.Identifier(name)),
                table.stay + table.come,
            )
            cursor.executemany(
                sql.SQL("INSERT INTO pgtrickle_changes.{buffer} VALUES (%s, %s, %s, %s, %s, %s, %s)").format(
                    buffer=sql.Identifier(SOURCES[name].buffer)
                ),
                new + past,
            )


def net_change(table: Contents) -> ZSet:
    """What led from old to new, as the texts of all columns and the weight."""
    found: ZSet = {}
    for row, weight in [(row, -1) for row in table.go] + [(row, 1) for row in table.come]:
        shown = tuple(None if value is None else str(value) for value in row)
        found[shown] = found.get(shown, 0) + weight
    return {row: weight for row, weight in found.items() if weight}


def zset(conn: psycopg.Connection[Any], plan: Plan) -> ZSet:
    """What a plan denotes: the text of each row, and its weight."""
    found: ZSet = {}
    for *row, weight in weighted(conn, plan):
        found[tuple(row)] = found.get(tuple(row), 0) + weight
    return {row: weight for row, weight in found.items() if weight}


def weighted(conn: psycopg.Connection[Any], plan: Plan) -> list[tuple[Any, ...]]:
    """The plan's rows as its SQL yields them, weights at the end."""
    plan = specialised(plan, lambda _: True)  # what is empty whatever changed can't be printed
    if isinstance(plan, Empty):
        return []
    common = CommonTables((plan,))
    rows = common.select(plan)
    query = sql.SQL("{ctes}SELECT {columns} FROM ({rows}) AS q").format(
        ctes=common.with_clause(),
        columns=sql.SQL(", ").join([*(_text(column) for column in plan.columns), WEIGHT]),
        rows=rows,
    )
    return psycopg.RawCursor(conn).execute(query, FRONTIER if "$1" in query.as_string(conn) else None).fetchall()


def _text(column: Column) -> sql.Composable:
    """A value so that values print alike if and only if the column's type takes them for the same."""
    equal = column.type.name == "numeric" and column.type.identity is Identity.EQUAL
    template = sql.SQL("trim_scale({name})::text") if equal else sql.SQL("{name}::text")
    return template.format(name=sql.Identifier(column.name))
