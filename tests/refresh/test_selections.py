"""Few rows of a large table, asked for by a constant and looked up by a key: stored, whatever becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.render import partners
from pg_trickle.rewrite import selections
from tests.upkeep import check_reason, check_refreshed, check_states, explained

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

# Of ten thousand parts each hundredth is of one kind, and each fiftieth of one maker.
SETUP = """
CREATE TABLE makers (id int PRIMARY KEY, country varchar);
CREATE TABLE parts (id int PRIMARY KEY, kind varchar, box int, price numeric, details json, maker int);
CREATE TABLE lines (id int PRIMARY KEY, part int, amount numeric);
CREATE INDEX ON lines (part);
INSERT INTO parts
SELECT i, 'kind ' || i % 100, i % 20, i * 1.0, json_build_object('n', i), i % 50 FROM generate_series(1, 10000) AS i;
INSERT INTO lines SELECT i, 1 + i * 7 % 10000, i % 9 FROM generate_series(1, 12000) AS i;
INSERT INTO makers SELECT i, 'country ' || i FROM generate_series(0, 49) AS i;
ANALYZE makers, parts, lines;
"""
KIND = "p.kind = 'kind 7'"
JOINED = f"FROM lines AS l JOIN parts AS p ON p.id = l.part WHERE {KIND}"
QUERIES = {
    "a join": f"SELECT l.id, l.amount, p.price, p.details {JOINED}",
    "an aggregate of it": f"SELECT p.box, sum(l.amount), count(*) {JOINED} GROUP BY p.box",
    "a left join": f"""
        SELECT l.id, p.id AS part, p.price FROM lines AS l LEFT JOIN parts AS p ON p.id = l.part AND {KIND}
         WHERE l.id < 900
        """,
    "a match": f"SELECT l.id FROM lines AS l WHERE EXISTS (SELECT FROM parts AS p WHERE p.id = l.part AND {KIND})",
    "no match": f"""
        SELECT l.part, count(*) FROM lines AS l
         WHERE NOT EXISTS (SELECT FROM parts AS p WHERE p.id = l.part AND {KIND}) GROUP BY l.part
        """,
    "what is looked up in turn": """
        SELECT l.id, p.price, m.country FROM lines AS l JOIN parts AS p ON p.id = l.part
          JOIN makers AS m ON m.id = p.maker WHERE m.country = 'country 7'
        """,
    "read twice": f"""
        SELECT l.part, sum(l.amount) {JOINED}
           AND l.amount > (SELECT 0.5 * avg(m.amount) FROM lines AS m WHERE m.part = p.id) GROUP BY l.part
        """,
}
# Parts begin to be of the kind and cease to be, and change otherwise; so do lines of such parts, and of others.
WRITES = (
    "UPDATE parts SET kind = CASE kind WHEN 'kind 7' THEN 'kind 8' ELSE 'kind 7' END WHERE id = {part}",
    "UPDATE parts SET price = price + 0.50, details = '{{\"n\": {few}}}' WHERE kind = 'kind 7' AND box = {few}",
    "UPDATE parts SET price = round(price, 3) WHERE id = {part}",
    "UPDATE parts SET id = id + 20000 WHERE id = {part}",
    "DELETE FROM parts WHERE id = {part}",
    "UPDATE parts SET maker = CASE maker WHEN 7 THEN 8 ELSE 7 END WHERE id = {part}",
    "UPDATE makers SET country = CASE country WHEN 'country 7' THEN 'x' ELSE 'country 7' END WHERE id IN (7, {few})",
    "INSERT INTO parts VALUES ({part}, 'kind 7', {few}, 1, NULL, 7) ON CONFLICT (id) DO UPDATE SET kind = 'kind 7'",
    "INSERT INTO lines SELECT coalesce(max(id), 0) + 1, {part}, {few} FROM lines",
    "UPDATE lines SET part = {other}, amount = amount + 1 WHERE part = {part}",
    "UPDATE lines SET part = NULL WHERE part = {other} AND amount > 4",
    "DELETE FROM lines WHERE part = {part}",
)


def _made(db: Connection) -> list[str]:
    db.execute(SETUP.encode())
    names = [f"st{place}" for place, _ in enumerate(QUERIES)]
    for name, query in zip(names, QUERIES.values(), strict=True):
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
        assert explained(db, name).count("stored: few of a large table's rows pass") == 1, name
    return names


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_whoever_looks_rows_up_follows_them(db: Connection, assert_fresh: Oracle, mode: str) -> None:
    names = _made(db)
    for name in names:
        pg_trickle.alter_stream_table(db, name, refresh_mode=mode)
    chosen = random.Random(7)
    for _ in range(10):
        for write in chosen.choices(WRITES, k=chosen.randint(1, 5)):
            part, other = chosen.choices([7, 107, 207, 307, 407, 8, 108, 208], k=2)
            db.execute(write.format(part=part, other=other, few=chosen.randrange(20)).encode())
        check_refreshed(db, names if mode == "DIFFERENTIAL" else ())
        for name in names:
            check_states(db, name)
            assert_fresh(db, name)


def test_what_is_stored_is_what_is_asked_for_and_read(db: Connection) -> None:
    _made(db)
    found = db.execute(
        "SELECT s.oid::regclass, count(*) FROM pg_class AS s JOIN pg_attribute AS a ON a.attrelid = s.oid"
        " WHERE a.attnum > 0 AND s.relname LIKE 'state\\_%' AND s.relkind = 'r' GROUP BY s.oid"
    ).fetchall()
    sizes = {(columns, _count(db, table)) for table, columns in found}
    # A match reads the key alone, a join its price and details as well.
    assert {(1, 100), (3, 100)} <= sizes
    assert all(rows < 10000 for columns, rows in sizes if columns < 4)


def _count(db: Connection, table: str) -> int:
    found = db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize(
    ("change", "query"),
    {
        "many rows pass": ("UPDATE parts SET kind = 'kind 7' WHERE id % 3 = 0", QUERIES["a join"]),
        "nothing is known of the column": (
            "ALTER TABLE parts ALTER kind SET STATISTICS 0, ALTER kind TYPE text",
            QUERIES["a join"],
        ),
        "the table is small": ("DELETE FROM parts WHERE id > 9000", QUERIES["a join"]),
        "it is the larger one": ("DELETE FROM lines WHERE id > 5000", QUERIES["a join"]),
        "a range says nothing": ("SELECT", QUERIES["a join"].replace("= 'kind 7'", "> 'kind 98'")),
        "not by a key": ("ALTER TABLE parts DROP CONSTRAINT parts_pkey", QUERIES["a join"]),
    }.values(),
    ids=str,
)
def test_rows_stay_where_they_are_unless_that_spares_something(db: Connection, change: str, query: str) -> None:
    db.execute(SETUP.encode())
    db.execute(change.encode())
    db.execute("VACUUM (ANALYZE) parts, lines")
    pg_trickle.create_stream_table(db, "plain", query, schedule=None)
    assert "few of a large table" not in explained(db, "plain")


def test_what_takes_long_to_read_is_not_stored(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selections, "MOST", 90)
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "plain", QUERIES["a join"], schedule=None)
    assert "few of a large table" not in explained(db, "plain")


def test_few_rows_that_came_to_be_many_are_looked_up(
    db: Connection, assert_fresh: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row of a change was compared with all of them: a hundred lines with 400,000 parts took nine seconds."""
    monkeypatch.setattr(partners, "MANY", sql.Literal(150))
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERIES["a join"], schedule=None, refresh_mode="DIFFERENTIAL")
    programs = db.execute("SELECT plan ->> 'programs' FROM pgtrickle.pgt_plans").fetchone()
    assert programs is not None
    assert "OFFSET 150) THEN TRUE" in programs[0]
    for kinds in (1, 2):
        db.execute(f"UPDATE parts SET kind = 'kind 7' WHERE id % 100 < {kinds}".encode())
        pg_trickle.refresh_stream_table(db, "st")
        db.execute("UPDATE lines SET amount = amount + 1 WHERE id % 50 = 1")
        pg_trickle.refresh_stream_table(db, "st")
        check_reason(db, "st")
        assert_fresh(db, "st")


