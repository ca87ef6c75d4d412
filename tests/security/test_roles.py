"""Roles and grants: what the guide's scripts make can do exactly its job (S1–S11, S46–S53, S61)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from tests.security.conftest import TOTALS, Connection, Place, denied

Fails = Callable[..., psycopg.Error]


def test_s01_extension_objects_live_in_two_schemas(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    placed: dict[str, list[str]] = dict(
        place.superuser.execute(
            """SELECT n.nspname, array_agg(DISTINCT what) FROM (
                   SELECT pronamespace AS namespace, 'functions' AS what FROM pg_proc
                    WHERE proname = 'create_stream_table'
                   UNION ALL SELECT relnamespace, 'buffers' FROM pg_class WHERE relname ~ '^changes_[0-9]+$'
                   UNION ALL SELECT relnamespace, 'catalog' FROM pg_class WHERE relname = 'pgt_stream_tables'
               ) AS o JOIN pg_namespace AS n ON n.oid = o.namespace GROUP BY 1"""
        ).fetchall()
    )
    assert placed == {"pgtrickle": ["catalog", "functions"], "pgtrickle_changes": ["buffers"]}
    elsewhere = """SELECT count(*) FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                     JOIN pg_proc AS p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
                    WHERE e.extname = 'pg_trickle' AND d.refclassid = 'pg_extension'::regclass
                      AND p.pronamespace::regnamespace::text NOT IN ('pgtrickle', 'pgtrickle_changes')"""
    assert place.value(elsewhere) == 0


def test_s02_installing_takes_a_superuser(bare_database: Any) -> None:
    bare_database.make_role("plain")
    with bare_database.connect() as superuser:
        superuser.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO plain").format(sql.Identifier(bare_database.name)))
    denied(bare_database.connect("plain"), "CREATE EXTENSION pg_trickle")
    bare_database.connect().execute("CREATE EXTENSION pg_trickle")


def test_s03_everyday_use_takes_no_superuser(place: Place, author: Connection, worker: Any) -> None:
    """The whole life of a stream table as st_author, in SQL alone."""
    author.execute("SELECT pgtrickle.create_stream_table('st', %s)", (TOTALS,))
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    author.execute("SELECT pgtrickle.refresh_stream_table('st')")
    assert author.execute("SELECT ok FROM pgtrickle.verify_stream_table('st')").fetchone() == (True,)
    author.execute("SELECT pgtrickle.alter_stream_table('st', query => %s)", (TOTALS + " HAVING count(*) > 1",))
    author.execute("SELECT pgtrickle.alter_stream_table('st', schedule => '5m')")
    assert author.execute("SELECT count(*) > 0 FROM st").fetchone() == (True,)
    author.execute("SELECT pgtrickle.drop_stream_table('st')")
    assert place.value("SELECT to_regclass('st') IS NULL")


RIGHTS = {
    "s04": "USAGE ON SCHEMA sources",
    "s05": "SELECT ON sources.orders",
    "s06": "CREATE ON SCHEMA targets",
    "s07": "EXECUTE ON FUNCTION pgtrickle.create_stream_table, pgtrickle.create_stream_table_with_plan,"
    " pgtrickle.compile_request",
    "usage": "USAGE ON SCHEMA pgtrickle, targets",
}
SEPARATE = "SELECT tenant_id, count(*) AS n FROM sources.orders GROUP BY tenant_id"


def with_rights(place: Place, *, without: str = "") -> Connection:
    """A role with the guide's rights, one by one, on a source and a target in different schemas."""
    place.superuser.execute("CREATE SCHEMA sources; CREATE SCHEMA targets; ALTER TABLE orders SET SCHEMA sources")
    conn = place.role("minimal", sql.SQL("LOGIN NOINHERIT"))
    for claim, right in RIGHTS.items():
        if claim != without:
            place.superuser.execute(f"GRANT {right} TO minimal".encode())
    return conn


def refused_without(place: Place, fails: Fails, claim: str) -> None:
    conn = with_rights(place, without=claim)
    for initialize in (True, False):
        fails("42501", pg_trickle.create_stream_table, conn, "targets.st", SEPARATE, initialize=initialize)
    place.superuser.execute(f"GRANT {RIGHTS[claim]} TO minimal".encode())
    pg_trickle.create_stream_table(conn, "targets.st", SEPARATE)
    place.fresh("targets.st")


def test_s04_an_author_needs_usage_on_the_sources_schema(place: Place, fails: Fails) -> None:
    refused_without(place, fails, "s04")


def test_s05_an_author_needs_select_on_every_source(place: Place, fails: Fails) -> None:
    refused_without(place, fails, "s05")
    both = SEPARATE.replace("sources.orders", "sources.orders JOIN public.customers USING (id)")
    fails("42501", pg_trickle.create_stream_table, place.as_("minimal"), "targets.joined", both)
    pg_trickle.create_stream_table(place.superuser, "public.upper", "SELECT id FROM customers")
    upper = "SELECT id FROM public.upper"
    fails("42501", pg_trickle.create_stream_table, place.as_("minimal"), "targets.second", upper)


