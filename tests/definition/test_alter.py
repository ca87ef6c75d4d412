"""Changing stream tables: options, and new queries under the same table."""

from __future__ import annotations

from typing import Any

import pytest

import pg_trickle
from tests.definition.conftest import TOTALS, Connection, Fails, rows


@pytest.fixture
def st(author: Connection) -> str:
    pg_trickle.create_stream_table(author, "st", TOTALS, schedule="5m")
    return "st"


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"schedule": "1h"}, {"schedule": "1h", "schedule_seconds": 3600.0}),
    ({"schedule": "calculated"}, {"schedule": "calculated", "schedule_seconds": None}),
    ({"schedule": "*/5 * * * *"}, {"schedule": "*/5 * * * *", "schedule_seconds": None}),
    ({"refresh_mode": "full"}, {"refresh_mode": "FULL", "effective_refresh_mode": "FULL", "downgrade_reason": None}),
    ({"refresh_mode": "DIFFERENTIAL"}, {"refresh_mode": "DIFFERENTIAL", "effective_refresh_mode": "DIFFERENTIAL"}),
    ({"status": "suspended"}, {"status": "SUSPENDED"}),
    ({"diamond_consistency": "none"}, {"diamond_consistency": "none"}),
    ({"diamond_schedule_policy": "slowest"}, {"diamond_schedule_policy": "slowest"}),
    ({"cdc_mode": "trigger"}, {"cdc_mode": "trigger"}),
    ({"append_only": True}, {"append_only": True}),
    ({"tier": "Frozen"}, {"tier": "frozen"}),
    ({"schedule": "2m", "tier": "warm"}, {"schedule": "2m", "schedule_seconds": 120.0, "tier": "warm"}),
    ({}, {}),
]


