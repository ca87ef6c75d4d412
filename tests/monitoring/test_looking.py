"""What the looking functions say."""

from __future__ import annotations

import json

import psycopg
import pytest

import pg_trickle

BY_CUSTOMER = "SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id"


def test_status(shop, rows):
    names = "name, status, refresh_mode, is_populated, consecutive_errors, schedule, scc_id"
    found = rows(shop.superuser, f"SELECT {names} FROM pgtrickle.pgt_status()")
    assert found == [("public.order_summary", "ACTIVE", "AUTO", True, 0, None, None)]
    (age,) = rows(shop.superuser, "SELECT pgtrickle.get_staleness(name) BETWEEN 0 AND 600 FROM pgtrickle.pgt_status()")
    assert age == (True,)


def test_names_that_need_quotes_can_be_handed_on(shop, rows):
    shop.superuser.execute('CREATE SCHEMA "My Schema"; GRANT ALL ON SCHEMA "My Schema" TO st_author')
    shop.create('"My Schema"."Order.Sum"', BY_CUSTOMER, schedule=None)
    (found,) = rows(
        shop.superuser,
        """SELECT s.name, l.source_table
             FROM pgtrickle.pgt_status() AS s, pgtrickle.list_sources(s.name) AS l
            WHERE s.name <> 'public.order_summary'""",
    )
    assert found == ('"My Schema"."Order.Sum"', "public.orders")


def test_a_renamed_stream_table_goes_by_its_new_name(shop, rows):
    shop.superuser.execute("ALTER TABLE order_summary RENAME TO sums")
    assert rows(shop.superuser, "SELECT name FROM pgtrickle.pgt_status()") == [("public.sums",)]


def test_an_unqualified_name_is_looked_up_on_the_callers_path(shop, rows):
    conn = shop.as_("st_author")
    conn.execute("SET search_path = pg_catalog")
    with pytest.raises(psycopg.errors.UndefinedTable):
        rows(conn, "SELECT pgtrickle.get_staleness('order_summary')")
    conn.execute("SET search_path = public")
    assert rows(conn, "SELECT count(*) FROM pgtrickle.list_sources('order_summary')") == [(1,)]
    assert rows(conn, "SELECT count(*) FROM pgtrickle.list_sources(%s)", "order_summary") == [(1,)]


def test_an_ordinary_table_is_no_stream_table(shop, rows):
    with pytest.raises(psycopg.errors.UndefinedTable, match=r'stream table "public\.orders" does not exist'):
        rows(shop.superuser, "SELECT pgtrickle.get_staleness('orders')")


def test_history_comes_newest_first(shop, rows):
    for number in range(4, 7):
        shop.superuser.execute("INSERT INTO orders VALUES (%s, 1, 1, 1)", (number,))
        pg_trickle.refresh_stream_table(shop.superuser, "order_summary")
    history = "SELECT refresh_id, initiated_by, rows_in FROM pgtrickle.get_refresh_history('order_summary'"
    every = rows(shop.superuser, f"{history})")
    assert [(by, n) for _, by, n in every] == [("MANUAL", 1), ("MANUAL", 1), ("MANUAL", 1), ("INITIAL", 0)]
    assert rows(shop.superuser, f"{history}, 2)") == every[:2]
    assert rows(shop.superuser, f"{history}, NULL)") == every
    assert rows(shop.superuser, f"{history}, -1)") == []
    assert rows(shop.superuser, "SELECT refresh_id FROM pgtrickle.refresh_timeline(1)") == [(every[0][0],)]


