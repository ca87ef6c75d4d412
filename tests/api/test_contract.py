"""The SQL API that users script against: names, arguments, defaults, result columns; and arguments that don't fit."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import pg_trickle

Connection = psycopg.Connection[tuple[Any, ...]]

pytestmark = pytest.mark.versions

OPTIONS = (
    "diamond_consistency text DEFAULT NULL::text, diamond_schedule_policy text DEFAULT NULL::text, "
    "cdc_mode text DEFAULT NULL::text"
)
CREATE = (
    "name text, query text, schedule text DEFAULT 'calculated'::text, refresh_mode text DEFAULT 'AUTO'::text, "
    f"initialize boolean DEFAULT true, {OPTIONS}, append_only boolean DEFAULT false"
)
ALTER = (
    "name text, query text DEFAULT NULL::text, schedule text DEFAULT NULL::text, refresh_mode text DEFAULT NULL::text, "
    f"status text DEFAULT NULL::text, {OPTIONS}, append_only boolean DEFAULT NULL::boolean, "
    "tier text DEFAULT NULL::text, fuse_ceiling bigint DEFAULT NULL::bigint"
)
CALLS = {
    "create_stream_table": CREATE,
    "create_stream_table_if_not_exists": CREATE,
    "create_or_replace_stream_table": CREATE,
    "alter_stream_table": ALTER,
    "drop_stream_table": "name text, cascade boolean DEFAULT false",
    "refresh_stream_table": "name text",
    "suspend_stream_table": "name text",
    "resume_stream_table": "name text",
    "reinitialize_stream_table": "name text",
}
RESULTS = {
    "verify_stream_table": "missing extra ok",
    "pgt_status": "name status refresh_mode is_populated consecutive_errors schedule data_timestamp staleness scc_id",
    "health_check": "check_name severity detail",
    "refresh_efficiency": "pgt_schema pgt_name refresh_mode total_refreshes diff_count full_count avg_diff_ms "
    "avg_full_ms avg_change_ratio diff_speedup last_refresh_at",
    "list_sources": "source_table source_oid source_type cdc_mode columns_used",
    "dependency_tree": "tree_line node node_type depth status refresh_mode",
    "change_buffer_sizes": "stream_table source_table source_oid cdc_mode pending_rows buffer_bytes",
    "explain_refresh_mode": "configured_mode effective_mode downgrade_reason",
    "validate_query": "check_name result severity",
}


ANSWERS = {
    "repair_stream_table": ("name text", "text"),
    "refresh_if_stale": ("name text, max_age interval DEFAULT '00:05:00'::interval", "boolean"),
    "pause_all": ("", "integer"),
    "resume_all": ("", "integer"),
    "bulk_create": ("definitions jsonb", "integer"),
    "bulk_alter_stream_tables": ("names text[], changes jsonb", "integer"),
    "bulk_drop_stream_tables": ("names text[]", "integer"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_answers_in_a_word(db: Connection, name: str) -> None:
    found = db.execute(
        """SELECT pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
             FROM pg_proc AS p WHERE p.pronamespace = 'pgtrickle'::regnamespace AND p.proname = %s""",
        (name,),
    ).fetchall()
    assert found == [ANSWERS[name]]


@pytest.mark.parametrize("name", CALLS)
def test_arguments_and_defaults(db: Connection, name: str) -> None:
    found = db.execute(
        """SELECT pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
             FROM pg_proc AS p WHERE p.pronamespace = 'pgtrickle'::regnamespace AND p.proname = %s""",
        (name,),
    ).fetchall()
    assert found == [(CALLS[name], "void")]


@pytest.mark.parametrize("name", RESULTS)
def test_result_columns(db: Connection, name: str) -> None:
    (columns,) = db.execute(
        """SELECT string_agg(a.name, ' ' ORDER BY a.place) FILTER (WHERE a.mode = 't')
             FROM pg_proc AS p
            CROSS JOIN unnest(p.proargnames, p.proargmodes) WITH ORDINALITY AS a(name, mode, place)
            WHERE p.pronamespace = 'pgtrickle'::regnamespace AND p.proname = %s""",
        (name,),
    ).fetchone() or (None,)
    assert columns == RESULTS[name]


def test_creating_altering_and_dropping_are_silent(db: Connection) -> None:
    notices: list[str] = []
    db.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
    db.execute("CREATE TABLE t (k int, v int)")
    pg_trickle.create_stream_table(db, "s", "SELECT k, sum(v) AS v FROM t GROUP BY k")
    pg_trickle.alter_stream_table(db, "s", query="SELECT k, max(v) AS v FROM t GROUP BY k")
    db.execute("SELECT pgtrickle.refresh_stream_table(name => 's')")
    db.execute("""SELECT pgtrickle.drop_stream_table(name => 's', "cascade" => true)""")
    assert notices == []


@pytest.mark.parametrize("schedule", ["0s", "0.5", "36501d", "99999999999999999999w", "1e3", "-5s"])
def test_a_schedule_of_no_use_is_refused(db: Connection, schedule: str) -> None:
    db.execute("CREATE TABLE t (a int)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="schedule"):
        pg_trickle.create_stream_table(db, "s", "SELECT a FROM t", schedule=schedule)
    assert db.execute("SELECT FROM pgtrickle.pgt_status()").fetchall() == []


def test_a_stream_table_is_looked_up_by_name_in_the_catalog(db: Connection) -> None:
    pg_trickle.create_stream_table(db, "st", "SELECT 1 AS one")
    found = db.execute("SELECT pgt_relid::text FROM pgtrickle.pgt_stream_tables WHERE pgt_relid = 'st'::regclass")
    assert found.fetchall() == [("st",)]
    kind = "SELECT pg_typeof(pgt_relid)::text FROM pgtrickle.pgt_stream_tables"
    assert db.execute(kind).fetchone() == ("regclass",)


def test_the_longest_schedule_can_be_looked_at(db: Connection) -> None:
    db.execute("CREATE TABLE t (a int)")
    pg_trickle.create_stream_table(db, "s", "SELECT a FROM t", schedule="36500d")
    pg_trickle.alter_stream_table(db, "s", tier="cold")
    assert db.execute("SELECT schedule FROM pgtrickle.pgt_status()").fetchall() == [("36500d",)]
    db.execute("SELECT * FROM pgtrickle.health_check()")


def test_a_query_without_columns_is_refused(db: Connection) -> None:
    db.execute("CREATE TABLE t (a int)")
    with pytest.raises(psycopg.errors.SyntaxError, match="needs a column"):
        pg_trickle.create_stream_table(db, "s", "SELECT FROM t")


def test_the_engines_own_catalog_is_read_but_not_watched(db: Connection) -> None:
    pg_trickle.create_stream_table(db, "s", "SELECT pgt_name, last_refresh_at FROM pgtrickle.pgt_stream_tables")
    assert db.execute("SELECT cdc_mode FROM pgtrickle.list_sources('s')").fetchone() == ("none",)
    assert db.execute("SELECT FROM pg_trigger WHERE starts_with(tgname, 'pg_trickle_cdc')").fetchall() == []
    mode = db.execute("SELECT effective_mode FROM pgtrickle.explain_refresh_mode('s')").fetchone()
    assert mode == ("FULL",)