def test_within_statements_nothing_is_stored_apart(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERIES["a join"], refresh_mode="immediate")
    assert "few of a large table" not in explained(db, "st")
    assert _shares(_request(db)) == {}
    pg_trickle.alter_stream_table(db, "st", refresh_mode="DIFFERENTIAL")
    assert _shares(_request(db))


@pytest.mark.usefixtures("worker")
def test_the_worker_compiles_for_the_mode_that_is_asked_for(db: Connection) -> None:
    db.execute(SETUP.encode())
    create = "SELECT pgtrickle.create_stream_table(%s, %s, refresh_mode => %s)"
    db.execute(create, ("at_once", QUERIES["a join"], "IMMEDIATE"))
    db.execute(create, ("later", QUERIES["a join"], "DIFFERENTIAL"))
    assert "few of a large table" not in explained(db, "at_once")
    assert "few of a large table" in explained(db, "later")


def test_statistics_that_change_leave_the_plan_as_it_is(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERIES["a join"], schedule=None)
    before = _request(db)
    db.execute("UPDATE parts SET kind = 'kind 7' WHERE id % 3 = 0")
    db.execute("ANALYZE parts")
    after = _request(db)
    assert _shares(before)["kind"] < 0.02 < 0.3 < _shares(after)["kind"]
    assert before["hash"] == after["hash"]
    pg_trickle.refresh_stream_table(db, "st")
    check_reason(db, "st")
    assert "few of a large table" in explained(db, "st")


def _request(db: Connection) -> dict[str, Any]:
    found = db.execute("SELECT pgtrickle.compile_request('st', %s, true)", (QUERIES["a join"],)).fetchone()
    assert found is not None
    return dict(found[0])


def _shares(request: dict[str, Any]) -> dict[str, float]:
    (shares,) = (one["shares"] for one in request["relations"] if one["name"] == "parts")
    return dict(shares)


def test_statistics_are_read_as_the_owner(db: Connection, database: Any) -> None:
    """Who may not read a table learns nothing of it, though the engine could tell him."""
    db.execute(SETUP.encode())
    database.make_role("looking")
    db.execute("GRANT SELECT (id, price) ON parts TO looking")
    told = "SELECT pgtrickle_changes.commonest_shares(%s::regrole, ARRAY['parts'::regclass]::oid[])"
    mine, his = (db.execute(told, (who,)).fetchone() for who in (_me(db), "looking"))
    assert mine
    assert his
    (table,) = mine[0].values()
    assert table["kind"] == pytest.approx(0.01, abs=0.002)
    (seen,) = his[0].values()
    assert set(seen) == {"id", "price"}


def _me(db: Connection) -> str:
    found = db.execute("SELECT current_user").fetchone()
    assert found is not None
    return str(found[0])