def test_s06_an_author_needs_create_on_the_targets_schema(place: Place, fails: Fails) -> None:
    refused_without(place, fails, "s06")


def test_s07_an_author_needs_execute_on_the_functions(place: Place, fails: Fails) -> None:
    refused_without(place, fails, "s07")


@pytest.mark.versions
def test_s08_these_rights_are_enough(place: Place) -> None:
    pg_trickle.create_stream_table(with_rights(place), "targets.st", SEPARATE)
    place.superuser.execute("UPDATE sources.orders SET tenant_id = 2 WHERE id < 10")
    place.fresh("targets.st")


@pytest.mark.versions
def test_s09_the_recommended_split_runs_verbatim(place: Place) -> None:
    place.split()
    roles = "SELECT rolname, rolinherit, rolsuper FROM pg_roles WHERE rolname IN ('st_author', 'app_reader') ORDER BY 1"
    found = place.superuser.execute(roles.encode()).fetchall()
    assert found == [("app_reader", True, False), ("st_author", False, False)]


def test_s10_a_reader_needs_no_special_privilege(place: Place) -> None:
    """``GRANT … ON ALL TABLES`` covers what is there at that moment."""
    early = place.author("early")
    pg_trickle.create_stream_table(early, "before", TOTALS)
    author, reader = place.split()
    pg_trickle.create_stream_table(author, "after", TOTALS)
    assert reader.execute("SELECT count(*) FROM before").fetchone() == (21,)
    denied(reader, "SELECT FROM after")
    place.superuser.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app_reader")
    assert reader.execute("SELECT count(*) FROM after").fetchone() == (21,)
    assert not place.value("SELECT has_schema_privilege('app_reader', 'pgtrickle', 'USAGE')")


def test_s11_a_reader_may_do_nothing_more(place: Place) -> None:
    author, reader = place.split()
    pg_trickle.create_stream_table(author, "st", TOTALS)
    author.execute("GRANT SELECT ON st TO app_reader")
    denied(
        reader,
        "INSERT INTO st VALUES (1, 1, 1)",
        "UPDATE st SET total = 0",
        "DELETE FROM st",
        "TRUNCATE st",
        f"SELECT FROM {place.buffer('orders', 'st_author')}",
        "SELECT pgtrickle.create_stream_table('mine', 'SELECT 1 AS one')",
        "SELECT FROM pgtrickle.pgt_stream_tables",
        "INSERT INTO pgtrickle.gate (action, args) VALUES ('drop_stream_table', '{}')",
    )


# The copy-paste role templates.


@pytest.fixture
def templates(place: Place) -> Place:
    place.run("pgtrickle_admin", "pgtrickle_admin")
    place.run("pgtrickle_user", "pgtrickle_user")
    place.run("pgtrickle_readonly", "pgtrickle_readonly")
    place.run("login_roles", "de_alice", "app_backend", "bi_tool")
    return place


@pytest.mark.versions
def test_s46_a_member_of_the_admin_template_makes_stream_tables(templates: Place) -> None:
    alice = templates.as_("de_alice", set_role="pgtrickle_admin")
    pg_trickle.create_stream_table(alice, "st", TOTALS)
    templates.superuser.execute("DELETE FROM orders WHERE id < 5")
    templates.fresh("st")
    assert templates.value("SELECT tableowner FROM pg_tables WHERE tablename = 'st'") == "pgtrickle_admin"
    pg_trickle.drop_stream_table(alice, "st")


def test_s47_default_privileges_open_new_tables_to_the_admin(templates: Place) -> None:
    templates.superuser.execute("CREATE TABLE newer (id int PRIMARY KEY); INSERT INTO newer VALUES (1)")
    alice = templates.as_("de_alice", set_role="pgtrickle_admin")
    pg_trickle.create_stream_table(alice, "st", "SELECT id FROM newer")
    templates.fresh("st")


MONITORING = ["pgt_status()", "refresh_efficiency()", "health_check()"]


@pytest.mark.versions
def test_s48_the_user_template_may_call_its_three_functions(templates: Place) -> None:
    pg_trickle.create_stream_table(templates.as_("de_alice", set_role="pgtrickle_admin"), "st", TOTALS)
    backend = templates.as_("app_backend")
    for function in MONITORING:
        assert backend.execute(f"SELECT * FROM pgtrickle.{function}".encode()).fetchall(), function


