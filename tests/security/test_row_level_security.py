"""Row-level security on stream tables and on their sources (S12–S19, S56)."""

from __future__ import annotations

import subprocess
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place, attempted, guide

POLICY = """
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenants ON orders FOR SELECT TO st_author USING (tenant_id = 1);
CREATE POLICY everything ON orders FOR SELECT TO app_reader USING (tenant_id > 1);
"""
LINES = "SELECT id, tenant_id, amount FROM orders"


def tenants(place: Place, name: str = "st") -> set[int]:
    query = sql.SQL("SELECT DISTINCT tenant_id FROM {}").format(sql.Identifier(name))
    return {tenant for (tenant,) in place.superuser.execute(query)}


@pytest.fixture
def restricted(place: Place, author: Connection) -> Place:
    """Orders of which st_author may see those of tenant 1."""
    place.superuser.execute(POLICY.encode())
    return place


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["FULL", "DIFFERENTIAL", "IMMEDIATE"])
def test_s12_policies_of_a_source_are_evaluated_as_the_owner(restricted: Place, mode: str, worker: Any) -> None:
    """After the initial fill, refreshes by a superuser and a colleague who sees more, a scheduled one, and writes."""
    author, colleague = restricted.as_("st_author"), restricted.role("colleague")
    restricted.superuser.execute(
        """GRANT st_author TO colleague; GRANT ALL ON orders TO colleague;
           CREATE POLICY all_of_it ON orders TO colleague USING (true)"""
    )
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode=mode)
    assert tenants(restricted) == {1}
    assert restricted.value("SELECT count(*) FROM st") == 10
    change = "UPDATE orders SET tenant_id = 1 + (tenant_id + 1) % 3, amount = amount + 1 WHERE id % 2 = 0"
    for who in (restricted.superuser, colleague):
        who.execute(change.encode())
        if mode != "IMMEDIATE":
            pg_trickle.refresh_stream_table(who, "st")
            assert restricted.last_refresh("refresh_mode") == mode
        assert tenants(restricted) == {1}
        assert_fresh(author, "st")
    colleague.execute("INSERT INTO orders VALUES (98, 2, 1, 1, ''), (99, 1, 1, 1, '')")
    worker.wait_for(lambda: restricted.value("SELECT count(*) FROM st WHERE id = 99") == 1)
    assert tenants(restricted) == {1}
    assert_fresh(author, "st")
    pg_trickle.refresh_stream_table(colleague, "st")
    assert tenants(restricted) == {1}


def test_s13_who_is_exempt_from_policies_sees_all(restricted: Place) -> None:
    restricted.superuser.execute("CREATE ROLE table_owner LOGIN; ALTER TABLE orders OWNER TO table_owner")
    restricted.database.adopt_role("table_owner")
    restricted.author("bypassing")
    restricted.superuser.execute("ALTER ROLE bypassing BYPASSRLS")
    restricted.superuser.execute(
        """GRANT USAGE, CREATE ON SCHEMA public TO table_owner; GRANT USAGE ON SCHEMA pgtrickle TO table_owner;
           GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO table_owner"""
    )
    for role in ("table_owner", "bypassing"):
        pg_trickle.create_stream_table(restricted.as_(role), role, TOTALS, refresh_mode="DIFFERENTIAL")
    restricted.superuser.execute("INSERT INTO orders VALUES (99, 7, 1, 1, '')")
    for role in ("table_owner", "bypassing"):
        restricted.fresh(role)
        assert tenants(restricted, role) == {1, 2, 3, 7}


def test_s14_contents_do_not_depend_on_who_reads(restricted: Place) -> None:
    pg_trickle.create_stream_table(restricted.superuser, "st", LINES)
    restricted.superuser.execute("GRANT SELECT ON st TO st_author, app_reader")
    seen = {role: restricted.as_(role).execute("SELECT * FROM st ORDER BY id").fetchall() for role in READERS}
    assert seen["st_author"] == seen["app_reader"]
    assert len(seen["st_author"]) == 30


READERS = ("st_author", "app_reader")


@pytest.fixture
def summary(place: Place, worker: Any) -> Place:
    """The guide's order_summary with its policy, made by st_author; app_reader may read it."""
    author, _ = place.split()
    author.execute(guide("order_summary"))
    author.execute("GRANT SELECT ON order_summary TO app_reader")
    return place


def as_tenant(place: Place, tenant: int | None) -> set[int]:
    reader = place.as_("app_reader")
    if tenant is not None:
        reader.execute("SELECT set_config('app.tenant_id', %s, false)", (str(tenant),))
    return {row[0] for row in reader.execute("SELECT tenant_id FROM order_summary")}


