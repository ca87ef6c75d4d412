"""Watermarks: what reads several sources of a group waits until they are equally far."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.process import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]

ADVANCE = "SELECT pgtrickle.advance_watermark(%s, %s)"
GROUP = "SELECT pgtrickle.create_watermark_group('sales', ARRAY['orders', 'payments'], %s)"
STATUS = "SELECT group_name, source_table, lag_secs, aligned FROM pgtrickle.watermark_status()"
OPEN = "SELECT o.id FROM orders AS o LEFT JOIN payments AS p USING (id) WHERE p.id IS NULL"


@pytest.fixture
def sales(db: Connection) -> Connection:
    db.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE payments (id int PRIMARY KEY)")
    pg_trickle.create_stream_table(db, "open", OPEN)
    pg_trickle.create_stream_table(db, "counted", "SELECT count(*) AS n FROM orders")
    return db


@pytest.mark.versions
def test_the_worker_waits_until_the_sources_agree(sales: Connection, worker: Any) -> None:
    sales.execute(GROUP, (60,))
    assert sales.execute(STATUS).fetchall() == [
        ("sales", "public.orders", None, False),
        ("sales", "public.payments", None, False),
    ]
    # Reads one of them only.
    sales.execute("INSERT INTO orders VALUES (1)")
    worker.wait_for(lambda: sales.execute("SELECT n FROM counted").fetchone() == (1,))
    sales.execute(ADVANCE, ("orders", "2026-05-01 12:00:00+00"))
    worker.wait_until_idle()
    assert sales.execute("SELECT count(*) FROM open").fetchone() == (0,)
    sales.execute(ADVANCE, ("payments", "2026-05-01 11:58:59+00"))
    worker.wait_until_idle()
    assert sales.execute("SELECT count(*) FROM open").fetchone() == (0,)
    assert sales.execute(STATUS).fetchall()[1] == ("sales", "public.payments", 61, False)
    # By hand it goes on.
    pg_trickle.refresh_stream_table(sales, "open")
    assert sales.execute("SELECT count(*) FROM open").fetchone() == (1,)
    with sales.transaction():
        sales.execute("INSERT INTO payments VALUES (1)")
        sales.execute(ADVANCE, ("payments", "2026-05-01 11:59+00"))
    worker.wait_for(lambda: sales.execute("SELECT count(*) FROM open").fetchone() == (0,))
    assert sales.execute(STATUS).fetchall()[1] == ("sales", "public.payments", 60, True)
    # Too far ahead again, and let go by dropping the group.
    sales.execute(ADVANCE, ("orders", "2026-05-02 12:00+00"))
    sales.execute("INSERT INTO orders VALUES (2)")
    worker.wait_until_idle()
    assert sales.execute("SELECT count(*) FROM open").fetchone() == (0,)
    sales.execute("SELECT pgtrickle.drop_watermark_group('sales')")
    worker.wait_for(lambda: sales.execute("SELECT count(*) FROM open").fetchone() == (1,))
    assert [row[0] for row in sales.execute(STATUS)] == [None, None]
    sales.execute("DROP TABLE payments CASCADE")
    assert wait_until(lambda: len(sales.execute(STATUS).fetchall()) == 1, 60)


def test_a_watermark_never_goes_backwards(sales: Connection) -> None:
    for _ in range(2):
        sales.execute(ADVANCE, ("orders", "2026-05-01"))
    with pytest.raises(psycopg.errors.DataException, match="backwards") as raised:
        sales.execute(ADVANCE, ("orders", "2026-04-30"))
    assert raised.value.sqlstate == "22000"
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        sales.execute(ADVANCE, ("orders", None))
    with pytest.raises(psycopg.errors.UndefinedTable):
        sales.execute(ADVANCE, ("nothing", "2026-05-01"))


def test_groups_that_make_no_sense_are_refused(sales: Connection) -> None:
    make = "SELECT pgtrickle.create_watermark_group(%s, %s, %s)"
    for arguments in (
        ("", ["orders", "payments"], 0),
        (None, ["orders", "payments"], 0),
        ("g", ["orders"], 0),
        ("g", ["orders", "public.orders"], 0),
        ("g", None, 0),
        ("g", ["orders", "payments"], -1),
        ("g", ["orders", "payments"], float("nan")),
        ("g", ["orders", "payments"], None),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            sales.execute(make, arguments)
    sales.execute(GROUP, (0,))
    with pytest.raises(psycopg.errors.DuplicateObject):
        sales.execute(GROUP, (0,))
    with pytest.raises(psycopg.errors.UndefinedObject):
        sales.execute("SELECT pgtrickle.drop_watermark_group('other')")


def test_only_owners_say_how_far_a_source_is(database: Any, sales: Connection) -> None:
    """Who holds up everybody's stream tables owns what they read."""
    database.make_role("stranger")
    sales.execute("GRANT USAGE ON SCHEMA pgtrickle TO stranger; GRANT SELECT ON orders, payments TO stranger")
    sales.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO stranger")
    sales.execute("ALTER TABLE payments OWNER TO stranger")
    sales.execute(GROUP, (0,))
    stranger = database.connect("stranger")
    for call in (
        "SELECT pgtrickle.advance_watermark('orders', now())",
        "SELECT pgtrickle.create_watermark_group('mine', ARRAY['orders', 'payments'])",
        "SELECT pgtrickle.drop_watermark_group('sales')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
            stranger.execute(call)
    stranger.execute("SELECT pgtrickle.advance_watermark('payments', now())")
    assert len(stranger.execute(STATUS).fetchall()) == 2
    sales.execute("REVOKE SELECT ON orders FROM stranger")
    assert [row[1] for row in stranger.execute(STATUS)] == ["public.payments"]