def test_efficiency_counts_what_did_something(shop, rows):
    shop.superuser.execute("ANALYZE orders")
    shop.superuser.execute("INSERT INTO orders VALUES (4, 1, 1, 1)")
    pg_trickle.refresh_stream_table(shop.superuser, "order_summary")
    pg_trickle.refresh_stream_table(shop.superuser, "order_summary")
    (found,) = rows(
        shop.superuser,
        """SELECT pgt_schema, pgt_name, total_refreshes, diff_count, full_count, avg_change_ratio, avg_diff_ms > 0,
                  diff_speedup = avg_full_ms / avg_diff_ms
             FROM pgtrickle.refresh_efficiency()""",
    )
    assert found == ("public", "order_summary", 3, 1, 1, pytest.approx(1 / 3), True, True)
    (stats,) = rows(
        shop.superuser,
        """SELECT total_refreshes, successful_refreshes, failed_refreshes, refreshes_without_changes, rows_in
             FROM pgtrickle.pg_stat_stream_tables""",
    )
    assert stats == (3, 3, 0, 1, 1)


def test_sources_with_the_columns_used(shop, rows):
    (found,) = rows(shop.superuser, "SELECT * FROM pgtrickle.list_sources('order_summary')")
    table, oid, kind, mode, columns = found
    assert (table, kind, mode) == ("public.orders", "table", "trigger")
    assert rows(shop.superuser, "SELECT 'orders'::regclass::oid") == [(oid,)]
    assert sorted(columns) == ["amount", "customer_id", "tenant_id"]


def test_a_source_that_was_dropped_goes_by_its_number(shop, rows):
    (number,) = rows(shop.superuser, "SELECT 'orders'::regclass::oid::text")[0]
    shop.superuser.execute("DROP TABLE orders CASCADE")
    assert rows(shop.superuser, "SELECT source_table FROM pgtrickle.list_sources('order_summary')") == [(number,)]
    nodes = rows(shop.superuser, "SELECT node FROM pgtrickle.dependency_tree()")
    assert nodes == [("public.order_summary",), (number,)]
    ((text,),) = rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('order_summary')")
    assert text.startswith("Stream table public.order_summary\n")
    assert rows(shop.superuser, "SELECT DISTINCT changed FROM pgtrickle.explain_delta('order_summary')") == [(number,)]
    for other in (
        "change_buffer_sizes",
        "check_cdc_health",
        "trigger_inventory",
        "diamond_groups",
        "refresh_efficiency",
    ):
        rows(shop.superuser, f"SELECT * FROM pgtrickle.{other}()")
    with pytest.raises(psycopg.errors.InvalidObjectDefinition, match=r"the definition .* was dropped"):
        rows(shop.superuser, "SELECT * FROM pgtrickle.verify_stream_table('order_summary')")


def test_the_tree_shows_a_shared_part_once(shop, rows):
    shop.create("left_arm", "SELECT customer_id, total FROM order_summary", schedule=None)
    shop.create("right_arm", "SELECT customer_id, total AS t FROM order_summary", schedule=None)
    shop.create("top", "SELECT l.customer_id, r.t FROM left_arm l JOIN right_arm r USING (customer_id)", schedule=None)
    tree = rows(shop.superuser, "SELECT tree_line, node_type, depth, status FROM pgtrickle.dependency_tree()")
    assert tree == [
        ("public.top", "stream_table", 0, "ACTIVE"),
        ("├── public.left_arm", "stream_table", 1, "ACTIVE"),
        ("│   └── public.order_summary", "stream_table", 2, "ACTIVE"),
        ("│       └── public.orders", "table", 3, None),
        ("└── public.right_arm", "stream_table", 1, "ACTIVE"),
        ("    └── public.order_summary (see above)", "stream_table", 2, "ACTIVE"),
    ]


def test_diamonds(shop, rows):
    shop.create("left_arm", "SELECT customer_id, total FROM order_summary", schedule=None)
    shop.create("right_arm", "SELECT customer_id, total AS t FROM order_summary", schedule=None)
    assert rows(shop.superuser, "SELECT * FROM pgtrickle.diamond_groups()") == []
    shop.create("top", "SELECT l.customer_id, r.t FROM left_arm l JOIN right_arm r USING (customer_id)", schedule=None)
    found = rows(shop.superuser, "SELECT member_name, is_convergence, schedule_policy FROM pgtrickle.diamond_groups()")
    assert found == [
        ("left_arm", False, "fastest"),
        ("order_summary", False, "fastest"),
        ("right_arm", False, "fastest"),
        ("top", True, "fastest"),
    ]


