"""Which columns of its sources a query reads, and which of them no trigger tells."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.definition.conftest import Connection

ROWS = {
    "SELECT id, md5(o::text) AS m FROM orders AS o": "all",
    "SELECT count(o.*) AS n FROM orders AS o": "all",
    "SELECT id FROM orders AS o WHERE o = ROW(1, 1, 1, '')::orders": "all",
    "SELECT id FROM orders AS o WHERE EXISTS (SELECT FROM orders AS p WHERE p IS DISTINCT FROM o)": "all",
    "SELECT id, (SELECT max(length(o::text) + p.id) FROM orders AS p) AS n FROM orders AS o": "all",
    "SELECT n FROM rows_of_orders": "all",
    "SELECT id, '{VAR :varno 1 :varattno 0 ' AS looks_like_it FROM orders": ["id"],
    'SELECT id AS "{VAR :varno 1 :varattno 0 " FROM orders AS "{VAR :varno 1 :varattno 0 "': ["id"],
    "SELECT o.id, p.amount FROM orders AS o JOIN orders AS p USING (id)": ["id", "amount"],
}


@pytest.mark.versions
@pytest.mark.parametrize(("query", "expected"), ROWS.items(), ids=range(len(ROWS)))
def test_a_row_as_a_value_reads_every_column(db: Connection, query: str, expected: Any) -> None:
    """Which PostgreSQL doesn't note as dependencies: the analysed tree says it, in each version's own letters."""
    db.execute(
        """CREATE TABLE orders (id int, customer_id int, amount int, note text);
           CREATE VIEW rows_of_orders AS SELECT row_to_json(o)::text AS n FROM orders AS o"""
    )
    db.execute(f"CREATE VIEW asked AS {query}".encode())
    facts = db.execute(
        "SELECT pgtrickle_changes.relation_facts(CURRENT_USER::regrole::oid, 'asked'::regclass::oid)"
    ).fetchone()
    assert facts is not None
    (used,) = [one["used"] for one in facts[0] if one["name"] == "orders"]
    assert used == (["id", "customer_id", "amount", "note"] if expected == "all" else expected)


@pytest.mark.versions(since=18)
@pytest.mark.parametrize("query", ["SELECT a, of FROM placed", "SELECT placed::text AS t FROM placed"])
def test_a_virtual_column_that_reads_tableoid_is_computed_anew(shop: Any, author: Connection, query: str) -> None:
    shop.superuser.execute(
        """CREATE TABLE placed (a int, of oid GENERATED ALWAYS AS (tableoid) VIRTUAL) PARTITION BY LIST (a);
           CREATE TABLE placed_1 PARTITION OF placed FOR VALUES IN (1);
           CREATE TABLE placed_2 PARTITION OF placed DEFAULT;
           GRANT SELECT ON placed TO st_author"""
    )
    pg_trickle.create_stream_table(author, "st", query)
    assert 'virtual column "of" reads tableoid' in shop.catalog("st")["downgrade_reason"]
    for change in ("INSERT INTO placed VALUES (1), (2)", "UPDATE placed SET a = 3 - a WHERE a = 1"):
        shop.superuser.execute(change.encode())
        shop.fresh("st")
    for mode in ("DIFFERENTIAL", "IMMEDIATE"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="placed"):
            pg_trickle.create_stream_table(author, "st2", query, refresh_mode=mode)


@pytest.mark.versions(since=18)
@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("SELECT a FROM placed", "DIFFERENTIAL"),
        ("SELECT a FROM placed", "IMMEDIATE"),
        ("SELECT a, random() > 2 AS b FROM placed", "FULL"),
    ],
)
def test_a_virtual_column_that_reads_tableoid_and_that_nobody_reads_harms_nobody(
    shop: Any, author: Connection, query: str, mode: str
) -> None:
    shop.superuser.execute(
        """CREATE TABLE placed (a int, b int, of oid GENERATED ALWAYS AS (tableoid) VIRTUAL);
           GRANT SELECT ON placed TO st_author"""
    )
    pg_trickle.create_stream_table(author, "st", query, refresh_mode=mode)
    shop.superuser.execute("INSERT INTO placed VALUES (1), (2); UPDATE placed SET a = 3 WHERE a = 1")
    shop.fresh("st")
    assert shop.catalog("st")["effective_refresh_mode"] == mode
