"""Results about a stream table are shown to its owner, to who may SELECT from it, and to members of pg_monitor."""

from __future__ import annotations

import psycopg
import pytest

LISTINGS = [
    "SELECT * FROM pgtrickle.pgt_status()",
    "SELECT * FROM pgtrickle.refresh_efficiency()",
    "SELECT * FROM pgtrickle.refresh_timeline()",
    "SELECT * FROM pgtrickle.dependency_tree()",
    "SELECT * FROM pgtrickle.change_buffer_sizes()",
    "SELECT * FROM pgtrickle.check_cdc_health()",
    "SELECT * FROM pgtrickle.trigger_inventory()",
    "SELECT * FROM pgtrickle.stream_tables_info",
    "SELECT * FROM pgtrickle.pg_stat_stream_tables",
    "SELECT * FROM pgtrickle.pgt_dependencies",
    "SELECT * FROM pgtrickle.pgt_refresh_history",
]
DETAILS = [
    "SELECT * FROM pgtrickle.list_sources('order_summary')",
    "SELECT * FROM pgtrickle.get_refresh_history('order_summary')",
    "SELECT * FROM pgtrickle.explain_refresh_mode('order_summary')",
    "SELECT pgtrickle.get_staleness('order_summary')",
]
PLANS = [
    "SELECT pgtrickle.explain_stream_table('order_summary')",
    "SELECT pgtrickle.explain_stream_table('order_summary', 'json')",
    "SELECT * FROM pgtrickle.explain_delta('order_summary')",
]
DEFINITIONS = ["SELECT * FROM pgtrickle.pgt_stream_tables", "SELECT * FROM pgtrickle.pgt_plans"]

# The security guide's words.
AUDIT_ALL = """
SELECT pgt_name, refresh_mode, started_at, finished_at,
success, rows_in, rows_out, error_message
FROM pgtrickle.pgt_refresh_history
ORDER BY started_at DESC
LIMIT 100;
"""
AUDIT_FAILED = """
SELECT * FROM pgtrickle.pgt_refresh_history
WHERE NOT success AND started_at > now() - interval '1 hour';
"""

ENTITLED = ["postgres", "st_author", "app_reader"]


@pytest.mark.versions
def test_who_may_look_sees_the_stream_table(shop, rows):
    for role in [*ENTITLED, "observer"]:
        conn = shop.as_(role)
        assert [query for query in LISTINGS + DETAILS if not rows(conn, query)] == [], role


@pytest.mark.versions
def test_who_may_select_sees_query_and_plan(shop, rows):
    for role in ENTITLED:
        conn = shop.as_(role)
        assert [query for query in PLANS + DEFINITIONS if not rows(conn, query)] == [], role


@pytest.mark.versions
def test_a_stranger_sees_nothing(shop, rows):
    stranger = shop.as_("stranger")
    assert [query for query in LISTINGS + DEFINITIONS if rows(stranger, query)] == []
    for query in DETAILS + PLANS:
        with pytest.raises(psycopg.errors.UndefinedTable):
            rows(stranger, query)


def test_a_monitor_sees_neither_query_nor_plan(shop, rows):
    observer = shop.as_("observer")
    for query in PLANS:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(observer, query)
    for query in DEFINITIONS:
        assert rows(observer, query) == []
    assert rows(observer, "SELECT defining_query FROM pgtrickle.stream_tables_info") == [(None,)]


def test_select_without_usage_on_the_schema_is_no_right_to_look(shop, rows):
    shop.superuser.execute("CREATE SCHEMA hidden; GRANT ALL ON SCHEMA hidden TO st_author")
    shop.create("hidden.summary", "SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id", schedule=None)
    shop.superuser.execute("GRANT SELECT ON hidden.summary TO stranger")
    assert rows(shop.as_("stranger"), "SELECT name FROM pgtrickle.pgt_status()") == []
    shop.superuser.execute("GRANT USAGE ON SCHEMA hidden TO stranger")
    assert rows(shop.as_("stranger"), "SELECT name FROM pgtrickle.pgt_status()") == [("hidden.summary",)]


def test_the_caller_counts_not_who_logged_in(shop, rows):
    """Neither SET ROLE nor a SECURITY DEFINER function of somebody else's makes the session user the caller."""
    superuser = shop.database.connect()
    superuser.execute("SET ROLE stranger")
    assert rows(superuser, "SELECT * FROM pgtrickle.pgt_status()") == []
    superuser.execute("RESET ROLE")
    superuser.execute(
        """
        CREATE FUNCTION names() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS
            'SELECT name FROM pgtrickle.pgt_status()';
        ALTER FUNCTION names() OWNER TO stranger;
        """
    )
    assert rows(superuser, "SELECT * FROM names()") == []


def test_the_application_role_gets_rows_from_its_three_functions(application, rows):
    assert [row[0] for row in rows(application, "SELECT * FROM pgtrickle.pgt_status()")] == ["public.order_summary"]
    assert len(rows(application, "SELECT * FROM pgtrickle.refresh_efficiency()")) == 1
    checks = rows(application, "SELECT * FROM pgtrickle.health_check()")
    assert [check for check, _, _ in checks] == [
        "worker_running",
        "error_tables",
        "stale_tables",
        "needs_reinit",
        "consecutive_errors",
        "buffer_growth",
        "slot_lag",
        "capture_integrity",
        "bridge",
        "fuse",
    ]