def test_there_are_no_cycles(shop, rows):
    assert rows(shop.superuser, "SELECT * FROM pgtrickle.pgt_scc_status()") == []


def test_pending_rows_are_counted_for_each_reader_of_a_buffer(shop, rows):
    shop.create("by_customer", BY_CUSTOMER, schedule=None)
    query = "SELECT stream_table, source_table, pending_rows FROM pgtrickle.change_buffer_sizes()"
    shop.superuser.execute("INSERT INTO orders SELECT n, 1, 1, 1 FROM generate_series(4, 8) AS n")
    expected = [("public.by_customer", "public.orders", 5), ("public.order_summary", "public.orders", 5)]
    assert rows(shop.superuser, query) == expected
    pg_trickle.refresh_stream_table(shop.superuser, "order_summary")
    shop.superuser.execute("DELETE FROM orders WHERE id = 4")
    expected = [("public.by_customer", "public.orders", 6), ("public.order_summary", "public.orders", 1)]
    for role in ("postgres", "st_author", "observer"):
        assert rows(shop.as_(role), query) == expected


def test_pending_rows_of_ones_own_transaction(shop, rows):
    query = "SELECT pending_rows FROM pgtrickle.change_buffer_sizes()"
    with shop.superuser.transaction():
        shop.superuser.execute("INSERT INTO orders VALUES (4, 1, 1, 1)")
        pg_trickle.refresh_stream_table(shop.superuser, "order_summary")
        assert rows(shop.superuser, query) == [(0,)]
        shop.superuser.execute("INSERT INTO orders VALUES (5, 1, 1, 1)")
        assert rows(shop.superuser, query) == [(1,)]
    assert rows(shop.superuser, query) == [(1,)]


def test_before_it_is_filled_nothing_can_be_said_of_pending_rows(shop, rows):
    shop.create("later", BY_CUSTOMER, schedule=None, initialize=False)
    found = rows(shop.superuser, "SELECT stream_table, pending_rows FROM pgtrickle.change_buffer_sizes()")
    assert found == [("public.later", None), ("public.order_summary", 0)]


def test_one_owners_broken_buffer_does_not_hide_the_others(shop, rows):
    shop.caller("second_author")
    shop.superuser.execute("GRANT SELECT ON orders TO second_author; GRANT CREATE ON SCHEMA public TO second_author")
    shop.create("by_customer", BY_CUSTOMER, "second_author", schedule=None)
    (buffer,) = rows(shop.superuser, "SELECT buffer FROM pgtrickle.check_cdc_health() WHERE owner = 'second_author'")
    shop.superuser.execute(f"ALTER TABLE pgtrickle_changes.{buffer[0]} RENAME COLUMN xid TO id".encode())
    found = rows(shop.superuser, "SELECT stream_table, pending_rows FROM pgtrickle.change_buffer_sizes()")
    assert found == [("public.by_customer", None), ("public.order_summary", 0)]


def test_the_explanation(shop, rows):
    ((text,),) = rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('order_summary')")
    lines = text.splitlines()
    assert lines[0] == "Stream table public.order_summary"
    assert lines[1] == "  refresh mode: AUTO, effectively DIFFERENTIAL"
    assert any("Aggregate" in line and "[" in line for line in lines)
    assert any("public.orders" in line for line in lines)
    ((document,),) = rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('order_summary', 'json')")
    told = json.loads(document)
    assert (told["configured_mode"], told["effective_mode"], told["reason"]) == ("AUTO", "DIFFERENTIAL", None)
    assert told["key"] == ["tenant_id", "customer_id"]
    assert {"operator", "detail", "rule", "cost", "depth"} == set(told["tree"][0])
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('order_summary', 'xml')")