@pytest.mark.versions
def test_s15_policies_on_a_stream_table_filter_per_consumer(summary: Place) -> None:
    assert [as_tenant(summary, tenant) for tenant in (1, 2, 3)] == [{1}, {2}, {3}]


ADDED = """
CREATE POLICY own ON order_summary TO st_author USING (true) WITH CHECK (total > 0);
CREATE POLICY limits ON order_summary AS RESTRICTIVE FOR SELECT TO app_reader USING (customer_id < 100);
CREATE INDEX by_total ON order_summary (total);
COMMENT ON TABLE order_summary IS 'what tenants have ordered';
COMMENT ON COLUMN order_summary.total IS 'in euros';
GRANT SELECT (tenant_id) ON order_summary TO pg_monitor;
CREATE TABLE noted (); GRANT INSERT ON noted TO PUBLIC;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.noted DEFAULT VALUES; RETURN NULL; END';
CREATE TRIGGER noting AFTER INSERT OR UPDATE OR DELETE ON order_summary EXECUTE FUNCTION note();
"""
KEPT = """
SELECT 'flags ' || c.relrowsecurity || c.relforcerowsecurity || c.relacl::text || c.relowner::regrole || c.oid
  FROM pg_class AS c WHERE c.oid = 'order_summary'::regclass
UNION ALL SELECT 'policy ' || p::text FROM pg_policies AS p WHERE p.tablename = 'order_summary'
UNION ALL SELECT 'index ' || i.indexdef FROM pg_indexes AS i WHERE i.indexname = 'by_total'
UNION ALL SELECT 'comment ' || d.objsubid || d.description FROM pg_description AS d
           WHERE d.objoid = 'order_summary'::regclass
UNION ALL SELECT 'column ' || a.attname || a.attacl::text FROM pg_attribute AS a
           WHERE a.attrelid = 'order_summary'::regclass AND a.attacl IS NOT NULL
UNION ALL SELECT 'trigger ' || t.tgname || t.tgenabled::text FROM pg_trigger AS t
           WHERE t.tgrelid = 'order_summary'::regclass AND t.tgname = 'noting'
ORDER BY 1
"""
OTHER_QUERY = "SELECT tenant_id, customer_id, SUM(amount) + 1 AS total FROM orders GROUP BY tenant_id, customer_id"
UPKEEP = [
    "SELECT pgtrickle.reinitialize_stream_table('order_summary')",
    "SELECT pgtrickle.alter_stream_table('order_summary', schedule => '1m')",
    "SELECT pgtrickle.alter_stream_table('order_summary', refresh_mode => 'FULL')",
    f"SELECT pgtrickle.alter_stream_table('order_summary', query => '{OTHER_QUERY}')",
    "SELECT pgtrickle.alter_stream_table('order_summary', refresh_mode => 'DIFFERENTIAL')",
    "SELECT pgtrickle.repair_stream_table('order_summary')",
    "SELECT pgtrickle.suspend_stream_table('order_summary'), pgtrickle.resume_stream_table('order_summary')",
    "SELECT pgtrickle.snapshot_stream_table('order_summary', 'public.snapshot')",
    "SELECT pgtrickle.restore_from_snapshot('order_summary', 'public.snapshot')",
    "SELECT pgtrickle.drop_snapshot('public.snapshot')",
]
IMMEDIATE = "SELECT pgtrickle.alter_stream_table('order_summary', refresh_mode => 'IMMEDIATE')"


@pytest.mark.versions
@pytest.mark.parametrize("force", [False, True])
def test_s16_refreshes_and_alterations_leave_policies_alone(summary: Place, force: bool) -> None:
    """Nor do they touch flags, grants, comments, indexes and triggers; and all rows are written, forced or not."""
    author = summary.as_("st_author")
    author.execute(ADDED.encode())
    if force:
        author.execute("ALTER TABLE order_summary FORCE ROW LEVEL SECURITY")
    kept = summary.superuser.execute(KEPT.encode()).fetchall()
    assert len(kept) == 9
    # Owners of sources may attach code to what is maintained in their writers' statements: st_author isn't one.
    immediate = [] if force else ["DROP TRIGGER noting ON order_summary", IMMEDIATE]
    for change in [*UPKEEP, *immediate]:
        author.execute(change.encode())
        if change in immediate:
            kept = [line for line in kept if "trigger" not in line[0]]
        summary.superuser.execute(
            "UPDATE orders SET amount = amount + 1, tenant_id = 1 + tenant_id % 3 WHERE id % 2 = 0"
        )
        if change != IMMEDIATE:
            pg_trickle.refresh_stream_table(author, "order_summary")
        assert summary.superuser.execute(KEPT.encode()).fetchall() == kept, change
        assert_fresh(summary.superuser, "order_summary")
        assert [as_tenant(summary, tenant) for tenant in (1, 2)] == [{1}, {2}]


