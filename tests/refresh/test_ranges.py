"""Groups compared with a value that moves: those in between are found by an index over what the state shows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import check_reason

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE sales (id int PRIMARY KEY, shop int, pieces int, price numeric(10,2), day date);
INSERT INTO sales SELECT i, i % 60, i % 7, i % 11, date '2026-01-01' + i % 30 FROM generate_series(1, 400) AS i;
"""
# What is shown, and what moves and is compared with it, of one type.
VALUES = {
    "sum(price)": "0.03 * sum(price)",
    "avg(price)": "avg(price)",
    "sum(pieces)": "sum(pieces) / 40",
    "avg(pieces)": "avg(pieces)",
    "count(*)": "count(*) / 60",
    "count(price)": "count(price) / 60",
    "max(price)": "avg(price)",
    "max(day)": "date '2026-01-01' + (sum(pieces) % 30)::int",
}
# Sums of nothing are NULL, sums of NaN are NaN, and the threshold can be either.
WRITES = (
    "UPDATE sales SET price = price + {few}, pieces = pieces + 1 WHERE shop = {shop}",
    "UPDATE sales SET price = NULL, pieces = NULL, day = NULL WHERE shop = {shop}",
    "UPDATE sales SET price = 'NaN' WHERE id = {id}",
    "UPDATE sales SET price = {few}, pieces = {few}, day = date '2026-02-01' WHERE shop = {shop} OR price = 'NaN'",
    "DELETE FROM sales WHERE id % 9 = {few}",
    "INSERT INTO sales SELECT max(id) + 1, {shop}, {few}, {id}, date '2026-01-15' FROM sales",
    "DELETE FROM sales WHERE shop = {shop}",
    "UPDATE sales SET shop = NULL WHERE id = {id}",
)


@pytest.mark.parametrize("value", [pytest.param("sum(price)", marks=pytest.mark.versions), *list(VALUES)[1:]])
def test_groups_above_a_value_that_moves(db: Connection, assert_fresh: Oracle, value: str) -> None:
    db.execute(SETUP.encode())
    query = f"SELECT shop, {value} AS v FROM sales GROUP BY shop HAVING {value} > (SELECT {VALUES[value]} FROM sales)"
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    # However few groups there are.
    db.execute("SET enable_seqscan = off")
    chosen = random.Random(7)
    for _ in range(12):
        for write in chosen.choices(WRITES, k=chosen.randint(1, 3)):
            known = {"few": chosen.randrange(5), "shop": chosen.randrange(60), "id": chosen.randrange(1, 400)}
            db.execute(write.format(**known).encode())
        pg_trickle.refresh_stream_table(db, "st")
        check_reason(db, "st")
        assert_fresh(db, "st")
    assert looked_up(db)


def looked_up(conn: Connection) -> int:
    """How often indexes of states were used, other than those of their keys."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    found = conn.execute(
        "SELECT sum(s.idx_scan) FROM pg_stat_all_indexes AS s JOIN pg_index AS i USING (indexrelid)"
        " WHERE s.relname LIKE 'state\\_%' AND NOT i.indisunique"
    ).fetchone()
    assert found is not None
    return int(found[0] or 0)
