"""Keys of varchar, which PostgreSQL compares as text: found by their indexes and told apart like any others."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import check_refreshed, check_states, explained

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE shops (code varchar(8) PRIMARY KEY, region varchar, name text, parent varchar);
CREATE TABLE sales (id int PRIMARY KEY, shop varchar(8), label text, amount int);
INSERT INTO shops SELECT 's' || i, 'r' || i % 3, 'n' || i % 5, 's' || i / 2 FROM generate_series(1, 12) AS i;
INSERT INTO sales SELECT i, 's' || i % 14, 's' || i % 9, i % 7 FROM generate_series(1, 40) AS i;
"""
QUERIES = {
    "a join": "SELECT s.id, t.name FROM sales AS s JOIN shops AS t ON t.code = s.shop",
    "with text": "SELECT s.id, t.name FROM sales AS s JOIN shops AS t ON t.code = s.label",
    "a left join": "SELECT s.id, t.code FROM sales AS s LEFT JOIN shops AS t ON t.code = s.shop AND t.region = 'r1'",
    "by its name": """
        SELECT code, sum(q.amount) FROM shops JOIN (SELECT shop AS code, amount FROM sales) AS q USING (code)
         GROUP BY code
        """,
    "no match": """
        SELECT t.code FROM shops AS t
         WHERE NOT EXISTS (SELECT FROM sales AS s WHERE s.shop = t.code AND s.amount > 3)
        """,
    "a figure": "SELECT t.name, (SELECT sum(s.amount) FROM sales AS s WHERE s.shop = t.code) AS total FROM shops AS t",
    "groups": """
        SELECT t.region, g.n FROM shops AS t
          JOIN (SELECT shop, count(*) AS n, max(amount) AS most FROM sales GROUP BY shop) AS g ON g.shop = t.code
        """,
    "its own parent": "SELECT a.name, b.name AS above FROM shops AS a JOIN shops AS b ON b.code = a.parent",
    "those above": """
        WITH RECURSIVE up AS (SELECT code, parent FROM shops WHERE name = 'n1'
                               UNION SELECT t.code, t.parent FROM shops AS t JOIN up ON up.parent = t.code)
        SELECT code FROM up
        """,
    "one of them": "SELECT s.id, (SELECT t.name FROM shops AS t WHERE t.code = 's4') AS fourth FROM sales AS s",
}
WRITES = (
    "INSERT INTO shops VALUES ('{a}', 'r1', 'n1', '{b}') ON CONFLICT DO NOTHING",
    "UPDATE shops SET code = 'x' || code WHERE code = '{a}'",
    "UPDATE shops SET parent = '{b}', region = 'r1' WHERE code = '{a}'",
    "DELETE FROM shops WHERE code = '{a}'",
    "INSERT INTO sales SELECT max(id) + 1, '{a}', '{b}', 5 FROM sales",
    "UPDATE sales SET shop = label, label = shop WHERE shop = '{a}'",
    "UPDATE sales SET shop = NULL, amount = amount + 1 WHERE shop = '{b}'",
    "DELETE FROM sales WHERE label = '{a}'",
)


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_rows_are_followed_by_keys_of_varchar(db: Connection, assert_fresh: Oracle, mode: str) -> None:
    db.execute(SETUP.encode())
    names = [f"st{place}" for place, _ in enumerate(QUERIES)]
    for name, query in zip(names, QUERIES.values(), strict=True):
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode=mode)
    chosen = random.Random(3)
    for _ in range(25):
        for write in chosen.choices(WRITES, k=chosen.randint(1, 4)):
            a, b = chosen.choices([f"s{i}" for i in range(14)], k=2)
            db.execute(write.format(a=a, b=b).encode())
        check_refreshed(db, names if mode == "DIFFERENTIAL" else ())
        for name in names:
            check_states(db, name)
            assert_fresh(db, name)


def test_a_join_by_a_key_of_varchar_has_the_other_ones_key(db: Connection) -> None:
    db.execute(SETUP.encode())
    for title in ("a join", "with text", "a left join"):
        pg_trickle.create_stream_table(db, "st", QUERIES[title], schedule=None)
        assert "written by key (id)" in explained(db, "st"), title
        pg_trickle.drop_stream_table(db, "st")


def test_an_index_is_asked_for_and_groups_get_one(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERIES["a join"], schedule=None)
    assert "public.sales (shop)" in explained(db, "st")
    by_region = QUERIES["groups"].replace("g.shop = t.code", "g.shop = t.code AND g.most = 6")
    pg_trickle.create_stream_table(db, "groups", by_region, schedule=None)
    assert "public.sales (shop)" in explained(db, "groups")
