"""Row-level security on stream tables and on their sources (S12–S19, S56)."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place, guide

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
@pytest.mark.parametrize("mode", ["FULL", "DIFFERENTIAL"])
def test_s12_policies_of_a_source_are_evaluated_as_the_owner(restricted: Place, mode: str, worker: Any) -> None:
    """After the initial fill, a refresh by somebody else and a scheduled one."""
    author = restricted.as_("st_author")
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode=mode)
    assert tenants(restricted) == {1}
    change = "UPDATE orders SET tenant_id = 1 + (tenant_id + 1) % 3, amount = amount + 1 WHERE id % 2 = 0"
    restricted.superuser.execute(change.encode())
    pg_trickle.refresh_stream_table(restricted.superuser, "st")
    assert_fresh(author, "st")
    assert restricted.last_refresh("refresh_mode") == mode
    restricted.superuser.execute("INSERT INTO orders VALUES (98, 2, 1, 1, ''), (99, 1, 1, 1, '')")
    worker.wait_for(lambda: restricted.value("SELECT count(*) FROM st WHERE id = 99") == 1)
    assert tenants(restricted) == {1}
    assert_fresh(author, "st")


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


def policies(place: Place) -> Any:
    return place.superuser.execute(
        """SELECT c.relrowsecurity, c.relforcerowsecurity, array_agg(p.polname::text) FROM pg_class AS c
             JOIN pg_policy AS p ON p.polrelid = c.oid WHERE c.relname = 'order_summary' GROUP BY 1, 2"""
    ).fetchall()


@pytest.mark.versions
@pytest.mark.parametrize("force", [False, True])
def test_s16_refreshes_and_alterations_leave_policies_alone(summary: Place, force: bool) -> None:
    author = summary.as_("st_author")
    if force:
        author.execute("ALTER TABLE order_summary FORCE ROW LEVEL SECURITY")
    before = policies(summary)
    for change in (
        "UPDATE orders SET amount = amount + 1",
        "SELECT pgtrickle.reinitialize_stream_table('order_summary')",
        "SELECT pgtrickle.alter_stream_table('order_summary', schedule => '1m')",
        "SELECT pgtrickle.alter_stream_table('order_summary', refresh_mode => 'FULL')",
        "SELECT pgtrickle.alter_stream_table('order_summary', query => $$SELECT tenant_id, customer_id,"
        " SUM(amount) + 1 AS total FROM orders GROUP BY tenant_id, customer_id$$)",
    ):
        (author if "pgtrickle" in change else summary.superuser).execute(change.encode())
        pg_trickle.refresh_stream_table(author, "order_summary")
        assert policies(summary) == before, change
        assert_fresh(summary.superuser, "order_summary")
        assert [as_tenant(summary, tenant) for tenant in (1, 2)] == [{1}, {2}]


def test_s17_a_stream_table_is_an_ordinary_heap_table(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", LINES)
    kind = """SELECT c.relkind::text, a.amname::text FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam
               WHERE c.relname = 'st'"""
    assert place.superuser.execute(kind.encode()).fetchone() == ("r", "heap")
    author.execute("CREATE INDEX ON st (amount)")
    author.execute("GRANT SELECT ON st TO app_reader")
    author.execute("ANALYZE st")
    joined = "SELECT count(*) FROM st JOIN orders USING (id)"
    assert author.execute(joined.encode()).fetchone() == (30,)
    with author.cursor().copy("COPY st TO STDOUT") as copy:
        assert len(b"".join(bytes(part) for part in copy).splitlines()) == 30


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
@pytest.mark.parametrize("mode", ["AUTO"])
def test_a13_policies_and_who_they_are_for_may_change_at_any_time(place: Place, author: Connection, mode: str) -> None:
    """Whatever happens, the next refresh holds exactly what the owner may see, and the one after it too."""
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode=mode)
    place.superuser.execute("GRANT SELECT ON orders, customers TO st_author")
    for number, happening in enumerate(HAPPENINGS):
        place.superuser.execute(happening.encode())
        for change in (
            f"UPDATE orders SET tenant_id = 1 + (id + {number}) % 3, amount = amount + 1 WHERE id % 3 = 0",
            f"INSERT INTO orders VALUES ({100 + number}, 1 + {number} % 3, 1, 1, '')",
            f"DELETE FROM orders WHERE id = {number}",
        ):
            place.superuser.execute(change.encode())
            pg_trickle.refresh_stream_table(author, "st")
            assert_fresh(author, "st")
