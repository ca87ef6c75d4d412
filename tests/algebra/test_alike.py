"""Joins that are alike become one, ``π(J)``, and neither the query nor its change is another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from psycopg import sql

from pg_trickle.algebra.aggregate import Aggregate
from pg_trickle.algebra.join import Join
from pg_trickle.algebra.linear import Filter
from pg_trickle.algebra.plan import Plan, distinct, names
from pg_trickle.algebra.source import Scan
from pg_trickle.rewrite import alike
from pg_trickle.rewrite.alike import made_alike
from tests.algebra.plans import counted, equal, named, predicate, projected, summed
from tests.algebra.sources import contents, fill, prepare, scan, zset
from tests.algebra.test_broken_laws import LOOKING, _exists

POSITIVE = sql.SQL("{} > 0")


def joined(one: str, other: str, *, turned: bool = False, columns: str = "abx") -> Join:
    """R and S by their first columns, R filtered; turned: the other way round."""
    left = Filter(scan("r", one, columns), (predicate(POSITIVE, f"{one}_b"),))
    right = scan("s", other, columns)
    if turned:
        return Join(right, left, (equal(f"{other}_a", f"{one}_a"),))
    return Join(left, right, (equal(f"{one}_a", f"{other}_a"),))


def compared(around: Join, within: Plan, group: str, of: str) -> Plan:
    """Each row beside what the rows of its group come to."""
    totals = Aggregate(within, (group,), (counted("n"), summed("total", named(within, of))))
    return Join(around, totals, (equal(f"{around.columns[0].name}", group),))


QUERIES = {
    "the same": compared(joined("o", "p"), joined("i", "k"), "i_a", "k_b"),
    "the other way round": compared(joined("o", "p"), joined("i", "k", turned=True), "i_a", "k_b"),
    "with other columns": compared(joined("o", "p", columns="ab"), joined("i", "k"), "i_a", "k_x"),
    "with fewer columns": compared(joined("o", "p"), joined("i", "k", columns="ab"), "i_a", "k_b"),
    "under names of its own": compared(
        joined("o", "p"), projected(joined("i", "k"), ("g", "i_a"), ("v", "k_b")), "g", "v"
    ),
    "below a projection": compared(
        joined("o", "p"),
        Join(
            projected(Filter(scan("r", "i"), (predicate(POSITIVE, "i_b"),)), ("g", "i_a")),
            scan("s", "k"),
            (equal("g", "k_a"),),
        ),
        "g",
        "k_b",
    ),
    "inside a larger one": compared(
        Join(joined("o", "p"), scan("s", "q"), (equal("o_b", "q_a"),)), joined("i", "k"), "i_a", "k_b"
    ),
    "three of them": compared(
        joined("o", "p"), compared(joined("i", "k"), joined("l", "m", columns="ab"), "l_a", "m_b"), "i_a", "k_b"
    ),
}


@pytest.fixture
def conn(bare_database):
    made = bare_database.connect()
    prepare(made)
    return made


@pytest.mark.property
@pytest.mark.parametrize("plan", QUERIES.values(), ids=QUERIES)
@given(r=contents, s=contents)
def test_neither_the_query_nor_its_change_is_another(conn, plan, r, s):
    once = made_alike(plan)
    assert once != plan
    assert names(once) == names(plan)
    with conn.transaction(force_rollback=True):
        fill(conn, {"r": r, "s": s})
        assert zset(conn, once) == zset(conn, plan)
        assert zset(conn, once.delta()) == zset(conn, plan.delta())


@pytest.mark.parametrize("plan", [QUERIES[title] for title in QUERIES if title != "inside a larger one"])
def test_there_is_one_join_left(plan):
    (one,) = {node for node in distinct(made_alike(plan)) if isinstance(node, Join) and _is_of_tables(node)}
    assert isinstance(one, Join)


def _is_of_tables(join: Join) -> bool:
    return not any(isinstance(node, Aggregate) for node in distinct(join))


def _tested(prefix: str, template: sql.SQL) -> Plan:
    return Filter(scan("r", prefix), (predicate(template, f"{prefix}_b"),))


def _never_null(plan: Scan) -> Plan:
    first, *rest = plan.fields
    return replace(plan, fields=(replace(first, column=replace(first.column, not_null=True)), *rest))


BY_FIRST = (equal("i_a", "k_a"),)
OTHERS = {
    "another filter": Join(_tested("i", sql.SQL("{} > 1")), scan("s", "k"), BY_FIRST),
    "no filter": Join(scan("r", "i"), scan("s", "k"), BY_FIRST),
    "a filter that names another's column": Join(
        _tested("i", sql.SQL("{} > 0 AND 'o_b' > ''")), scan("s", "k"), BY_FIRST
    ),
    "other columns": replace(joined("i", "k"), on=(equal("i_a", "k_b"),)),
    "another condition": replace(joined("i", "k"), on=(predicate(sql.SQL("{} < {}"), "i_a", "k_a"),)),
    "another table": Join(_tested("i", POSITIVE), scan("r", "k"), BY_FIRST),
    "what is known not to be NULL": Join(_tested("i", POSITIVE), _never_null(scan("s", "k")), BY_FIRST),
}


@pytest.mark.parametrize("within", OTHERS.values(), ids=OTHERS)
def test_joins_that_differ_stay_two(within):
    plan = compared(joined("o", "p"), within, "i_a", "k_b")
    assert made_alike(plan) is plan


def test_text_within_a_condition_is_no_column():
    """What is compared with a text that reads like a column's name isn't compared with another's."""

    def with_text(one: str, other: str) -> Join:
        tested = Filter(scan("r", one), (predicate(sql.SQL("{} = length('o_b')"), f"{one}_b"),))
        return Join(tested, scan("s", other), (equal(f"{one}_a", f"{other}_a"),))

    alike_ones = compared(with_text("o", "p"), with_text("i", "k"), "i_a", "k_b")
    assert made_alike(alike_ones) != alike_ones
    inside = Filter(scan("r", "i"), (predicate(sql.SQL("{} = length('i_b')"), "i_b"),))
    others = compared(with_text("o", "p"), Join(inside, scan("s", "k"), BY_FIRST), "i_a", "k_b")
    assert made_alike(others) is others


BREAKS = {
    "conditions that nobody compares": ("_told", lambda whole: lambda predicates, known: set()),
    "columns taken for others": ("_one_told", lambda whole: lambda predicate, known: "the same"),
}


@pytest.mark.property
@pytest.mark.parametrize(("name", "broken"), BREAKS.values(), ids=BREAKS)
def test_what_is_taken_for_alike_and_isnt_is_noticed(conn, monkeypatch, name, broken):
    monkeypatch.setattr(alike, name, broken(getattr(alike, name)))
    plan = compared(joined("o", "p"), OTHERS["other columns"], "i_a", "k_b")
    once = made_alike(plan)
    assert once != plan
    assert _exists(conn, LOOKING, lambda _: zset(conn, once) != zset(conn, plan))