@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL"])
def test_s16_a_policy_stands_in_the_way_of_a_query_without_its_columns(summary: Place, mode: str) -> None:
    """Replacing a stream table keeps it, policies and all; it isn't made anew without them."""
    author = summary.as_("st_author")
    author.execute(ADDED.encode())
    pg_trickle.create_or_replace_stream_table(author, "order_summary", OTHER_QUERY, refresh_mode=mode)
    kept = summary.superuser.execute(KEPT.encode()).fetchall()
    assert len(kept) == 9
    for query in (
        "SELECT customer_id, SUM(amount) AS total FROM orders GROUP BY customer_id",
        "SELECT tenant_id::text AS tenant_id, customer_id, SUM(amount) AS total FROM orders GROUP BY 1, 2",
    ):
        for change in (pg_trickle.create_or_replace_stream_table, pg_trickle.alter_stream_table):
            refused = attempted(lambda change=change, query=query: change(author, "order_summary", query=query))
            assert refused in {"2BP01", "0A000"}, query
            assert summary.superuser.execute(KEPT.encode()).fetchall() == kept
    summary.superuser.execute("UPDATE orders SET amount = amount + 1")
    summary.fresh("order_summary")
    wider = "SELECT tenant_id, customer_id, SUM(amount) AS total, count(*) AS n FROM orders GROUP BY 1, 2"
    pg_trickle.create_or_replace_stream_table(author, "order_summary", wider, refresh_mode=mode)
    assert summary.superuser.execute(KEPT.encode()).fetchall() == kept
    assert [as_tenant(summary, tenant) for tenant in (1, 2)] == [{1}, {2}]


def test_s16_policies_outlive_a_restart_of_the_server(summary: Place, worker: Any) -> None:
    author = summary.as_("st_author")
    author.execute(ADDED.encode())
    author.execute("ALTER TABLE order_summary FORCE ROW LEVEL SECURITY")
    kept = summary.superuser.execute(KEPT.encode()).fetchall()
    summary.superuser.execute("UPDATE orders SET amount = amount + 1")
    summary.database.server.restart()
    summary.superuser = summary.database.connect()
    summary.superuser.execute("INSERT INTO orders VALUES (99, 4, 1, 1, '')")
    worker.wait_for(lambda: summary.value("SELECT count(*) FROM order_summary WHERE tenant_id = 4") == 1)
    assert_fresh(summary.superuser, "order_summary")
    assert summary.superuser.execute(KEPT.encode()).fetchall() == kept
    assert [as_tenant(summary, tenant) for tenant in (1, 2, 4)] == [{1}, {2}, {4}]


def test_s17_a_stream_table_is_an_ordinary_heap_table(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", LINES)
    kind = """SELECT c.relkind::text, a.amname::text FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam
               WHERE c.relname = 'st'"""
    assert place.superuser.execute(kind.encode()).fetchone() == ("r", "heap")
    author.execute("CREATE INDEX by_amount ON st (amount)")
    author.execute("GRANT SELECT ON st TO app_reader")
    for command in ("ANALYZE st", "VACUUM st", "CLUSTER st USING by_amount"):
        author.execute(command.encode())
    place.superuser.execute("UPDATE orders SET amount = 1000 WHERE id = 1; DELETE FROM orders WHERE id = 2")
    place.fresh("st")
    reader = place.as_("app_reader")
    reader.execute("SET enable_seqscan = off")
    plan = reader.execute("EXPLAIN SELECT id FROM st WHERE amount = 1000").fetchall()
    assert "by_amount" in str(plan)
    assert reader.execute("SELECT id FROM st WHERE amount = 1000").fetchall() == [(1,)]
    joined = "SELECT count(*) FROM st JOIN orders USING (id)"
    assert author.execute(joined.encode()).fetchone() == (29,)


@pytest.mark.versions(program="pg_dump")
def test_s17_its_rows_can_be_dumped(place: Place, author: Connection) -> None:
    """By who may read it, as any table's."""
    pg_trickle.create_stream_table(author, "st", LINES)
    author.execute("GRANT SELECT ON st TO app_reader")
    server = place.database.server
    rows = place.superuser.execute("SELECT id, tenant_id, amount FROM st").fetchall()
    command = [server.binaries.bin / "pg_dump", "--data-only", "--table=public.st", place.database.dsn_of("app_reader")]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(rows) == 30
    assert {"\t".join(map(str, row)) for row in rows} <= set(dumped)


def test_s18_the_guides_example_is_maintained_incrementally(summary: Place) -> None:
    mode = "SELECT refresh_mode || ' ' || effective_refresh_mode FROM pgtrickle.pgt_stream_tables"
    assert summary.value(mode) == "AUTO DIFFERENTIAL"
    summary.superuser.execute("UPDATE orders SET amount = 1 WHERE id = 1")
    summary.fresh("order_summary")


def test_s19_a_policy_with_current_setting_works_as_in_plain_postgresql(summary: Place) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match=r"app\.tenant_id"):
        as_tenant(summary, None)
    assert as_tenant(summary, 9) == set()