@pytest.mark.parametrize(("change", "changed"), OPTIONS, ids=lambda value: str(value))
def test_what_is_given_changes_and_nothing_else(
    shop: Any, author: Connection, st: str, change: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = shop.catalog(st)
    pg_trickle.alter_stream_table(author, st, **change)
    assert shop.catalog(st) == before | changed


@pytest.mark.parametrize(
    ("sqlstate", "change"),
    [
        ("22023", {"schedule": "soon"}),
        ("22023", {"refresh_mode": "x"}),
        ("22023", {"status": "ERROR"}),
        ("22023", {"tier": "lukewarm"}),
        ("22023", {"diamond_consistency": "x"}),
        ("22023", {"diamond_schedule_policy": "x"}),
        ("55000", {"cdc_mode": "wal"}),
        ("42601", {"query": "DROP TABLE orders"}),
        ("42601", {"query": ""}),
        ("42P01", {"query": "SELECT 1 FROM nowhere"}),
    ],
    ids=lambda value: str(value),
)
def test_what_is_refused_changes_nothing(
    shop: Any, author: Connection, st: str, fails: Fails, sqlstate: str, change: dict[str, Any]
) -> None:
    before, traces = shop.catalog(st), shop.traces()
    fails(sqlstate, pg_trickle.alter_stream_table, author, st, **change)
    assert (shop.catalog(st), shop.traces()) == (before, traces)


@pytest.mark.parametrize("name", ["nothing", "orders", "public.nothing", "nowhere.st"])
def test_there_has_to_be_one(author: Connection, fails: Fails, name: str) -> None:
    for function in (
        pg_trickle.alter_stream_table,
        pg_trickle.drop_stream_table,
        pg_trickle.refresh_stream_table,
        pg_trickle.suspend_stream_table,
        pg_trickle.resume_stream_table,
        pg_trickle.reinitialize_stream_table,
        pg_trickle.verify_stream_table,
    ):
        fails("42P01", function, author, name)


QUERIES = {
    "another aggregate": "SELECT customer_id, max(amount) AS total FROM orders GROUP BY customer_id",
    "a column more": "SELECT customer_id, sum(amount) AS total, count(*) AS n FROM orders GROUP BY customer_id",
    "a column less": "SELECT sum(amount) AS total FROM orders",
    "another type": "SELECT customer_id::text AS customer_id, sum(amount)::float8 AS total FROM orders GROUP BY 1",
    "another key": "SELECT note, customer_id, amount AS total FROM orders",
    "another order": "SELECT sum(amount) AS total, customer_id FROM orders GROUP BY customer_id",
    "other names": "SELECT customer_id AS total, sum(amount) AS customer_id FROM orders GROUP BY customer_id",
    "other columns": "SELECT id, name FROM customers",
    "a bag": "SELECT customer_id, amount AS total FROM orders",
    "two sources": "SELECT c.name, o.amount AS total FROM customers AS c JOIN orders AS o ON o.customer_id = c.id",
    "FULL": "SELECT customer_id, amount AS total FROM orders LIMIT 1000000",
    "windows": "SELECT customer_id, sum(amount) OVER (PARTITION BY note) AS total FROM orders",
    "first rows": "SELECT customer_id, amount AS total FROM orders ORDER BY amount, id LIMIT 7",
    "not watched": "SELECT customer_id, random() AS total FROM orders",
    "constant": "SELECT 1 AS customer_id",
    "duplicates that a former key forbids": "SELECT 1 AS customer_id, id % 2 + 0.00 AS total FROM orders",
    "distinct": "SELECT DISTINCT customer_id FROM orders",
}


@pytest.mark.versions
def test_one_query_after_another(shop: Any, author: Connection, st: str) -> None:
    """Every change from every kind of query to every other that is next to it, there and back."""
    (oid, acl) = shop.superuser.execute("SELECT oid, relowner FROM pg_class WHERE relname = 'st'").fetchone()
    names = [*QUERIES, *reversed(QUERIES)]
    for number, name in enumerate(names):
        mode = "FULL" if name == "not watched" else "AUTO"
        pg_trickle.alter_stream_table(author, st, query=QUERIES[name], refresh_mode=mode)
        if "random" not in QUERIES[name]:
            assert pg_trickle.verify_stream_table(author, st).ok, name
        shop.superuser.execute(
            f"""UPDATE orders SET amount = amount + 1 WHERE id % 3 = 0;
                INSERT INTO orders VALUES ({100 + number}, 1, 7, 'n');
                DELETE FROM orders WHERE id = {number}""".encode()
        )
        if "random" in QUERIES[name]:
            pg_trickle.refresh_stream_table(author, st)
        else:
            shop.fresh(st)
        assert shop.catalog(st)["effective_refresh_mode"] == (
            "FULL" if name in {"FULL", "not watched"} else "DIFFERENTIAL"
        )
    assert shop.superuser.execute("SELECT oid, relowner FROM pg_class WHERE relname = 'st'").fetchone() == (oid, acl)
    # Nothing of former queries is left: one definition, the captures of the last query.
    assert len([trace for trace in shop.traces() if trace.startswith("view") or "query_" in trace]) == 1
    kept = rows(shop.superuser, "SELECT source_relid::regclass::text FROM pgtrickle.pgt_captures")
    assert kept == [("orders",)]


def test_grants_policies_and_indexes_stay(shop: Any, author: Connection, st: str) -> None:
    shop.database.make_role("app_reader")
    author.execute(
        """GRANT SELECT ON st TO app_reader;
           ALTER TABLE st ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
           CREATE POLICY few ON st USING (customer_id < 3);
           CREATE INDEX by_total ON st (total);
           CREATE UNIQUE INDEX mine ON st (customer_id) NULLS NOT DISTINCT;
           COMMENT ON TABLE st IS 'totals'"""
    )
    looks = """SELECT c.relacl::text, c.relrowsecurity, c.relforcerowsecurity, obj_description(c.oid),
                      (SELECT string_agg(polname, ',') FROM pg_policy WHERE polrelid = c.oid),
                      (SELECT array_agg(indexrelid::regclass::text) FROM pg_index WHERE indrelid = c.oid
                          AND indexrelid::regclass::text IN ('by_total', 'mine'))
                 FROM pg_class AS c WHERE c.oid = 'st'::regclass"""
    before = rows(shop.superuser, looks)
    for query in (TOTALS.replace("sum", "min"), QUERIES["a column more"], TOTALS + " HAVING count(*) > 1"):
        pg_trickle.alter_stream_table(author, st, query=query)
        assert rows(shop.superuser, looks) == before
    assert len(rows(shop.superuser, "SELECT FROM st")) == 5
    assert len(rows(shop.as_("app_reader"), "SELECT FROM st")) == 2


def test_what_depends_on_a_column_keeps_it(shop: Any, author: Connection, st: str, fails: Fails) -> None:
    author.execute("CREATE VIEW sums AS SELECT total FROM st")
    before = shop.catalog(st)
    fails("2BP01", pg_trickle.alter_stream_table, author, st, query="SELECT customer_id FROM orders")
    fails("0A000", pg_trickle.alter_stream_table, author, st, query=QUERIES["another type"])
    assert shop.catalog(st) == before
    pg_trickle.alter_stream_table(author, st, query=QUERIES["another aggregate"])
    shop.fresh(st)


def test_who_reads_it_sees_what_the_new_query_changed(shop: Any, author: Connection, st: str) -> None:
    pg_trickle.create_stream_table(author, "reader", "SELECT sum(total) AS total FROM st")
    pg_trickle.create_stream_table(author, "copy", "SELECT customer_id, total FROM st")
    for name in ("another aggregate", "a column more", "another order", "duplicates that a former key forbids"):
        pg_trickle.alter_stream_table(author, st, query=QUERIES[name])
        shop.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id = 7")
        shop.fresh("reader", "copy", st)


def test_modes_there_and_back(shop: Any, author: Connection, st: str, fails: Fails) -> None:
    for mode in ("FULL", "DIFFERENTIAL", "AUTO", "FULL", "AUTO"):
        pg_trickle.alter_stream_table(author, st, refresh_mode=mode)
        for _ in range(2):
            shop.superuser.execute("UPDATE orders SET amount = amount + 1, customer_id = 9 - customer_id WHERE id < 9")
            shop.fresh(st)
    pg_trickle.alter_stream_table(author, st, query=QUERIES["FULL"])
    assert "LIMIT" in shop.catalog(st)["downgrade_reason"]
    error = fails("0A000", pg_trickle.alter_stream_table, author, st, refresh_mode="DIFFERENTIAL")
    assert "LIMIT" in str(error)
    pg_trickle.alter_stream_table(author, st, query=TOTALS, refresh_mode="DIFFERENTIAL")
    error = fails("0A000", pg_trickle.alter_stream_table, author, st, query=QUERIES["FULL"])
    assert "LIMIT" in str(error)
    shop.fresh(st)


def test_a_cycle_is_refused_by_name(shop: Any, author: Connection, st: str, fails: Fails) -> None:
    pg_trickle.create_stream_table(author, "second", "SELECT customer_id, total FROM st")
    author.execute("CREATE VIEW between_them AS SELECT customer_id, total + 1 AS total FROM second")
    pg_trickle.create_stream_table(author, "third", "SELECT customer_id, total FROM between_them")
    for reader in ("st", "second", "between_them", "third"):
        query = f"SELECT customer_id, total FROM {reader}"
        error = fails("42P17", pg_trickle.alter_stream_table, author, st, query=query)
        assert "st" in str(error.diag.message_detail)
        assert "reads" in str(error.diag.message_detail)
    shop.fresh("third")


def test_a_new_query_for_one_that_is_not_filled_leaves_it_empty(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS, initialize=False)
    pg_trickle.alter_stream_table(author, "st", query=QUERIES["a column more"])
    assert shop.catalog("st")["status"] == "INITIALIZING"
    assert rows(author, "SELECT * FROM st") == []
    shop.fresh("st")


def test_it_answers_to_its_new_name(shop: Any, author: Connection, st: str) -> None:
    author.execute("ALTER TABLE st RENAME TO renamed")
    pg_trickle.alter_stream_table(author, "renamed", query=QUERIES["a column more"])
    author.execute("ALTER TABLE renamed RENAME TO again")
    shop.superuser.execute("UPDATE orders SET amount = 0")
    pg_trickle.alter_stream_table(author, "again", schedule="1h")
    assert shop.catalog("again")["pgt_name"] == "again"


def test_suspend_and_resume(shop: Any, author: Connection, st: str, fails: Fails) -> None:
    pg_trickle.suspend_stream_table(author, st)
    error = fails("55000", pg_trickle.refresh_stream_table, author, st)
    assert "resume" in str(error.diag.message_hint)
    shop.superuser.execute("UPDATE orders SET amount = amount + 1")
    pg_trickle.resume_stream_table(author, st)
    shop.fresh(st)
    pg_trickle.create_stream_table(author, "empty", TOTALS, initialize=False)
    pg_trickle.suspend_stream_table(author, "empty")
    pg_trickle.alter_stream_table(author, "empty", status="ACTIVE")
    assert shop.catalog("empty")["status"] == "INITIALIZING"


def test_reinitialize_recomputes(shop: Any, author: Connection, st: str) -> None:
    author.execute("UPDATE st SET total = 0; DELETE FROM st WHERE customer_id = 1; INSERT INTO st VALUES (77, 7)")
    assert pg_trickle.verify_stream_table(author, st) == (5, 5, False)
    pg_trickle.refresh_stream_table(author, st)
    assert not pg_trickle.verify_stream_table(author, st).ok
    pg_trickle.reinitialize_stream_table(author, st)
    assert not pg_trickle.verify_stream_table(author, st).ok
    shop.fresh(st)


def test_given_to_a_superuser_it_stops(shop: Any, author: Connection, st: str, fails: Fails) -> None:
    """REASSIGN OWNED is done lightly: a plain role's query doesn't run with a superuser's rights for that."""
    shop.superuser.execute("ALTER TABLE st OWNER TO postgres")
    shop.superuser.execute("UPDATE orders SET amount = 0")
    for action in (pg_trickle.refresh_stream_table, pg_trickle.verify_stream_table):
        error = fails("55000", action, shop.superuser, st)
        assert "OWNER TO st_author" in str(error.diag.message_hint)
        fails("42501", action, author, st)
    fails("42501", pg_trickle.drop_stream_table, author, st)
    worker = shop.as_("pgtrickle_worker")
    with worker.transaction():
        worker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        query = "SELECT pgtrickle_changes.worker_refresh(%s, 'SCHEDULER')"
        (result,) = worker.execute(query, ([shop.catalog(st)["pgt_id"]],)).fetchone()
    assert result[0]["error"]["sqlstate"] == "55000"
    shop.superuser.execute("ALTER TABLE st OWNER TO st_author")
    shop.fresh(st)


@pytest.mark.parametrize(
    "query", ["SELECT count(*) AS n FROM orders", "SELECT a.id AS h FROM orders AS a JOIN orders AS b ON true"]
)
def test_a_query_without_a_key_and_without_nulls(author: Connection, st: str, query: str) -> None:
    """What is there has no values for the new columns, and NULL is none that the new query knows."""
    pg_trickle.alter_stream_table(author, st, query=query)
    assert sorted(rows(author, f"TABLE {st}")) == sorted(rows(author, query)) != []
