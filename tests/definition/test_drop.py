"""Dropping stream tables: what depends on them, and that nothing stays behind."""

from __future__ import annotations

from typing import Any

import pytest

import pg_trickle
from tests.definition.conftest import TOTALS, Connection, Fails


@pytest.fixture
def chain(author: Connection) -> list[str]:
    """Three in a row, and one beside them."""
    pg_trickle.create_stream_table(author, "first", TOTALS)
    pg_trickle.create_stream_table(author, "second", "SELECT customer_id, total FROM first")
    pg_trickle.create_stream_table(
        author, '"Third one"', "SELECT max(total) AS total FROM second JOIN first USING (total)"
    )
    pg_trickle.create_stream_table(author, "beside", "SELECT id FROM customers")
    return ["first", "second", '"Third one"', "beside"]


@pytest.mark.versions
def test_dropping_leaves_nothing(shop: Any, author: Connection, chain: list[str]) -> None:
    for name in reversed(chain):
        pg_trickle.drop_stream_table(author, name)
        assert shop.superuser.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,)
    assert shop.traces() == []


def test_dependants_are_named(shop: Any, author: Connection, chain: list[str], fails: Fails) -> None:
    before = shop.traces()
    error = fails("2BP01", pg_trickle.drop_stream_table, author, "first")
    assert "public.second" in str(error.diag.message_detail)
    assert '"Third one"' in str(error.diag.message_detail)
    assert "cascade" in str(error.diag.message_hint)
    assert shop.traces() == before


def test_cascade_takes_them_along(shop: Any, author: Connection, chain: list[str]) -> None:
    pg_trickle.drop_stream_table(author, "first", cascade=True)
    names = shop.superuser.execute("SELECT pgt_name FROM pgtrickle.pgt_stream_tables").fetchall()
    assert names == [("beside",)]
    pg_trickle.drop_stream_table(author, "beside", cascade=True)
    assert shop.traces() == []


def test_cascade_does_not_reach_across_owners(shop: Any, author: Connection, chain: list[str], fails: Fails) -> None:
    other = shop.author("other")
    author.execute("GRANT SELECT ON second TO other")
    pg_trickle.create_stream_table(other, "others", "SELECT customer_id FROM second")
    before = shop.traces()
    error = fails("42501", pg_trickle.drop_stream_table, author, "first", cascade=True)
    assert "others" in str(error)
    assert shop.traces() == before
    shop.fresh("others")
    pg_trickle.drop_stream_table(shop.superuser, "first", cascade=True)
    assert not [trace for trace in shop.traces() if "others" in trace]


def test_other_dependants_stop_it(shop: Any, author: Connection, chain: list[str], fails: Fails) -> None:
    author.execute('CREATE VIEW looking AS SELECT * FROM "Third one"')
    before = shop.traces()
    for cascade in (False, True):
        fails("2BP01", pg_trickle.drop_stream_table, author, '"Third one"', cascade=cascade)
    fails("2BP01", pg_trickle.drop_stream_table, author, "first", cascade=True)
    assert shop.traces() == before


def test_a_table_dropped_by_hand_is_tidied_up(shop: Any, author: Connection, chain: list[str], fails: Fails) -> None:
    fails("2BP01", author.execute, "DROP TABLE first")
    author.execute('DROP TABLE "Third one"')
    fails("42P01", pg_trickle.refresh_stream_table, author, '"Third one"')
    worker = shop.as_("pgtrickle_worker")
    (done,) = worker.execute("SELECT pgtrickle_changes.worker_housekeeping()").fetchone()
    assert (done["dropped"], done["problems"]) == (1, [])
    pg_trickle.drop_stream_table(author, "first", cascade=True)
    pg_trickle.drop_stream_table(author, "beside")
    assert shop.traces() == []


def test_the_name_of_a_table_dropped_by_hand_is_free_at_once(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    author.execute("DROP TABLE st")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    shop.fresh("st")
    shop.as_("pgtrickle_worker").execute("SELECT pgtrickle_changes.worker_housekeeping()")
    shop.fresh("st")
    pg_trickle.drop_stream_table(author, "st")
    assert shop.traces() == []


def test_names_can_be_swapped_and_given_away(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    pg_trickle.create_stream_table(author, "other", "SELECT id FROM customers")
    author.execute("ALTER TABLE st RENAME TO tmp; ALTER TABLE other RENAME TO st; ALTER TABLE tmp RENAME TO other")
    pg_trickle.alter_stream_table(author, "st", schedule="5s")
    for name in ("st", "other"):
        shop.fresh(name)
    author.execute("ALTER TABLE other RENAME TO kept")
    pg_trickle.create_stream_table(author, "other", "SELECT count(*) AS n FROM customers")
    for name in ("st", "other", "kept"):
        shop.fresh(name)


def test_a_source_can_be_dropped_when_nobody_reads_it_any_more(shop: Any, author: Connection, fails: Fails) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    fails("2BP01", shop.superuser.execute, "DROP TABLE orders")
    fails("2BP01", shop.superuser.execute, "ALTER TABLE orders DROP COLUMN amount")
    shop.superuser.execute("ALTER TABLE orders DROP COLUMN note")
    shop.fresh("st")
    pg_trickle.drop_stream_table(author, "st")
    shop.superuser.execute("DROP TABLE orders")


def test_a_definition_lost_with_its_source_can_be_replaced(shop: Any, author: Connection, fails: Fails) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    shop.superuser.execute("DROP TABLE orders CASCADE")
    error = fails("42P17", pg_trickle.refresh_stream_table, author, "st")
    assert "alter_stream_table" in str(error.diag.message_hint)
    assert author.execute("SELECT count(*) FROM st").fetchone() == (5,)
    pg_trickle.alter_stream_table(author, "st", query="SELECT id AS customer_id, 1.0 AS total FROM customers")
    shop.fresh("st")
    shop.superuser.execute("DROP TABLE customers CASCADE")
    pg_trickle.drop_stream_table(author, "st")
    assert shop.traces() == []


def test_the_author_can_be_dropped_afterwards(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    pg_trickle.drop_stream_table(author, "st")
    author.close()
    shop.superuser.execute("DROP OWNED BY st_author")
    shop.superuser.execute("DROP ROLE st_author")
