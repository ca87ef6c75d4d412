"""The change of a join that is read within an aggregate and around it: computed once, and handed on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle import passed_on, programs
from pg_trickle.algebra.plan import Plan
from tests.upkeep import check_refreshed, is_noticed

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

SETUP = """
CREATE DOMAIN price AS numeric CHECK (VALUE < 1000);
CREATE TABLE parts (id int PRIMARY KEY, brand text, size int);
CREATE TABLE lines (part int, quantity numeric, price price, note json);
CREATE TABLE offers (part int, supplier int, cost int, PRIMARY KEY (part, supplier));
CREATE INDEX ON lines (part);
INSERT INTO parts SELECT i, CASE i % 3 WHEN 0 THEN 'green' WHEN 1 THEN 'red' END, i % 4 FROM generate_series(1, 9) AS i;
INSERT INTO lines SELECT nullif(i % 11, 0), i % 5, i, to_json(i % 2) FROM generate_series(1, 80) AS i;
INSERT INTO offers SELECT i % 9 + 1, i / 9, i % 4 FROM generate_series(1, 40) AS i;
"""
GREEN = "p.brand = 'green'"
QUERIES = {
    "below the mean of its group": f"""
        SELECT sum(l.price) AS all_of_them, count(*) AS n FROM lines AS l, parts AS p
         WHERE p.id = l.part AND {GREEN}
           AND l.quantity < (SELECT 0.9 * avg(m.quantity) FROM lines AS m WHERE m.part = p.id)
        """,
    "the cheapest": f"""
        SELECT p.id, p.size, o.supplier FROM parts AS p JOIN offers AS o ON o.part = p.id
         WHERE {GREEN} AND o.cost = (SELECT min(q.cost) FROM parts AS g JOIN offers AS q ON g.id = q.part
                                      WHERE g.brand = 'green' AND q.part = p.id)
         ORDER BY p.size DESC, p.id, o.supplier LIMIT 4
        """,
    "rows beside their total": f"""
        SELECT l.note, l.price, t.n FROM lines AS l JOIN parts AS p ON p.id = l.part
          LEFT JOIN (SELECT g.size, count(*) AS n FROM parts AS g JOIN lines AS k ON k.part = g.id
                      WHERE g.brand = 'green' GROUP BY g.size) AS t ON t.size = p.size
         WHERE {GREEN}
        """,
    "a share of all": f"""
        SELECT o.part, sum(o.cost) AS cost FROM offers AS o JOIN parts AS p ON p.id = o.part WHERE {GREEN}
         GROUP BY o.part HAVING sum(o.cost) > (SELECT 0.1 * sum(q.cost) FROM offers AS q JOIN parts AS g
                                                   ON g.id = q.part WHERE g.brand = 'green')
        """,
    "different values beside others": f"""
        SELECT p.size, count(DISTINCT o.supplier) AS n, sum(o.cost) AS cost, sum(DISTINCT o.cost) AS different
          FROM parts AS p JOIN offers AS o ON o.part = p.id
         WHERE {GREEN} AND NOT EXISTS (SELECT FROM lines AS l WHERE l.part = o.cost) GROUP BY p.size
        """,
    # Nothing can be passed on of it but that there are rows.
    "a join of which no column is read": """
        SELECT p.id, (SELECT count(*) FROM lines, offers) AS n FROM parts AS p WHERE EXISTS (SELECT FROM lines, offers)
        """,
    "ranks beside the largest": f"""
        SELECT r.part, r.price, r.place, m.most FROM
               (SELECT l.part, l.price, rank() OVER (PARTITION BY l.part ORDER BY l.price) AS place
                  FROM lines AS l JOIN parts AS p ON p.id = l.part WHERE {GREEN}) AS r
          JOIN (SELECT k.part, max(k.quantity) AS most FROM lines AS k JOIN parts AS g ON g.id = k.part
                 WHERE g.brand = 'green' GROUP BY k.part) AS m ON m.part = r.part
        """,
}
WRITES = (
    "UPDATE parts SET brand = CASE WHEN brand = 'green' THEN 'blue' ELSE 'green' END WHERE id = {k}",
    "UPDATE parts SET size = {few} WHERE id IN ({k}, {other})",
    "DELETE FROM parts WHERE id = {k}",
    "INSERT INTO parts VALUES ({k}, 'green', {few}) ON CONFLICT DO NOTHING",
    "INSERT INTO lines VALUES ({k}, {few}, 3, '1'), ({k}, {few}, 3, '1'), (NULL, 1, 2, NULL), ({k}, NULL, {few}, '[]')",
    "UPDATE lines SET part = {other}, quantity = quantity + 1 WHERE part = {k} AND quantity < {few}",
    "UPDATE lines SET price = price + 1, note = '{few}' WHERE part = {k}",
    "DELETE FROM lines WHERE part = {k} AND quantity >= {few}",
    "INSERT INTO offers VALUES ({k}, {few} + 10, {few}) ON CONFLICT DO NOTHING",
    "UPDATE offers SET cost = {few} WHERE part = {k}",
    "DELETE FROM offers WHERE part = {k}",
)


def written(conn: Connection, chosen: random.Random, times: int) -> None:
    for write in chosen.choices(WRITES, k=times):
        k, other = chosen.choices(range(1, 12), k=2)
        conn.execute(write.format(k=k, other=other, few=chosen.randrange(4)).encode())


@pytest.mark.versions
def test_whatever_changes_the_query_is_kept(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    for place, query in enumerate(QUERIES.values()):
        pg_trickle.create_stream_table(db, f"st{place}", query, schedule=None, refresh_mode="DIFFERENTIAL")
    chosen = random.Random(7)
    for _ in range(25):
        with db.transaction():
            written(db, chosen, chosen.randint(1, 5))
        check_refreshed(db, (f"st{place}" for place in range(len(QUERIES))))


def test_the_join_is_computed_by_the_first_statement_alone(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERIES["below the mean of its group"], schedule=None)
    row = db.execute("SELECT plan FROM pgtrickle.pgt_plans").fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0]
    (handed,) = (one["name"] for one in plan["deltas"] if "of" not in one)
    first, second, *cleared = plan["programs"]["differential"]["*"]
    assert "changes_" in first
    assert f'INSERT INTO "pgtrickle_changes"."{handed}"' in first
    assert "changes_" not in second.replace("pgtrickle_changes", "")
    assert f'FROM "pgtrickle_changes"."{handed}"' in second
    assert any(f'DELETE FROM "pgtrickle_changes"."{handed}"' in one for one in cleared)


def test_several_stages_of_one_statement_need_no_table_for_it(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERIES["a share of all"], schedule=None)
    row = db.execute("SELECT plan FROM pgtrickle.pgt_plans").fetchone()
    assert row is not None
    assert all("of" in one for one in row[0]["deltas"])
    first = row[0]["programs"]["differential"]["*"][0]
    assert first.count('FROM "pgtrickle_changes"."changes_') == 2


def test_what_stages_of_one_statement_read_alike_is_computed_once(db: Connection) -> None:
    """Distinct values and groups are two stages over the same rows, joined or looked for a match."""
    db.execute(SETUP.encode())
    query = """SELECT p.size, count(DISTINCT o.supplier) AS n, sum(o.cost) AS cost
                 FROM parts AS p JOIN offers AS o ON o.part = p.id
                WHERE NOT EXISTS (SELECT FROM lines AS l WHERE l.part = o.cost) GROUP BY p.size"""
    pg_trickle.create_stream_table(db, "st", query, schedule=None)
    row = db.execute("SELECT plan -> 'programs' -> 'differential' -> '*' FROM pgtrickle.pgt_plans").fetchone()
    assert row is not None
    first = row[0][0]
    assert first.count('FROM "pgtrickle_changes"."changes_') == 3


def _sent_nowhere(whole: Any) -> Any:
    return lambda statements, changes: [replace(one, out={}) for one in whole(statements, changes)]


def _all_came(whole: Any) -> Any:
    def came(columns: Any, rows: sql.Composable) -> sql.Composable:
        weight = sql.Identifier("__pgt_w")
        listed = sql.SQL(", ").join(sql.Identifier(one.name) for one in columns)
        return sql.SQL("SELECT {c}, abs({w}) AS {w} FROM ({rows}) AS d").format(
            c=listed, w=weight, rows=whole(columns, rows)
        )

    return came


def _told_by_inputs_alone(whole: Any) -> Any:
    return lambda plan: [one for one in whole(plan) if isinstance(getattr(plan, one.name), Plan)]


def _left_where_it_is(whole: Any) -> Any:
    return lambda state, feed: "SELECT 0" if state.name.endswith("_3") else whole(state, feed)


BREAKS: dict[str, tuple[object, str, Callable[[Any], Any]]] = {
    "a change that is sent nowhere": (programs, "handed_on", _sent_nowhere),
    "a change that is read again by the next refresh": (programs, "_cleared", _left_where_it_is),
    "rows that went taken for rows that came": (passed_on, "consolidated", _all_came),
}


@pytest.mark.parametrize(("module", "name", "broken"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_noticed(
    db: Connection, monkeypatch: pytest.MonkeyPatch, module: object, name: str, broken: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    db.execute(SETUP.encode())
    query = QUERIES["below the mean of its group"]
    pg_trickle.create_stream_table(db, "st", query, schedule=None, refresh_mode="DIFFERENTIAL")
    steps = (
        "UPDATE lines SET quantity = 0 WHERE part = 3 AND price > 30",
        "DELETE FROM lines WHERE part = 6 AND quantity > 1",
    )
    assert is_noticed(db, "st", steps)


def test_plans_that_differ_taken_for_equal_make_no_program(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projection has other columns than its input, which the compiler stumbles over before anything is made."""
    monkeypatch.setattr(passed_on, "fields", _told_by_inputs_alone(fields))
    db.execute(SETUP.encode())
    with pytest.raises(ValueError, match="zip"):
        pg_trickle.create_stream_table(db, "st", QUERIES["below the mean of its group"], schedule=None)
    assert db.execute("SELECT FROM pgtrickle.pgt_stream_tables").rowcount == 0
