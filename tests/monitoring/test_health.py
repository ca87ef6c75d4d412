"""The health checks, and what they are made of."""

from __future__ import annotations

import pytest

import pg_trickle

CHECK = "SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = %s"
DRIFT = "SELECT pgtrickle_changes.capture_drift(source_relid, owner_oid) FROM pgtrickle.pgt_captures"

TAMPERING = {
    "trigger dropped": "DROP TRIGGER pg_trickle_cdc_ins ON orders",
    "trigger disabled": "ALTER TABLE orders DISABLE TRIGGER pg_trickle_cdc_upd",
    "trigger enabled but not always": "ALTER TABLE orders ENABLE TRIGGER pg_trickle_cdc_del",
    "function altered": "ALTER FUNCTION pgtrickle_changes.capture_{oid}_ins() SECURITY INVOKER",
    "function moved": "ALTER FUNCTION pgtrickle_changes.capture_{oid}_del() SET SCHEMA public",
    "function given away": "ALTER FUNCTION pgtrickle_changes.capture_{oid}_trunc() OWNER TO app_reader",
    "trigger replaced": """
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE OR REPLACE TRIGGER pg_trickle_cdc_ins AFTER INSERT ON orders EXECUTE FUNCTION nothing();
        ALTER TABLE orders ENABLE ALWAYS TRIGGER pg_trickle_cdc_ins""",
    "buffer moved": "ALTER TABLE pgtrickle_changes.changes_{oid} SET SCHEMA public",
    "buffer not writable": "REVOKE INSERT ON pgtrickle_changes.changes_{oid} FROM st_author",
    "buffer with a policy": "ALTER TABLE pgtrickle_changes.changes_{oid} ENABLE ROW LEVEL SECURITY",
    "column renamed": "ALTER TABLE orders RENAME COLUMN amount TO price",
}


def severity(conn, check):
    ((found, _),) = conn.execute(CHECK, (check,)).fetchall()
    return found


def test_without_a_worker_it_depends_on_who_waits_for_one(shop):
    assert severity(shop.superuser, "worker_running") == "WARN"
    assert severity(shop.superuser, "bridge") == "WARN"
    shop.superuser.execute("SELECT pgtrickle.alter_stream_table('order_summary', schedule => '30s')")
    assert severity(shop.superuser, "worker_running") == "ERROR"


def test_with_a_worker_all_is_well(shop, worker, rows):
    shop.superuser.execute("SELECT pgtrickle.alter_stream_table('order_summary', schedule => 'calculated')")
    checks = rows(shop.superuser, "SELECT check_name, severity FROM pgtrickle.health_check()")
    assert [check for check in checks if check[1] != "OK"] == []
    assert rows(shop.superuser, "SELECT * FROM pgtrickle.quick_health") == [(1, 1, 0, 0, True, "OK")]


def test_the_lock_alone_makes_no_worker(shop, rows):
    impostor = shop.as_("stranger")
    impostor.execute("SELECT pg_advisory_lock(1885762401, 1)")
    ((found, detail),) = rows(shop.as_("app_reader"), CHECK, "worker_running")
    assert found == "WARN"
    assert 'role "stranger"' in detail


@pytest.mark.versions
def test_a_broken_capture_is_noticed_by_all_who_may_see_it(shop, rows):
    superuser = shop.superuser
    assert severity(superuser, "capture_integrity") == "OK"
    assert rows(superuser, DRIFT) == [(None,)]
    ((oid,),) = rows(superuser, "SELECT 'orders'::regclass::oid")
    for what, how in TAMPERING.items():
        with superuser.transaction(force_rollback=True):
            superuser.execute(how.replace("{oid}", str(oid)).encode())
            # The refresh, which looks closer, agrees.
            ((drift,),) = rows(superuser, DRIFT)
            assert drift is not None, what
            for role in ("postgres", "app_reader"):
                superuser.execute(f"SET LOCAL ROLE {role}".encode())
                ((found, detail),) = rows(superuser, CHECK, "capture_integrity")
                assert (found, "public.orders" in detail) == ("ERROR", True), what
                ((alert,),) = rows(superuser, "SELECT alert FROM pgtrickle.check_cdc_health()")
                assert alert is not None, what


