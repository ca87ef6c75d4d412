"""Groups chosen by a condition on what they come to: where few pass these are found, not the groups of all rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

import pg_trickle
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.compile import compile as compile_query
from pg_trickle.testing.oracle import differences
from tests.upkeep import check_refreshed

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

ORDERS = 30_000
SETUP = f"""
CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2));
CREATE TABLE lines (order_id int, quantity numeric(10,2), pieces int);
CREATE INDEX ON lines (order_id);
INSERT INTO orders SELECT i, i FROM generate_series(1, {ORDERS}) AS i;
INSERT INTO lines SELECT i / 2, i % 7, i % 5 FROM generate_series(1, {2 * ORDERS}) AS i;
UPDATE lines SET quantity = 200, pieces = 100 WHERE order_id % 3000 = 7;
"""
CONDITIONS = (
    "sum(quantity) > 300",
    "avg(quantity) >= 150.5",
    "sum(pieces) > 150",
    "avg(pieces) >= 60",
    "count(*) > 2",
    "count(quantity) >= 3 AND sum(quantity) < 1000",
)
QUERY = "SELECT o.id, o.total FROM orders AS o WHERE o.id IN (SELECT order_id FROM lines GROUP BY order_id HAVING {})"
WRITES = (
    "UPDATE lines SET quantity = quantity + 200, pieces = pieces + 100 WHERE order_id IN ({k}, {other})",
    "UPDATE lines SET quantity = NULL, pieces = NULL WHERE order_id = {k}",
    "UPDATE lines SET quantity = 'NaN' WHERE order_id = {k}",
    "UPDATE lines SET quantity = 1, pieces = 1 WHERE order_id % 3000 = 7 OR quantity = 'NaN'",
    "UPDATE lines SET order_id = {other} WHERE order_id = {k}",
    "DELETE FROM lines WHERE order_id = {k}",
    "INSERT INTO lines VALUES ({k}, 400, 300), ({k}, 0, 0), ({k}, NULL, NULL), (NULL, 900, 900)",
    "DELETE FROM orders WHERE id = {k}",
    "INSERT INTO orders VALUES ({k}, 1) ON CONFLICT (id) DO UPDATE SET total = orders.total + 1",
)


def written(conn: Connection, chosen: random.Random, times: int) -> None:
    for write in chosen.choices(WRITES, k=times):
        k, other = chosen.choices((7, 8, 9, 3007, 3008, 6007), k=2)
        conn.execute(write.format(k=k, other=other).encode())


@pytest.mark.versions
def test_groups_that_pass_are_found_whatever_changes(db: Connection, assert_fresh: Oracle) -> None:
    db.execute(SETUP.encode())
    names = {f"st{place}": QUERY.format(one) for place, one in enumerate(CONDITIONS)}
    for name, query in names.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None, refresh_mode="DIFFERENTIAL")
    # All but the one that nearly all groups pass.
    assert len(_choices(db)) == len(CONDITIONS)
    db.execute("ANALYZE")
    chosen = random.Random(3)
    for _ in range(15):
        with db.transaction():
            written(db, chosen, chosen.randint(1, 4))
        check_refreshed(db, names)


def test_writers_find_them_too(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERY.format(CONDITIONS[0]), refresh_mode="IMMEDIATE")
    chosen = random.Random(4)
    for _ in range(25):
        with db.transaction():
            written(db, chosen, chosen.randint(1, 3))
        assert differences(db, "st") == []


def test_a_refresh_reads_the_groups_that_pass_and_not_those_of_each_changed_row(
    db: Connection, assert_fresh: Oracle
) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERY.format(CONDITIONS[0]), schedule=None, refresh_mode="DIFFERENTIAL")
    db.execute("ANALYZE")
    db.execute("UPDATE orders SET total = total + 1 WHERE id % 20 = 7")
    before = _groups_read(db)
    pg_trickle.refresh_stream_table(db, "st")
    assert _groups_read(db) - before < 50
    assert_fresh(db, "st")


def test_the_planner_knows_how_many_pass(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERY.format(CONDITIONS[0]), schedule=None)
    db.execute("ANALYZE")
    found = db.execute(
        """SELECT s.statistics_name, s.exprs[1], e.null_frac IS NOT NULL
             FROM pg_stats_ext AS s JOIN pg_stats_ext_exprs AS e USING (statistics_schemaname, statistics_name)
            WHERE s.statistics_schemaname = 'pgtrickle_changes'"""
    ).fetchone()
    assert found is not None
    name, value, is_known = found
    assert name.startswith("state_")
    assert is_known
    state = name.removesuffix("_value_1")
    explained = db.execute(
        f"EXPLAIN (FORMAT json) SELECT FROM pgtrickle_changes.{state} WHERE {value} > 300".encode()
    ).fetchone()
    assert explained is not None
    assert explained[0][0]["Plan"]["Plan Rows"] < 20


def test_there_is_no_index_over_what_nearly_all_groups_pass(db: Connection) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERY.format("sum(quantity) > 3"), schedule=None)
    assert _choices(db) == []


MADE_ANEW = {
    "another query": "SELECT pgtrickle.alter_stream_table('st', query => {query})",
    "its key dropped": "ALTER TABLE orders DROP CONSTRAINT orders_pkey; SELECT pgtrickle.refresh_stream_table('st')",
    "its state dropped": """
        DROP TABLE pgtrickle_changes.state_1_1; INSERT INTO lines VALUES (1, 1, 1);
        SELECT pgtrickle.refresh_stream_table('st')
        """,
}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("change", MADE_ANEW.values(), ids=MADE_ANEW)
def test_nor_where_the_states_are_made_anew(db: Connection, assert_fresh: Oracle, change: str) -> None:
    db.execute(SETUP.encode())
    pg_trickle.create_stream_table(db, "st", QUERY.format("sum(quantity) > 3"), schedule=None)
    other = sql.Literal(QUERY.format("sum(quantity) > 4")).as_string(db)
    db.execute(change.format(query=other).encode())
    assert _choices(db) == []
    assert_fresh(db, "st")
    pg_trickle.alter_stream_table(db, "st", query=QUERY.format(CONDITIONS[0]))
    assert len(_choices(db)) == 1


def test_nor_where_it_is_filled_later(db: Connection) -> None:
    db.execute(SETUP.encode())
    query = QUERY.format("sum(quantity) > 3")
    pg_trickle.create_stream_table(db, "st", query, schedule=None, initialize=False)
    pg_trickle.refresh_stream_table(db, "st")
    assert _choices(db) == []


def test_it_all_belongs_to_the_owner_and_goes_with_the_stream_table(db: Connection, database: Any) -> None:
    db.execute(SETUP.encode())
    for role in ("maria", "heir"):
        database.make_role(role)
        db.execute(f"GRANT ALL ON orders, lines TO {role}; GRANT ALL ON SCHEMA public TO {role}".encode())
    db.execute("GRANT USAGE ON SCHEMA pgtrickle TO maria; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO maria")
    db.execute("SET ROLE maria")
    pg_trickle.create_stream_table(db, "st", QUERY.format(CONDITIONS[0]), schedule=None)
    db.execute("RESET ROLE")
    owners = "SELECT DISTINCT stxowner::regrole::text FROM pg_statistic_ext"
    assert db.execute(owners).fetchall() == [("maria",)]
    assert len(_choices(db)) == 1
    db.execute("ALTER TABLE st OWNER TO heir")
    pg_trickle.refresh_stream_table(db, "st")
    assert db.execute(owners).fetchall() == [("heir",)]
    pg_trickle.drop_stream_table(db, "st")
    assert db.execute(owners).fetchall() == []


@pytest.mark.parametrize(
    "forged",
    [{"operator": "> 0 OR true OR n >"}, {"number": "0 OR true"}, {"type": "int4range"}, {"operator": None}],
    ids=lambda forged: next(iter(forged)),
)
def test_a_plan_can_print_nothing_else_into_an_index(db: Connection, forged: dict[str, str | None]) -> None:
    db.execute(SETUP.encode())
    query = QUERY.format(CONDITIONS[0])
    found = db.execute("SELECT pgtrickle.compile_request('st', %s)", (query,)).fetchone()
    assert found is not None
    plan = compile_query(CompileRequest.from_json(found[0])).to_json()
    plan["states"][0]["chosen"][0] |= forged
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="chooses groups by no comparison with a number"):
        db.execute(
            "SELECT pgtrickle.create_stream_table_with_plan('st', %s, plan => %s)",
            (query, Jsonb(plan)),
        )


def _choices(conn: Connection) -> list[tuple[Any, ...]]:
    """The indexes of states over some of their groups."""
    return conn.execute(
        """SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
            WHERE c.relname LIKE 'state\\_%' AND i.indpred IS NOT NULL"""
    ).fetchall()


def _groups_read(conn: Connection) -> int:
    conn.execute("SELECT pg_stat_force_next_flush()")
    found = conn.execute(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_all_tables WHERE relname LIKE 'state\\_%'"
    ).fetchone()
    assert found is not None
    return int(found[0])