def test_the_application_role_may_call_nothing_else(application, rows):
    for query in [*DETAILS, *PLANS, "SELECT * FROM pgtrickle.change_buffer_sizes()"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(application, query)


def test_the_application_role_sees_no_history_and_no_queries(application, rows):
    for relation in ("pgt_refresh_history", "pgt_stream_tables", "pgt_plans", "stream_tables_info", "visible_sources"):
        assert rows(application, f"SELECT * FROM pgtrickle.{relation}") == []


def test_a_role_that_is_merely_called_pgtrickle_user_sees_nothing(shop, rows):
    shop.caller("pgtrickle_user_to_be")
    shop.superuser.execute("ALTER ROLE pgtrickle_user_to_be RENAME TO pgtrickle_user; GRANT pgtrickle_user TO stranger")
    shop.database.adopt_role("pgtrickle_user")
    shop.superuser.execute("REVOKE ALL ON FUNCTION pgtrickle.pgt_status() FROM pgtrickle_user")
    assert rows(shop.as_("stranger"), "SELECT * FROM pgtrickle.pgt_status()") == []


def test_health_is_about_everything_but_names_only_what_one_may_see(shop, application, rows):
    shop.superuser.execute("UPDATE pgtrickle.pgt_stream_tables SET status = 'ERROR'")
    query = "SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'error_tables'"
    assert rows(shop.as_("stranger"), query) == [("ERROR", "1 stopped by errors")]
    for conn in (shop.as_("app_reader"), application):
        assert rows(conn, query) == [("ERROR", "1 stopped by errors: public.order_summary")]


def test_a_leaky_function_sees_no_more_than_its_caller(shop):
    stranger = shop.as_("stranger")
    seen: list[str] = []
    stranger.add_notice_handler(lambda notice: seen.append(notice.message_primary or ""))
    shop.superuser.execute("GRANT CREATE ON SCHEMA public TO stranger")
    shop.superuser.execute("UPDATE pgtrickle.pgt_stream_tables SET status = 'ERROR'")
    stranger.execute(
        """
        CREATE FUNCTION leak(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
            $$ BEGIN RAISE NOTICE '%', value; RETURN true; END $$
        """
    )
    for relation, column in [
        ("stream_tables_info", "pgt_name"),
        ("pgt_stream_tables", "defining_query"),
        ("pgt_plans", "plan::text"),
        ("pgt_refresh_history", "pgt_name"),
        ("visible_status", "name"),
        ("visible_sources", "source_table"),
        ("visible_captures", "buffer::text"),
        ("visible_health", "detail"),
    ]:
        stranger.execute(f"SELECT FROM pgtrickle.{relation} WHERE leak({column})".encode())
    assert [one for one in seen if "order" in one] == []


def test_the_guides_audit_queries(shop, rows):
    shop.superuser.execute(
        """
        INSERT INTO pgtrickle.pgt_refresh_history
               (pgt_id, pgt_name, refresh_mode, initiated_by, started_at, finished_at, success, error_message)
        SELECT pgt_id, pgt_name, 'DIFFERENTIAL', 'SCHEDULER', now(), now(), false, 'division by zero'
          FROM pgtrickle.pgt_stream_tables
         UNION ALL
        SELECT pgt_id, pgt_name, 'DIFFERENTIAL', 'SCHEDULER', now(), NULL, NULL, NULL
          FROM pgtrickle.pgt_stream_tables
        """
    )
    for role in ("postgres", "observer", "st_author", "app_reader"):
        conn = shop.as_(role)
        cursor = conn.execute(AUDIT_ALL)
        types = [conn.adapters.types[column.type_code].name for column in cursor.description or ()]
        assert types == ["text", "text", "timestamptz", "timestamptz", "bool", "int8", "int8", "text"]
        assert {row[0] for row in cursor} == {"order_summary"}
        failed = conn.execute(AUDIT_FAILED)
        names = [column.name for column in failed.description or ()]
        assert [dict(zip(names, row, strict=True))["error_message"] for row in failed] == ["division by zero"]


def test_history_of_what_is_gone_stays_with_the_monitors(shop, rows):
    shop.superuser.execute("SELECT pgtrickle.drop_stream_table('order_summary')")
    query = "SELECT DISTINCT pgt_name FROM pgtrickle.pgt_refresh_history"
    assert rows(shop.as_("observer"), query) == [("order_summary",)]
    assert rows(shop.as_("st_author"), query) == []


@pytest.mark.parametrize("role", ["st_author", "app_reader", "stranger", "observer"])
def test_nobody_writes_the_catalog(shop, role):
    conn = shop.as_(role)
    for relation in ("pgt_refresh_history", "pgt_stream_tables", "pgt_plans", "pgt_dependencies"):
        for statement in (
            f"DELETE FROM pgtrickle.{relation}",
            f"UPDATE pgtrickle.{relation} SET pgt_id = pgt_id",
            f"INSERT INTO pgtrickle.{relation} (pgt_id) VALUES (1)",
            f"TRUNCATE pgtrickle.{relation}",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())


def test_what_is_nobodys_business_can_not_be_read(shop, rows):
    for relation in ("pgt_captures", "pgt_settings"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(shop.as_("st_author"), f"SELECT * FROM pgtrickle.{relation}")
