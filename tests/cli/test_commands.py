"""The commands about stream tables, against a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

Connection = psycopg.Connection[tuple[Any, ...]]

TOTALS = "SELECT customer_id, sum(amount) AS total FROM orders GROUP BY customer_id"
RANKED = "SELECT id,\n       amount AS place\n  FROM orders\n LIMIT 10"


@pytest.fixture
def orders(db: Connection) -> Connection:
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, amount numeric(10, 2) NOT NULL)")
    db.execute("INSERT INTO orders VALUES (1, 1, 10), (2, 1, 20), (3, 2, 5)")
    return db


def rows(conn: Connection, table: str = "totals") -> list[tuple[Any, ...]]:
    return conn.execute(f"SELECT * FROM {table} ORDER BY 1".encode()).fetchall()


def test_a_stream_table_from_cradle_to_grave(pgtrickle, orders, assert_fresh):
    assert pgtrickle("create", "totals", TOTALS).code == 0
    assert len(rows(orders)) == 2
    orders.execute("INSERT INTO orders VALUES (4, 3, 1)")
    assert pgtrickle("verify", "totals").code == 1
    assert pgtrickle("refresh", "totals").code == 0
    assert pgtrickle("verify", "totals", "--json").json == [{"name": "totals", "missing": 0, "extra": 0, "ok": True}]
    assert_fresh(orders, "totals")
    assert pgtrickle("alter", "totals", "--schedule", "30s", "--refresh-mode", "DIFFERENTIAL").code == 0
    (listed,) = pgtrickle("list", "--json").json
    assert (listed["name"], listed["schedule"], listed["refresh_mode"]) == ("public.totals", "30s", "DIFFERENTIAL")
    assert pgtrickle("drop", "totals").code == 0
    assert pgtrickle("list", "--json").json == []


def test_creating_again(pgtrickle, orders):
    assert pgtrickle("create", "totals", TOTALS).code == 0
    again = pgtrickle("create", "totals", TOTALS)
    assert again.code == 1
    assert "42P07" in again.err
    assert pgtrickle("create", "totals", TOTALS, "--if-not-exists").code == 0
    assert pgtrickle("create", "totals", TOTALS.replace("sum", "max"), "--or-replace").code == 0
    assert rows(orders) == [(1, 20), (2, 5)]


def test_altering_the_query(pgtrickle, orders, assert_fresh):
    pgtrickle("create", "totals", TOTALS)
    altered = pgtrickle("alter", "totals", TOTALS.replace("sum", "min"))
    assert (altered.code, altered.err) == (0, "")
    assert rows(orders) == [(1, 10), (2, 5)]
    assert_fresh(orders, "totals")


def test_the_query_may_come_from_a_file(pgtrickle, orders, tmp_path: Path):
    file = tmp_path / "totals.sql"
    file.write_text(TOTALS + ";\n")
    assert pgtrickle("create", "totals", "--file", str(file)).code == 0
    assert len(rows(orders)) == 2


def test_a_refused_query_is_shown_with_a_reason_and_leaves_nothing(pgtrickle, orders):
    refused = pgtrickle("create", "ranked", RANKED, "--refresh-mode", "DIFFERENTIAL")
    assert refused.code == 1
    assert "0A000" in refused.err
    assert "LIMIT without ORDER BY" in refused.err
    assert "hint: " in refused.err
    assert pgtrickle("list", "--json").json == []


def test_a_wrong_column_is_pointed_at(pgtrickle, orders):
    shown = pgtrickle("create", "totals", "SELECT id,\n       nothing\n  FROM orders").err.splitlines()
    assert shown[:3] == [
        'error: column "nothing" does not exist (42703)',
        "         nothing",
        "         ^",
    ]


def test_validate_tells_without_creating(pgtrickle, orders):
    checks = {check["check_name"]: check for check in pgtrickle("validate", TOTALS, "--json").json}
    assert checks["resolved_refresh_mode"]["result"] == "DIFFERENTIAL"
    checks = {check["check_name"]: check for check in pgtrickle("validate", RANKED, "--json").json}
    assert checks["resolved_refresh_mode"]["result"] == "FULL"
    assert pgtrickle("list", "--json").json == []
    generated = r"SELECT viewname FROM pg_views WHERE schemaname = 'pgtrickle_changes' AND viewname ~ '\d'"
    assert orders.execute(generated).fetchall() == []


def test_what_export_prints_makes_it_anew(pgtrickle, orders, worker):
    pgtrickle("create", "totals", TOTALS, "--schedule", "1h")
    pgtrickle("alter", "totals", "--tier", "cold")
    script = pgtrickle("export", "totals").out
    pgtrickle("drop", "totals")
    orders.execute("SET search_path = pg_catalog")
    orders.execute(script.encode())
    assert pgtrickle("export", "totals").out == script


def test_explain_shows_rules_and_delta(pgtrickle, orders):
    pgtrickle("create", "totals", TOTALS)
    assert "Aggregate" in pgtrickle("explain", "totals").out
    assert pgtrickle("explain", "totals", "--json").json["effective_mode"] == "DIFFERENTIAL"
    assert "-- when rows changed in: public.orders\n" in pgtrickle("explain", "totals", "--delta").out
    assert {row["changed"] for row in pgtrickle("explain", "totals", "--delta", "--json").json} == {"public.orders"}


def test_status_reports_that_there_is_no_worker(pgtrickle, orders):
    shown = pgtrickle("status", "--json")
    checks = {check["check_name"]: check["severity"] for check in shown.json["checks"]}
    assert checks["worker_running"] != "OK"


def test_a_missing_stream_table_is_an_error(pgtrickle, db):
    for command in ("refresh", "drop", "verify", "explain", "export"):
        shown = pgtrickle(command, "nothing")
        assert shown.code == 1, command
        assert "42P01" in shown.err, command


def test_calling_it_wrongly_exits_with_2(run):
    assert run("create").code == 2
    assert run("nonsense").code == 2
    assert run("create", "a", "SELECT 1", "--if-not-exists", "--or-replace").code == 2
    assert run("dev", "up").code == 2


def test_no_server_exits_with_1_and_a_hint(run):
    shown = run("list", "--dsn", "host=127.0.0.1 port=1")
    assert shown.code == 1
    assert "hint: Is the server running" in shown.err


def test_version(run):
    assert run("--version").out.startswith("pgtrickle ")