def test_the_explanation_tells_what_it_costs(shop, rows):
    """Each operator by its rule, with the size of what it reads; the whole as it was measured."""
    shop.superuser.execute("INSERT INTO orders SELECT g, 1, g, 5 FROM generate_series(1000, 1199) AS g; ANALYZE orders")
    shop.create("top", "SELECT id, amount FROM orders ORDER BY amount DESC, id LIMIT 3", schedule=None)
    shop.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id = 1000")
    pg_trickle.refresh_stream_table(shop.superuser, "top")
    ((document,),) = rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('top', 'json')")
    told = json.loads(document)
    assert [(one["operator"], one["cost"]) for one in told["tree"]] == [
        ("Top", "|Δ| and the stored rows; all rows below, sorted, when a stored one went"),
        ("Scan", "|Δ| rows of its change buffer"),
    ]
    (source,) = told["sources"]
    assert source["relation"] == "public.orders"
    assert source["rows"] > 200
    measured = {one["mode"]: one for one in told["measured"]}
    assert measured["DIFFERENTIAL"]["refreshes"] == 1
    assert measured["DIFFERENTIAL"]["rows_in"] == 2
    assert measured["DIFFERENTIAL"]["ms"] > 0
    ((text,),) = rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('top')")
    assert "]  costs |Δ| rows of its change buffer" in text
    assert f"reads public.orders (about {source['rows']} rows)" in text
    assert "measured, 1 of the last refreshes DIFFERENTIAL: " in text


def test_the_explanation_of_a_recomputed_query_says_why(shop, rows):
    shop.create("ranked", "SELECT id, amount AS place FROM orders LIMIT 1000000", schedule=None)
    (modes,) = rows(shop.superuser, "SELECT * FROM pgtrickle.explain_refresh_mode('ranked')")
    assert modes[:2] == ("AUTO", "FULL")
    assert "LIMIT" in modes[2]
    ((text,),) = rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('ranked')")
    assert "AUTO, effectively FULL: " in text
    assert rows(shop.superuser, "SELECT * FROM pgtrickle.explain_delta('ranked')") == []


def test_an_index_is_wished_for_until_it_is_there(shop, rows):
    shop.superuser.execute("CREATE TABLE tenants (id int PRIMARY KEY, name text)")
    shop.superuser.execute("GRANT SELECT ON tenants TO st_author")
    shop.create("named", "SELECT o.id, t.name FROM orders o JOIN tenants t ON t.id = o.tenant_id", schedule=None)
    shop.superuser.execute("INSERT INTO orders SELECT g, 1, g, 5 FROM generate_series(1000, 1199) AS g; ANALYZE orders")
    ((text,),) = rows(shop.superuser, "SELECT pgtrickle.explain_stream_table('named')")
    # Of what was never analyzed nothing is known.
    assert "public.tenants" in text
    assert "about  rows" not in text
    assert "would like an index on public.orders (tenant_id)" in text
    assert "without it a look-up reads about 2" in text
    query = "SELECT pgtrickle.explain_stream_table('named', 'json')::jsonb -> 'indexes'"
    ((wanted,),) = rows(shop.superuser, query)
    assert [(one["relation"], one["columns"]) for one in wanted] == [("public.orders", ["tenant_id"])]
    shop.superuser.execute("CREATE INDEX ON orders (tenant_id)")
    assert rows(shop.superuser, query) == [([],)]


def test_the_delta_of_each_set_of_changed_sources(shop, rows):
    found = rows(shop.superuser, "SELECT changed, step, statement FROM pgtrickle.explain_delta('order_summary')")
    assert found[0][:2] == ("public.orders", 1)
    assert "changes_" in found[0][2]
    assert {changed for changed, _, _ in found} <= {"public.orders", "any"}