def test_s56_a_new_tenants_rows_are_for_that_tenant_alone(summary: Place) -> None:
    summary.superuser.execute("INSERT INTO orders VALUES (99, 4, 1, 1, '')")
    summary.fresh("order_summary")
    assert [as_tenant(summary, tenant) for tenant in (1, 4)] == [{1}, {4}]


# What may happen to a source's policies, and to whom they are for, while a stream table lives.
HAPPENINGS = [
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY one ON orders FOR SELECT TO st_author USING (tenant_id = 1)",
    "CREATE POLICY two ON orders FOR SELECT TO PUBLIC USING (tenant_id = 2)",
    "CREATE POLICY limits ON orders AS RESTRICTIVE FOR SELECT USING (id < 20)",
    "ALTER POLICY one ON orders USING (tenant_id = 3)",
    "ALTER POLICY limits ON orders TO app_reader",
    "CREATE POLICY nested ON orders FOR SELECT USING (id IN (SELECT id + 20 FROM customers))",
    "DROP POLICY two ON orders",
    "DROP POLICY nested ON orders",
    "ALTER ROLE st_author BYPASSRLS",
    "ALTER ROLE st_author NOBYPASSRLS",
    "ALTER TABLE orders OWNER TO st_author",
    "ALTER TABLE orders FORCE ROW LEVEL SECURITY",
    "ALTER TABLE orders OWNER TO postgres; GRANT SELECT ON orders TO st_author",
    "DROP POLICY limits ON orders",
    "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
]


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["AUTO", "FULL"])
def test_a13_policies_and_who_they_are_for_may_change_at_any_time(place: Place, author: Connection, mode: str) -> None:
    """Whatever happens, the next refresh holds exactly what the owner may see, and the one after it too."""
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode=mode)
    place.superuser.execute("GRANT SELECT ON orders, customers TO st_author")
    for number, happening in enumerate(HAPPENINGS):
        place.superuser.execute(happening.encode())
        for change in (
            "SELECT",
            f"UPDATE orders SET tenant_id = 1 + (id + {number}) % 3, amount = amount + 1 WHERE id % 3 = 0",
            f"INSERT INTO orders VALUES ({100 + number}, 1 + {number} % 3, 1, 1, '')",
            f"DELETE FROM orders WHERE id = {number}",
        ):
            place.superuser.execute(change.encode())
            pg_trickle.refresh_stream_table(author, "st")
            assert_fresh(author, "st")


@pytest.mark.versions
def test_a13_immediate_maintenance_follows_or_stops(place: Place, author: Connection) -> None:
    """A writer is never told that all is well while the stream table shows what its owner may not see."""
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode="IMMEDIATE")
    place.superuser.execute("GRANT SELECT ON orders, customers TO st_author")
    followed = 0
    for number, happening in enumerate(HAPPENINGS):
        if "nested" in happening:
            continue
        place.superuser.execute(happening.encode())
        change = f"UPDATE orders SET tenant_id = 1 + (id + {number}) % 3, amount = amount + 1 WHERE id % 3 = 0"
        if attempted(place.superuser.execute, change.encode()) == "55000":
            pg_trickle.refresh_stream_table(author, "st")
            followed += 1
        assert_fresh(author, "st")
        place.superuser.execute(f"INSERT INTO orders VALUES ({100 + number}, 1 + {number} % 3, 1, 1, '')".encode())
        assert_fresh(author, "st")
    assert followed > 5