def test_the_inventory_tells_missing_from_disabled_from_altered(shop, rows):
    query = "SELECT trigger_type, present, enabled, intact FROM pgtrickle.trigger_inventory() ORDER BY trigger_type"
    good = [(event, True, True, True) for event in ("DELETE", "INSERT", "TRUNCATE", "UPDATE")]
    assert rows(shop.superuser, query) == good
    ((oid,),) = rows(shop.superuser, "SELECT 'orders'::regclass::oid")
    shop.superuser.execute("DROP TRIGGER pg_trickle_cdc_del ON orders")
    shop.superuser.execute("ALTER TABLE orders DISABLE TRIGGER pg_trickle_cdc_ins")
    shop.superuser.execute(f"ALTER FUNCTION pgtrickle_changes.capture_{oid}_upd() COST 7".encode())
    assert rows(shop.superuser, query) == [
        ("DELETE", False, False, False),
        ("INSERT", True, False, True),
        ("TRUNCATE", True, True, True),
        ("UPDATE", True, True, False),
    ]


def test_the_settings_of_the_looker_do_not_make_triggers_look_altered(shop, rows):
    conn = shop.as_("app_reader")
    conn.execute("SET quote_all_identifiers = on")
    conn.execute("CREATE TEMPORARY TABLE trigger ()")
    assert rows(conn, "SELECT bool_and(intact) FROM pgtrickle.trigger_inventory()") == [(True,)]


def test_the_next_refresh_repairs_a_broken_capture(shop, rows, assert_fresh):
    shop.superuser.execute("DROP TRIGGER pg_trickle_cdc_ins ON orders")
    shop.superuser.execute("INSERT INTO orders VALUES (4, 1, 1, 1)")
    pg_trickle.refresh_stream_table(shop.superuser, "order_summary")
    assert severity(shop.superuser, "capture_integrity") == "OK"
    assert_fresh(shop.superuser, "order_summary")


def test_a_full_buffer_is_noticed(shop):
    shop.superuser.execute("INSERT INTO orders SELECT n, 1, 1, 1 FROM generate_series(10, 60) AS n")
    shop.superuser.execute("SELECT pg_stat_force_next_flush()")
    assert severity(shop.superuser, "buffer_growth") == "OK"
    shop.superuser.execute("SET pg_trickle.buffer_alert_threshold = 50")
    assert severity(shop.superuser, "buffer_growth") == "WARN"
    shop.superuser.execute("SET pg_trickle.buffer_alert_threshold = 'a lot'")
    assert severity(shop.superuser, "buffer_growth") == "OK"


def test_a_stream_table_behind_its_schedule_is_stale(shop, rows):
    shop.superuser.execute("SELECT pgtrickle.alter_stream_table('order_summary', schedule => '30s')")
    assert severity(shop.superuser, "stale_tables") == "OK"
    shop.superuser.execute("UPDATE pgtrickle.pgt_stream_tables SET data_timestamp = now() - interval '70 s'")
    assert severity(shop.superuser, "stale_tables") == "WARN"
    shop.superuser.execute("UPDATE pgtrickle.pgt_stream_tables SET tier = 'cold'")
    assert severity(shop.superuser, "stale_tables") == "OK"


def test_without_changes_a_calculated_stream_table_is_not_stale_however_old(shop):
    shop.superuser.execute("SELECT pgtrickle.alter_stream_table('order_summary', schedule => 'calculated')")
    shop.superuser.execute("UPDATE pgtrickle.pgt_stream_tables SET data_timestamp = now() - interval '1 day'")
    assert severity(shop.superuser, "stale_tables") == "OK"
    shop.superuser.execute("INSERT INTO orders VALUES (4, 1, 1, 1)")
    shop.superuser.execute("SELECT pg_stat_force_next_flush()")
    assert severity(shop.superuser, "stale_tables") == "WARN"


def test_errors_and_reinitialization_are_counted(shop, rows):
    shop.superuser.execute(
        "UPDATE pgtrickle.pgt_stream_tables SET status = 'SUSPENDED', consecutive_errors = 3, needs_reinit = true"
    )
    assert severity(shop.superuser, "error_tables") == "ERROR"
    assert severity(shop.superuser, "consecutive_errors") == "WARN"
    assert severity(shop.superuser, "needs_reinit") == "WARN"
    shop.superuser.execute("UPDATE pgtrickle.pgt_stream_tables SET consecutive_errors = 0")
    # Suspended by hand: no error.
    assert severity(shop.superuser, "error_tables") == "OK"


def test_looking_needs_no_right_to_write(shop, rows):
    """It works in read-only transactions."""
    conn = shop.as_("app_reader")
    conn.execute("SET default_transaction_read_only = on")
    for call in (
        "pgt_status()",
        "health_check()",
        "refresh_efficiency()",
        "refresh_timeline()",
        "dependency_tree()",
        "diamond_groups()",
        "check_cdc_health()",
        "trigger_inventory()",
        "list_sources('order_summary')",
        "explain_delta('order_summary')",
        "explain_stream_table('order_summary')",
        "change_buffer_sizes()",
    ):
        rows(conn, f"SELECT * FROM pgtrickle.{call}")
