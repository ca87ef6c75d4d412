"""Groups of which only those are kept that somebody asks for by a match, where an index leads to their rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.upkeep import check_refreshed, explained

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE TABLE parts (id int PRIMARY KEY, name text);
CREATE TABLE offers (part int, supplier int, quantity int);
CREATE TABLE lines (part int, supplier int, quantity numeric);
CREATE INDEX ON lines (part);
INSERT INTO parts SELECT i, CASE i % 3 WHEN 0 THEN 'green ' || i WHEN 1 THEN 'red' END FROM generate_series(1, 9) AS i;
INSERT INTO offers SELECT nullif(i % 11, 0), i % 3, i % 7 FROM generate_series(1, 40) AS i;
INSERT INTO lines SELECT nullif(i % 11, 0), i % 3, i % 5 FROM generate_series(1, 80) AS i;
"""
QUERIES = {
    "a query": """
        SELECT o.part, o.supplier FROM offers AS o
         WHERE o.part IN (SELECT p.id FROM parts AS p WHERE p.name LIKE 'green%')
           AND o.quantity > (SELECT 0.5 * sum(l.quantity) FROM lines AS l
                              WHERE l.part = o.part AND l.supplier = o.supplier)
        """,
    "groups of one key": """
        SELECT o.*, g.n, g.most FROM offers AS o
          JOIN (SELECT part, count(*) AS n, max(quantity) AS most FROM lines GROUP BY part) AS g ON g.part = o.part
         WHERE EXISTS (SELECT FROM parts AS p WHERE p.id = o.part AND p.name LIKE 'green%')
        """,
}
# Parts turn green and cease to be; rows of all tables come, go and move; matches come twice and from nowhere.
WRITES = (
    "UPDATE parts SET name = CASE WHEN name LIKE 'green%%' THEN 'blue' ELSE 'green' END WHERE id = {k}",
    "DELETE FROM parts WHERE id = {k}",
    "INSERT INTO parts VALUES ({k}, 'green') ON CONFLICT DO NOTHING",
    "INSERT INTO offers VALUES ({k}, {few}, 9), ({k}, {few}, 9), (NULL, 1, 9)",
    "UPDATE offers SET part = {other} WHERE part = {k}",
    "DELETE FROM offers WHERE part = {k} AND supplier = {few}",
    "INSERT INTO lines VALUES ({k}, {few}, 3), ({k}, {few}, NULL), (NULL, 1, 2)",
    "UPDATE lines SET part = {other}, quantity = quantity + 1 WHERE part = {k} AND supplier = {few}",
    "DELETE FROM lines WHERE part = {k}",
)


@pytest.mark.versions
def test_groups_follow_those_who_ask_for_them(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    names = {f"st{place}": query for place, query in enumerate(QUERIES.values())}
    for name, query in names.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
        assert explained(db, name).count("groups that no match asks for aren't kept") == 1
    chosen = random.Random(5)
    for _ in range(40):
        for write in chosen.choices(WRITES, k=chosen.randint(1, 4)):
            k, other = chosen.choices(range(1, 12), k=2)
            db.execute(write.replace("%%", "%").format(k=k, other=other, few=chosen.randrange(3)).encode())
        check_refreshed(db, names)


def test_groups_that_nobody_asks_for_are_not_kept(db: Connection) -> None:
    """With an index; without one, looking for a part's lines would read all of them."""
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "few", QUERIES["a query"], schedule=None)
    db.execute("DROP INDEX lines_part_idx")
    pg_trickle.create_stream_table(db, "all_of_them", QUERIES["a query"], schedule=None)
    assert _groups(db, "few") == _count(db, "SELECT count(*) FROM (SELECT DISTINCT part, supplier FROM lines, parts"
                                        " WHERE part = id AND name LIKE 'green%') AS g")  # fmt: skip
    assert _groups(db, "all_of_them") == _count(
        db, "SELECT count(*) FROM (SELECT DISTINCT part, supplier FROM lines) AS g"
    )


def test_an_index_makes_no_plan_stale(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERIES["a query"], schedule=None)
    before = db.execute("SELECT compiled_at FROM pgtrickle.pgt_plans").fetchone()
    db.execute("DROP INDEX lines_part_idx; CREATE INDEX ON offers (part)")
    db.execute("UPDATE parts SET name = 'green' WHERE id = 4")
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")
    assert db.execute("SELECT compiled_at FROM pgtrickle.pgt_plans").fetchone() == before


def _groups(conn: Connection, name: str) -> int:
    found = conn.execute(
        "SELECT p.plan #>> '{states,0,name}' FROM pgtrickle.pgt_plans AS p"
        " JOIN pgtrickle.pgt_stream_tables AS st USING (pgt_id) WHERE st.pgt_name = %s",
        (name,),
    ).fetchone()
    assert found is not None
    return _count(conn, f"SELECT count(*) FROM pgtrickle_changes.{found[0]}")


def _count(conn: Connection, query: str) -> int:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])
