"""TPC-H's 22 queries: what a refresh costs against running the query again."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import pg_trickle
from bench.measure import Cost, alternating, cost_of
from bench.refresh import clean_buffers, refresh
from tests.tpch.data import generate, load, queries

Connection = psycopg.Connection[Any]

SHARES = (0.001, 0.01)
# A program stands from the second refresh of its size on, and is planned at the next.
WARM_UPS = 3

# Orders that are touched, shared out evenly among what befalls them.
PICK = """
CREATE TEMPORARY TABLE picked ON COMMIT DROP AS
SELECT o_orderkey AS key, row_number() OVER (ORDER BY random()) %% %(fates)s AS fate
  FROM orders WHERE random() < %(picked)s AND o_orderkey < 100000000
"""
COME_AND_GO = (
    """
    INSERT INTO orders
    SELECT o_orderkey + 100000000, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority, o_clerk,
           o_shippriority, o_comment
      FROM orders JOIN picked ON key = o_orderkey WHERE fate = 0
        ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO lineitem
    SELECT l_orderkey + 100000000, l_partkey, l_suppkey, l_linenumber, l_quantity, l_extendedprice, l_discount, l_tax,
           l_returnflag, l_linestatus, l_shipdate, l_commitdate, l_receiptdate, l_shipinstruct, l_shipmode, l_comment
      FROM lineitem JOIN picked ON key = l_orderkey WHERE fate = 0
        ON CONFLICT DO NOTHING
    """,
    "DELETE FROM lineitem USING picked WHERE key = l_orderkey AND fate = 1",
    "DELETE FROM orders USING picked WHERE key = o_orderkey AND fate = 1",
)
CHANGES = (
    """
    UPDATE lineitem
       SET l_quantity = 1 + floor(random() * 50), l_discount = round((random() / 10)::numeric, 2),
           l_shipdate = l_shipdate + 30 - floor(random() * 60)::int,
           l_receiptdate = l_commitdate, l_commitdate = l_receiptdate
      FROM picked WHERE key = l_orderkey AND fate = 2
    """,
    """
    UPDATE orders
       SET o_orderdate = o_orderdate + 30 - floor(random() * 60)::int, o_orderstatus = 'F',
           o_custkey = 1 + floor(random() * %(customers)s)::int
      FROM picked WHERE key = o_orderkey AND fate = 2
    """,
    "UPDATE customer SET c_acctbal = -c_acctbal, c_mktsegment = 'BUILDING' WHERE random() < %(share)s",
    "UPDATE part SET p_size = 1 + floor(random() * 50), p_container = 'MED BOX' WHERE random() < %(share)s",
    """
    UPDATE partsupp SET ps_supplycost = 1001 - ps_supplycost, ps_availqty = 1 + floor(random() * 9999)
     WHERE random() < %(share)s
    """,
    "UPDATE supplier SET s_acctbal = -s_acctbal, s_nationkey = floor(random() * 25) WHERE random() < %(share)s",
)


@dataclass(frozen=True, slots=True)
class Churn:
    """What one transaction does: with so many shares of all orders one of as many things each, by these statements."""

    title: str
    shares: int
    fates: int
    statements: tuple[str, ...]


# Of orders with their lines a third of the share comes, a third goes and a third changes, as do four other tables.
ALL_TABLES = Churn("six tables change", 1, 3, COME_AND_GO + CHANGES)
# Of orders with their lines half of the share comes and half goes.
ORDERS = Churn("orders come and go", 1, 2, COME_AND_GO)
# The specification's two refresh functions: the share comes, and as much goes.
REFRESH_FUNCTIONS = Churn("both refresh functions", 2, 2, COME_AND_GO)
CHURNS = (ALL_TABLES, ORDERS, REFRESH_FUNCTIONS)


@dataclass(frozen=True, slots=True)
class Result:
    """One query after one churn of one share of the rows: by its changes, and anew."""

    name: str
    churn: str
    share: float
    differential: Cost
    recomputed: Cost


def compare(
    conn: Connection,
    scale: float,
    repetitions: int,
    report: Callable[[str], None],
    shares: tuple[float, ...] = SHARES,
) -> list[Result]:
    """Every query after each churn of every share; all stream tables live side by side, on the same changes."""
    prepare(conn, scale, report)
    names = create(conn, scale, report)
    results = []
    for churn, share in itertools.product(CHURNS, shares):
        _warm_up(conn, churn, share, names)
        measured = alternating(repetitions, partial(change, conn, share, churn), _contenders(conn, names))
        found = [Result(name, churn.title, share, measured[name], measured[_plain(name)]) for name in names]
        for one in found:
            report(line(one))
        results += found
    for name in names:
        verdict = pg_trickle.verify_stream_table(conn, name)
        if not verdict.ok:
            raise AssertionError(f"{name} lacks {verdict.missing} rows and has {verdict.extra} too many")
    return results


def _warm_up(conn: Connection, churn: Churn, share: float, names: list[str]) -> None:
    """As in a session that has refreshed for a while: programs stand, tables are vacuumed, and then plans are made."""
    for done in range(WARM_UPS):
        if done == WARM_UPS - 1:
            conn.execute("VACUUM ANALYZE")
        change(conn, share, churn)
        for name in names:
            refresh(conn, name)()


def line(one: Result) -> str:
    ratio = one.recomputed / one.differential
    return (
        f"{one.name}, {one.share:.1%}, {one.churn}:"
        f" {one.differential.cpu:8.1f} ms CPU, {one.differential.wall:8.1f} ms;"
        f" REFRESH {one.recomputed.cpu:8.1f} ms CPU: {ratio.cpu:.1f}x CPU, {ratio.wall:.1f}x"
    )


def prepare(conn: Connection, scale: float, report: Callable[[str], None]) -> None:
    """Generate and load."""
    report(f"loading TPC-H at scale {scale:g}")
    conn.execute("SELECT setseed(0.5)")
    with tempfile.TemporaryDirectory() as directory:
        generate(scale, Path(directory))
        load(conn, Path(directory))


def create(conn: Connection, scale: float, report: Callable[[str], None], only: Iterable[str] = ()) -> list[str]:
    """A stream table and a materialized view of each query; the names of those that are maintained by their changes."""
    made = []
    for name, query in queries(scale).items():
        if only and name not in only:
            continue
        try:
            pg_trickle.create_stream_table(conn, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
        except psycopg.errors.FeatureNotSupported as exc:
            report(f"{name}: {exc.diag.message_primary}")
            continue
        create_view = sql.SQL("CREATE MATERIALIZED VIEW {v} AS {q}")
        conn.execute(create_view.format(v=sql.Identifier(_plain(name)), q=sql.SQL(query)))
        made.append(name)
    conn.execute("VACUUM ANALYZE")
    return made


def _plain(name: str) -> str:
    return f"{name}_plain"


def _contenders(conn: Connection, names: list[str]) -> dict[str, Callable[[], Cost]]:
    found: dict[str, Callable[[], Cost]] = {}
    for name in names:
        found[name] = refresh(conn, name)
        found[_plain(name)] = _again(conn, name)
    return found


def _again(conn: Connection, name: str) -> Callable[[], Cost]:
    statement = sql.SQL("REFRESH MATERIALIZED VIEW {v}").format(v=sql.Identifier(_plain(name)))
    return lambda: cost_of(conn, lambda: conn.execute(statement))


def change(conn: Connection, share: float, churn: Churn = ALL_TABLES) -> None:
    """Change that share of the rows in one transaction."""
    clean_buffers(conn)
    found = conn.execute("SELECT count(*) FROM customer").fetchone()
    values = {
        "share": share,
        "picked": share * churn.shares,
        "fates": churn.fates,
        "customers": found and found[0],
    }
    with conn.transaction():
        conn.execute(PICK, values)
        conn.execute("ANALYZE picked")
        for statement in churn.statements:
            conn.execute(statement, values)