def test_s49_the_user_template_may_do_nothing_else(templates: Place) -> None:
    pg_trickle.create_stream_table(templates.as_("de_alice", set_role="pgtrickle_admin"), "st", TOTALS)
    backend = templates.as_("app_backend")
    may = backend.execute(
        """SELECT p.oid::regprocedure::text FROM pg_proc AS p
            WHERE p.pronamespace IN ('pgtrickle'::regnamespace, 'pgtrickle_changes'::regnamespace)
              AND has_function_privilege(p.oid, 'EXECUTE')"""
    ).fetchall()
    assert sorted(name for (name,) in may) == sorted(f"pgtrickle.{function}" for function in MONITORING)
    with backend.transaction():
        backend.execute("SET TRANSACTION READ ONLY")
        for function in MONITORING:
            assert backend.execute(f"SELECT * FROM pgtrickle.{function}".encode()).fetchall(), function
    denied(
        backend,
        "SELECT pgtrickle.drain()",
        "SELECT pgtrickle.alter_stream_table('public.st', schedule => '1h')",
        "SELECT pgtrickle.create_stream_table('mine', 'SELECT 1 AS one')",
        "SELECT pgtrickle.refresh_stream_table('public.st')",
        "SELECT pgtrickle.drop_stream_table('public.st')",
        "SELECT FROM st",
    )


def test_s50_the_monitoring_functions_take_no_argument(place: Place) -> None:
    for function in MONITORING:
        assert place.value(f"SELECT to_regprocedure('pgtrickle.{function}') IS NOT NULL"), function


def test_s51_access_is_granted_stream_table_by_stream_table(templates: Place) -> None:
    alice = templates.as_("de_alice", set_role="pgtrickle_admin")
    for name in ("granted", "kept"):
        pg_trickle.create_stream_table(alice, name, TOTALS)
    alice.execute("GRANT SELECT ON granted TO pgtrickle_user; GRANT SELECT ON granted TO pgtrickle_readonly")
    for login in ("app_backend", "bi_tool"):
        conn = templates.as_(login)
        assert conn.execute("SELECT count(*) FROM granted").fetchone() == (21,)
        denied(conn, "SELECT FROM kept")


@pytest.mark.versions
def test_s52_the_readonly_template_reads_what_it_was_granted(templates: Place) -> None:
    alice = templates.as_("de_alice", set_role="pgtrickle_admin")
    for name in ("st", "kept"):
        pg_trickle.create_stream_table(alice, name, TOTALS)
    alice.execute("GRANT SELECT ON st TO pgtrickle_readonly")
    bi_tool = templates.as_("bi_tool")
    assert bi_tool.execute("SELECT count(*) FROM st").fetchone() == (21,)
    denied(
        bi_tool,
        "SELECT FROM orders",
        "SELECT FROM kept",
        "UPDATE st SET total = 0",
        "SELECT FROM pgtrickle.pgt_status()",
        "CREATE TABLE mine ()",
    )


@pytest.mark.versions
def test_s53_login_roles_have_what_their_group_has(templates: Place) -> None:
    """NOINHERIT is said of the groups, not of the logins: these inherit."""
    alice, backend = templates.as_("de_alice"), templates.as_("app_backend")
    pg_trickle.create_stream_table(alice, "st", "SELECT id, amount FROM orders")
    assert templates.value("SELECT tableowner FROM pg_tables WHERE tablename = 'st'") == "de_alice"
    templates.fresh("st")
    assert backend.execute("SELECT count(*) FROM pgtrickle.pgt_status()").fetchone() == (1,)
    denied(templates.as_("bi_tool"), "SELECT FROM pgtrickle.pgt_status()", "SELECT FROM orders")


@pytest.mark.versions
def test_s53_who_does_not_inherit_has_to_set_the_role(templates: Place) -> None:
    templates.role("careful", sql.SQL("LOGIN NOINHERIT"))
    templates.superuser.execute("GRANT pgtrickle_admin TO careful")
    careful = templates.as_("careful")
    denied(careful, "SELECT pgtrickle.create_stream_table('st', 'SELECT id FROM orders')")
    careful.execute("SET ROLE pgtrickle_admin")
    pg_trickle.create_stream_table(careful, "st", "SELECT id, amount FROM orders")
    careful.execute("RESET ROLE")
    denied(careful, "SELECT pgtrickle.refresh_stream_table('public.st')", "SELECT FROM st")
    templates.superuser.execute("UPDATE orders SET amount = 0")
    careful.execute("SET ROLE pgtrickle_admin")
    pg_trickle.refresh_stream_table(careful, "st")
    templates.fresh("st")


def test_s61_nothing_needs_to_run_as_a_superuser(place: Place, author: Connection, worker: Any) -> None:
    """The worker of these tests is a plain role: it may read nothing, and yet all is refreshed."""
    login = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = 'pgtrickle_worker'"
    assert place.superuser.execute(login).fetchone() == (False, False, False, False)
    assert place.value("SELECT count(*) FROM pg_auth_members WHERE member = to_regrole('pgtrickle_worker')") == 0
    author.execute("SELECT pgtrickle.create_stream_table('st', %s)", (TOTALS,))
    place.superuser.execute("INSERT INTO orders VALUES (99, 9, 9, 9, '')")
    worker.wait_for(lambda: place.value("SELECT count(*) FROM st WHERE tenant_id = 9") == 1)
    buffer = place.buffer("orders", "st_author")
    denied(place.as_("pgtrickle_worker"), "SELECT FROM orders", "SELECT FROM st", f"SELECT FROM {buffer}")
