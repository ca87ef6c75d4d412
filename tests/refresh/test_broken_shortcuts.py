"""What spares work, broken once in each way: ranges, orders, restrictions, and what spelling is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle import ranges
from pg_trickle.parse import expressions, inverse, near, spelling, timed
from pg_trickle.render import select, turned
from pg_trickle.rewrite import restrict
from pg_trickle.scalar import BOOL, Type, composed
from pg_trickle.testing.oracle import differences
from tests.refresh.test_ranges import SETUP, looked_up
from tests.upkeep import refresh_is_noticed

Connection = psycopg.Connection[Any]
Break = Callable[[pytest.MonkeyPatch], None]

SPELT = "CREATE TABLE u (k int PRIMARY KEY, n numeric, t interval); INSERT INTO u VALUES (1, 1.00, '1 day')"
RESPELT = "INSERT INTO u VALUES (2, 1.0, '24:00:00'); DELETE FROM u WHERE k = 1"
# Who was there at the last refresh, two hours ago, is what the condition gave then.
TIMES = """CREATE TABLE t (id int, ts timestamptz, d date);
INSERT INTO t SELECT n, now() - n * interval '20 min', CURRENT_DATE - n FROM generate_series(-9, 9) AS n"""
ASKED = """CREATE TABLE o (id int PRIMARY KEY, shop int, n int); CREATE INDEX ON o (shop);
CREATE TABLE w (shop int, wanted bool); CREATE INDEX ON w (shop);
INSERT INTO o SELECT n, n % 5, n FROM generate_series(1, 30) AS n;
INSERT INTO w VALUES (1, true), (2, true), (3, false)"""
ABOVE = "SELECT shop, {v} AS v FROM sales GROUP BY shop HAVING {v} > (SELECT 0.03 * {v} FROM sales)"

TEXT_OF_A_GROUP = "SELECT n::text AS n FROM (SELECT n FROM u GROUP BY n) AS g"
SPAN_OF_A_GROUP = "SELECT extract(hour FROM t) AS h, count(*) AS c FROM u GROUP BY t"
BEFORE = "SELECT id FROM t WHERE ts < now()"
EITHER = "SELECT id FROM t WHERE ts > now() OR (ts > now() - interval '1 hour' AND ts < now() - interval '1 minute')"
DAYS = "SELECT id, CURRENT_DATE - d AS days FROM t"
RESTRICTED = (
    "SELECT w.shop, g.s FROM w JOIN (SELECT shop, sum(n) AS s FROM o GROUP BY shop) AS g USING (shop) WHERE w.wanted"
)
# Made before and written after: (tables, what happens to them).
ROUNDS = {
    TEXT_OF_A_GROUP: (SPELT, RESPELT),
    SPAN_OF_A_GROUP: (SPELT, RESPELT),
    BEFORE: (TIMES, "two hours pass"),
    EITHER: (TIMES, "two hours pass"),
    DAYS: (TIMES, "two days pass"),
    RESTRICTED: (
        ASKED,
        "INSERT INTO w VALUES (1, true), (4, true); UPDATE o SET n = n + 1 WHERE shop = 1; DELETE FROM o WHERE id = 2",
    ),
}


def is_noticed_of(conn: Connection, query: str) -> bool:
    """Whether what happens is enough to notice that something is wrong with a query's stream table."""
    setup, happens = ROUNDS[query]
    conn.execute(setup.encode())
    pg_trickle.create_stream_table(conn, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    with conn.transaction():
        if happens.endswith("pass"):
            _pass(conn, query, interval=happens.removesuffix(" pass"))
        else:
            conn.execute(happens.encode())
        return refresh_is_noticed(conn, "st")


def _pass(conn: Connection, query: str, interval: str) -> None:
    """As if the stream table had been refreshed that long ago, when it gave what it gave."""
    since = {"two hours": "2 hours", "two days": "2 days"}[interval]
    was = query.replace("now()", f"(now() - interval '{since}')").replace("CURRENT_DATE", "(CURRENT_DATE - 2)")
    conn.execute(f"UPDATE pgtrickle.pgt_stream_tables SET frontier_time = frontier_time - interval '{since}'".encode())
    conn.execute("DELETE FROM st")
    conn.execute(f"INSERT INTO st {was}".encode())


@pytest.mark.parametrize("query", ROUNDS)
def test_unbroken_it_is_right(db: Connection, query: str) -> None:
    assert not is_noticed_of(db, query)


def _replaced(module: object, name: str, broken: Callable[[Any], Any]) -> Break:
    return lambda patch: patch.setattr(module, name, broken(getattr(module, name)))


def _from_now_on(whole: Any) -> Any:
    def passed(*of: Any) -> Any:
        between = whole(*of)
        return replace(between, low=between.high)

    return passed


def _never(_: Any) -> Any:
    return lambda node, parse: composed(sql.SQL("FALSE"), frozenset(), BOOL)


BREAKS: dict[str, tuple[str, Break]] = {
    "a spelling that nobody tells": (
        TEXT_OF_A_GROUP, _replaced(expressions, "_told_within", lambda _: lambda parts, loose: None)),
    "a cast to text taken for blind to decimals": (
        TEXT_OF_A_GROUP, _replaced(spelling, "_is_blind_to_decimals", lambda _: lambda node: True)),
    "a span taken for what one spelling is known of": (
        SPAN_OF_A_GROUP, _replaced(spelling, "_is_blind", lambda _: lambda node: True)),
    "a group whose key is believed to read one way": (
        TEXT_OF_A_GROUP, lambda patch: patch.setattr(Type, "of_group", property(lambda self: self))),
    "a range of time that has one end": (
        BEFORE, _replaced(inverse, "_passed", _from_now_on)),
    "of two ranges of time the first": (
        EITHER, _replaced(near, "_joined", lambda whole: lambda by, found: whole(by, found[:1]))),
    "days that never pass": (
        DAYS, _replaced(near, "_turned", _never)),
    "what was before taken for now": (
        BEFORE, _replaced(timed, "before", lambda _: lambda node: node)),
    "changes sorted by what another table holds": (
        RESTRICTED, _replaced(select, "consolidated", lambda whole: lambda columns, rows, *rest: whole(
            columns, rows, *rest[:1], ("elsewhere",)))),
    "groups restricted by rows of which several ask": (
        RESTRICTED, _replaced(restrict, "keys", lambda _: lambda plan: tuple(
            frozenset((one.name,)) for one in plan.columns))),
}  # fmt: skip


@pytest.mark.parametrize(("query", "broken"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_noticed(db: Connection, monkeypatch: pytest.MonkeyPatch, query: str, broken: Break) -> None:
    broken(monkeypatch)
    assert is_noticed_of(db, query)


UNUSED: dict[str, Break] = {
    "a sum taken for a mean": _replaced(
        ranges, "_summed", lambda whole: lambda *of: (replace(one, is_mean=not one.is_mean) for one in whole(*of))
    ),
    "a sum without its count": _replaced(
        ranges, "_summed", lambda whole: lambda *of: (replace(one, count=None, nan=None) for one in whole(*of))
    ),
    "no value that is found by a range": _replaced(ranges, "found_by_range", lambda _: lambda mark: None),
    "a range that is not looked for": _replaced(turned, "_compared", lambda _: lambda plan, split: None),
}


@pytest.mark.parametrize("broken", [lambda patch: None, *UNUSED.values()], ids=["unbroken", *UNUSED])
def test_an_index_that_leads_nowhere_is_noticed(db: Connection, monkeypatch: pytest.MonkeyPatch, broken: Break) -> None:
    """The rows are right all the same: what tells is that nothing was looked up."""
    broken(monkeypatch)
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", ABOVE.format(v="sum(price)"), schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("SET enable_seqscan = off")
    db.execute("UPDATE sales SET price = price + 1 WHERE shop = 7")
    pg_trickle.refresh_stream_table(db, "st")
    assert differences(db, "st") == []
    assert bool(looked_up(db)) == (broken not in UNUSED.values())
