"""The compiler broken, once in each way: the comparison with the query sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from postgast.pg_query_pb2 import AND_EXPR
from psycopg import sql

import pg_trickle
from pg_trickle import programs
from pg_trickle.algebra.join import Join
from pg_trickle.parse import implied, tree
from pg_trickle.render import feed, parts, stage
from pg_trickle.rewrite import reorder
from tests.support.constructs import HERE
from tests.upkeep import is_noticed

Connection = psycopg.Connection[Any]

GROUPED = "SELECT customer_id, count(*) AS n, sum(amount) AS s FROM orders GROUP BY customer_id"
EXTREMES = "SELECT customer_id, max(amount) AS hi FROM orders GROUP BY customer_id"
JOINED = (
    "SELECT c.name, l.qty FROM customers AS c, lines AS l, orders AS o WHERE o.customer_id = c.id AND l.order_id = o.id"
)
NAMES = "SELECT c.region FROM customers AS c JOIN orders AS o ON o.customer_id = c.id"
ARMS = "SELECT id FROM orders WHERE (amount > 15 AND id < 3) OR (amount > 15 AND id > 5)"

TABLES = (
    "SELECT o.id, l.qty FROM orders AS o JOIN lines AS l ON l.order_id = o.id"
    " WHERE (o.amount > 15 AND l.qty > 1) OR (o.amount <= 15 AND l.qty < 3)"
)


@pytest.fixture
def tables(db: Connection) -> Connection:
    db.execute((HERE / "tables.sql").read_text())
    return db


def is_noticed_of(conn: Connection, query: str) -> bool:
    """Whether many changes are enough to notice that something is wrong with a query's stream table."""
    pg_trickle.create_stream_table(conn, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    return is_noticed(conn, "st", [(HERE / "changes.sql").read_text()])


@pytest.mark.parametrize("query", [GROUPED, EXTREMES, JOINED, NAMES, ARMS, TABLES])
def test_unbroken_it_is_right(tables, query):
    assert not is_noticed_of(tables, query)


def _replaced(module: object, name: str, broken: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, broken(getattr(module, name)))


BREAKS = {
    "a stage that counts each change once": (
        GROUPED, _replaced(stage, "counted", lambda whole: lambda one, _: whole(one, sql.SQL("1")))),
    "a stage that doesn't find the group of NULL": (
        GROUPED, _replaced(parts, "_match", lambda _: lambda of, x, y: sql.SQL("{x} = {y}").format(x=x, y=y))),
    "a stage that keeps an extreme value that is gone": (
        EXTREMES, _replaced(stage, "_hit", lambda _: lambda one, store: sql.SQL("FALSE"))),
    "a delta that isn't netted": (
        NAMES, _replaced(programs, "is_net", lambda _: lambda plan: True)),
    "a join that loses a condition on the way": (
        JOINED, _replaced(reorder, "_joined", lambda whole: lambda plans, on: _loose(whole(plans, on)))),
    "an OR of which only the common part is left": (
        ARMS, _replaced(tree, "_factored", lambda whole: lambda node: whole(node)[:1])),
    "an OR that demands of one table what only one arm does": (
        TABLES, _replaced(implied, "combined", lambda whole: lambda _, nodes: whole(AND_EXPR, nodes))),
    "a gate that shuts out what has changed": (
        NAMES, _replaced(feed.Buffers, "gate", lambda _: lambda self, sources: sql.SQL("FALSE"))),
}  # fmt: skip


def _loose(plan: Join) -> Join:
    return replace(plan, on=())


@pytest.mark.parametrize(("query", "broken"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_noticed(tables, monkeypatch, query, broken):
    broken(monkeypatch)
    assert is_noticed_of(tables, query)
