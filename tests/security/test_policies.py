"""Policies of a source decide what is captured: stream table and buffer hold what their owner may see (A13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import Connection, Place

Fails = Callable[..., psycopg.Error]

LINES = "SELECT id, tenant_id, amount FROM orders"
COUNT = "SELECT count(*) AS n FROM orders"


def protect(place: Place, *policies: str) -> None:
    """Row-level security on orders, with policies for SELECT."""
    place.superuser.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    for number, policy in enumerate(policies):
        place.superuser.execute(f"CREATE POLICY policy_{number} ON orders {policy}".encode())


def create(place: Place, query: str = LINES, name: str = "st") -> Connection:
    author = place.as_("st_author")
    pg_trickle.create_stream_table(author, name, query, refresh_mode="DIFFERENTIAL", schedule=None)
    return author


def refreshed(place: Place, author: Connection, mode: str = "DIFFERENTIAL", name: str = "st") -> None:
    pg_trickle.refresh_stream_table(author, name)
    assert_fresh(author, name)
    assert place.last_refresh("refresh_mode") == mode


def captured(place: Place) -> list[tuple[Any, ...]]:
    """What the owner finds in his buffer."""
    query = f"SELECT w, id, tenant_id FROM {place.buffer('orders', 'st_author')} ORDER BY seq, w"
    return place.as_("st_author").execute(query.encode()).fetchall()


MARK = (0, None, None)


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["statement", "row"])
def test_a13_hidden_rows_are_not_captured(place: Place, author: Connection, mode: str) -> None:
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s)", (mode,))
    protect(place, "FOR SELECT USING (tenant_id = 1)")
    create(place)
    for statement in (
        "INSERT INTO orders VALUES (101, 1, 1, 1, ''), (102, 2, 1, 1, '')",
        "UPDATE orders SET amount = 5 WHERE id = 102",
        "UPDATE orders SET tenant_id = 3 - tenant_id WHERE id > 100",
        "DELETE FROM orders WHERE id > 100",
    ):
        place.superuser.execute(statement.encode())
    assert captured(place) == [(1, 101, 1), (-1, 101, 1), (1, 102, 1), (-1, 102, 1)]
    refreshed(place, author)


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_a13_a_row_that_comes_into_sight_is_a_change(place: Place, author: Connection, mode: str) -> None:
    """Even if nothing that the query reads has changed."""
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s)", (mode,))
    protect(place, "FOR SELECT USING (note <> 'hidden')")
    create(place, COUNT)
    for note in ("hidden", "shown"):
        place.superuser.execute("UPDATE orders SET note = %s WHERE id < 10", (note,))
        refreshed(place, author)
    place.superuser.execute("UPDATE orders SET amount = 0")
    refreshed(place, author)


# What happens after the capture was made, and before anybody has refreshed.
CLOSED = {
    "tightened": "ALTER POLICY policy_0 ON orders USING (tenant_id = 1)",
    "restrictive": "CREATE POLICY more ON orders AS RESTRICTIVE USING (tenant_id = 1)",
    "dropped": "DROP POLICY policy_0 ON orders",
    "other role": "ALTER POLICY policy_0 ON orders TO app_reader",
    "membership": "REVOKE viewers FROM st_author",
    "revoked": "REVOKE SELECT ON orders FROM st_author",
    "schema": "REVOKE USAGE ON SCHEMA public FROM st_author, PUBLIC",
}


@pytest.mark.parametrize("change", CLOSED)
def test_a13_what_is_hidden_later_is_not_captured_from_then_on(place: Place, author: Connection, change: str) -> None:
    place.database.adopt_role("viewers")
    place.superuser.execute("CREATE ROLE viewers; ALTER ROLE st_author INHERIT; GRANT viewers TO st_author")
    protect(place, "FOR SELECT TO viewers USING (tenant_id > 0)")
    create(place)
    place.superuser.execute(CLOSED[change].encode())
    place.superuser.execute("INSERT INTO orders VALUES (102, 2, 1, 1, '')")
    assert captured(place) == [MARK]


@pytest.mark.versions
def test_a13_row_security_switched_on_later_counts_at_once(place: Place, author: Connection) -> None:
    create(place)
    place.superuser.execute("INSERT INTO orders VALUES (101, 2, 1, 1, '')")
    protect(place, "FOR SELECT USING (tenant_id = 1)")
    place.superuser.execute("INSERT INTO orders VALUES (102, 2, 1, 1, '')")
    assert captured(place) == [(1, 101, 2), MARK]
    refreshed(place, author, "FULL")
    assert captured(place) == []
    place.superuser.execute("INSERT INTO orders VALUES (103, 2, 1, 1, ''), (104, 1, 1, 1, '')")
    refreshed(place, author)


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_a13_who_policies_are_for_is_said_by_roles_between_too(place: Place, author: Connection, mode: str) -> None:
    """Nothing is written meanwhile: the next refresh has to see it from the roles alone."""
    for role in ("between", "viewers", "keepers"):
        place.database.adopt_role(role)
    place.superuser.execute(
        """CREATE ROLE between; CREATE ROLE viewers; CREATE ROLE keepers; ALTER ROLE st_author INHERIT;
           GRANT between TO st_author; ALTER TABLE orders OWNER TO keepers; GRANT SELECT ON orders TO st_author"""
    )
    protect(place, "TO viewers USING (tenant_id = 1)")
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode=mode)
    inherits = place.value("SELECT current_setting('server_version_num')::int < 160000")
    lifted, back = (
        ("ALTER ROLE between NOINHERIT", "ALTER ROLE between INHERIT")
        if inherits
        else ("GRANT viewers TO between WITH INHERIT FALSE", "GRANT viewers TO between WITH INHERIT TRUE")
    )
    for change, rows in (
        ("GRANT viewers TO between", 10),
        (lifted, 0),
        (back, 10),
        ("GRANT keepers TO between", 30),
        ("REVOKE viewers FROM between", 30),
        ("REVOKE keepers FROM between", 0),
    ):
        place.superuser.execute(change.encode())
        pg_trickle.refresh_stream_table(author, "st")
        assert place.value("SELECT count(*) FROM st") == rows, change
        assert_fresh(author, "st")


def test_a13_a_policy_that_raises_an_error_stops_no_writer(place: Place, author: Connection) -> None:
    protect(place, "FOR SELECT USING (10 / tenant_id > 2)")
    create(place)
    place.superuser.execute("INSERT INTO orders VALUES (101, 0, 1, 1, '')")
    assert captured(place) == [MARK]
    with pytest.raises(psycopg.errors.DivisionByZero):
        pg_trickle.refresh_stream_table(author, "st")
    place.superuser.execute("DELETE FROM orders WHERE id = 101; ALTER TABLE orders ADD CHECK (tenant_id <> 0)")
    refreshed(place, author, "FULL")
    place.superuser.execute("UPDATE orders SET tenant_id = 7 WHERE id < 5")
    refreshed(place, author)


NOT_CAPTURED = {
    "subquery": "USING (id IN (SELECT id FROM customers LIMIT 3))",
    "setting": "USING (tenant_id = current_setting('app.tenant_id', true)::int)",
    "session_user": "USING (note = session_user)",
    "time": "USING (now() > '2020-01-01')",
    "conversion": "USING (tenant_id::text = ANY (string_to_array('1,2', ',')) AND '1 day'::interval::text > '')",
    "function": "USING (visible(tenant_id))",
    "whole row": "USING (orders IS NOT NULL)",
    "system column": "USING (tableoid > 0)",
}
CAPTURED = {
    "current_user": "USING (note <> current_user)",
    "subquery": "USING (id IN (SELECT id FROM customers))",
    "nothing": "FOR UPDATE USING (true)",
    "only checks": "FOR ALL WITH CHECK (true)",
    "list": "USING (tenant_id IN (1, 3) OR note LIKE 'note 2%')",
    "case": "USING (CASE WHEN tenant_id = 1 THEN amount > 5 ELSE coalesce(note, '') <> 'note 3' END)",
    "restrictive": "AS RESTRICTIVE USING (tenant_id = 1)",
    "null": "USING (NULL)",
    "distinct": "USING (tenant_id IS DISTINCT FROM 2 AND NOT (amount IS NULL) AND greatest(id, 5) < 25)",
}


@pytest.mark.parametrize("policy", NOT_CAPTURED)
def test_a13_a_policy_that_a_row_can_not_answer_makes_it_recompute(
    place: Place, author: Connection, fails: Fails, policy: str
) -> None:
    place.superuser.execute("CREATE FUNCTION visible(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = 1'")
    protect(place, NOT_CAPTURED[policy])
    error = fails("0A000", create, place)
    assert "policy" in (error.diag.message_detail or ""), error
    pg_trickle.create_stream_table(author, "st", LINES)
    author.execute("SET app.tenant_id = 1")
    for _ in range(2):
        place.superuser.execute("UPDATE orders SET tenant_id = 1 + tenant_id % 3, amount = amount + 1")
        refreshed(place, author, "FULL")
    assert place.value("SELECT count(*) FROM pgtrickle.pgt_captures") == 0


@pytest.mark.versions
@pytest.mark.parametrize("policy", CAPTURED)
def test_a13_a_policy_that_a_row_can_answer_is_kept_incrementally(
    place: Place, author: Connection, policy: str
) -> None:
    protect(place, CAPTURED[policy])
    create(place)
    for statement in (
        "UPDATE orders SET tenant_id = 1 + tenant_id % 3, amount = amount + 1, note = 'st_author' WHERE id % 2 = 0",
        "INSERT INTO orders SELECT i, i % 4, 1, i, 'st_author' FROM generate_series(100, 110) AS i",
        "UPDATE orders SET note = NULL WHERE id % 3 = 0; DELETE FROM orders WHERE id % 5 = 0",
    ):
        place.superuser.execute(statement.encode())
        pg_trickle.refresh_stream_table(author, "st")
        assert_fresh(author, "st")
        assert place.last_refresh("reason") is None


HOSTILE = [
    "v_intact",
    "tg_op",
    "new",
    "old",
    "r",
    "c1",
    "n",
    "x",
    "g",
    "xid",
    'quo"te',
    "a.b",
    "__pgt_new",
    "current_user",
]


@pytest.mark.parametrize("mode", ["statement", "row"])
def test_a13_a_policy_may_name_any_column(place: Place, author: Connection, mode: str) -> None:
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s)", (mode,))
    place.superuser.execute("CREATE TABLE odd (id int); GRANT SELECT ON odd TO st_author")
    quoted = ['"' + name.replace('"', '""') + '"' for name in HOSTILE]
    for name in quoted:
        place.superuser.execute(f"ALTER TABLE odd ADD COLUMN {name} int DEFAULT 1".encode())
    condition = " AND ".join(f"{name} = 1" for name in quoted)
    place.superuser.execute(
        f"ALTER TABLE odd ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON odd USING ({condition})".encode()
    )
    create(place, 'SELECT id, "xid", count(*) AS n FROM odd GROUP BY id, "xid"')
    for statement in (
        "INSERT INTO odd (id) VALUES (1), (2)",
        "UPDATE odd SET tg_op = 2 WHERE id = 1",
        "DELETE FROM odd",
    ):
        place.superuser.execute(statement.encode())
        refreshed(place, author)


@pytest.mark.parametrize("renamed", ["tenant_id", "amount"])
def test_a13_a_column_of_a_policy_may_be_renamed(place: Place, author: Connection, renamed: str) -> None:
    protect(place, "USING (tenant_id = 1)")
    create(place, "SELECT id, amount FROM orders")
    place.superuser.execute(f"ALTER TABLE orders RENAME {renamed} TO other".encode())
    place.superuser.execute("INSERT INTO orders VALUES (101, 1, 1, 1, ''), (102, 2, 1, 1, '')")
    refreshed(place, author, "FULL")
    place.superuser.execute("INSERT INTO orders VALUES (103, 1, 1, 1, ''), (104, 2, 1, 1, '')")
    refreshed(place, author)


@pytest.mark.versions
def test_a13_through_a_view_the_policies_of_its_owner_count(place: Place, author: Connection) -> None:
    """A view of the stream table's owner, one that its caller's rights go through, and somebody else's."""
    protect(place, "FOR SELECT TO st_author USING (tenant_id = 1)")
    author.execute("CREATE VIEW own_view AS SELECT id, tenant_id, amount FROM orders")
    place.superuser.execute(
        """CREATE VIEW their_view AS SELECT id, tenant_id, amount FROM orders; GRANT SELECT ON their_view TO st_author;
           CREATE VIEW open_view WITH (security_invoker = on) AS SELECT id, tenant_id, amount FROM orders;
           GRANT SELECT ON open_view TO st_author"""
    )
    for view in ("own_view", "open_view", "their_view"):
        pg_trickle.create_stream_table(author, f"st_{view}", f"SELECT * FROM {view}", schedule=None)
    for change in ("UPDATE orders SET tenant_id = 1 + tenant_id % 3", "INSERT INTO orders VALUES (99, 1, 1, 1, '')"):
        place.superuser.execute(change.encode())
        for view, mode in (("own_view", "DIFFERENTIAL"), ("open_view", "DIFFERENTIAL"), ("their_view", "FULL")):
            refreshed(place, author, mode, f"st_{view}")
    tenants = "SELECT array_agg(DISTINCT tenant_id ORDER BY tenant_id) FROM {}"
    assert place.value(tenants.format("st_own_view")) == place.value(tenants.format("st_open_view")) == [1]
    assert place.value(tenants.format("st_their_view")) == [1, 2, 3]


def test_a13_who_forces_policies_on_himself_sees_by_them_downstream(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "lower", LINES, schedule=None)
    author.execute(
        """ALTER TABLE lower ENABLE ROW LEVEL SECURITY; ALTER TABLE lower FORCE ROW LEVEL SECURITY;
           CREATE POLICY few ON lower USING (tenant_id = 1)"""
    )
    pg_trickle.create_stream_table(author, "upper", "SELECT tenant_id, count(*) AS n FROM lower GROUP BY tenant_id")
    for _ in range(3):
        place.superuser.execute("UPDATE orders SET tenant_id = 1 + tenant_id % 3 WHERE id % 2 = 0")
        pg_trickle.refresh_stream_table(author, "upper")
        assert_fresh(author, "upper")
        assert place.value("SELECT array_agg(tenant_id) FROM upper") == [1]
        assert place.last_refresh("reason") is None


def test_a13_a_policy_is_told_with_the_plan(place: Place, author: Connection) -> None:
    protect(place, "USING (tenant_id = 1)")
    create(place)
    told = place.value("SELECT pgtrickle.explain_stream_table('st')")
    assert "tenant_id = 1" in told
    assert "policies" in told


# Policies and changes at random.

conditions = st.sampled_from([
    "true", "tenant_id = 1", "tenant_id <> 2", "amount > 10", "note IS NULL", "id % 3 = 0", "note = current_user",
    "tenant_id IS DISTINCT FROM 3", "amount BETWEEN 3 AND 20 OR tenant_id = 2", "id IN (SELECT id FROM customers)",
])  # fmt: skip
policies = st.builds(
    "{} FOR {} TO {} USING ({})".format,
    st.sampled_from(["AS PERMISSIVE", "AS PERMISSIVE", "AS RESTRICTIVE"]),
    st.sampled_from(["SELECT", "ALL", "DELETE"]),
    st.sampled_from(["PUBLIC", "st_author", "app_reader"]),
    conditions,
)
number = st.integers(1, 40)
changes = st.one_of(
    st.builds("INSERT INTO orders VALUES ({0}, {0} % 4, 1, {1}, NULL) ON CONFLICT DO NOTHING".format, number, number),
    st.builds("UPDATE orders SET tenant_id = {} WHERE id % 5 = {}".format, st.integers(1, 3), st.integers(0, 4)),
    st.builds("UPDATE orders SET note = {} WHERE id < {}".format, st.sampled_from(["NULL", "'st_author'"]), number),
    st.builds("UPDATE orders SET amount = {} WHERE id > {}".format, number, number),
    st.builds("DELETE FROM orders WHERE id % 7 = {}".format, st.integers(0, 6)),
    st.just("TRUNCATE orders"),
    st.builds("UPDATE customers SET id = id + 7 WHERE id = {}".format, st.integers(1, 14)),
)
rounds = st.lists(st.tuples(st.one_of(st.none(), policies), st.lists(changes, max_size=4)), min_size=1, max_size=4)
QUERIES = [LINES, COUNT, "SELECT tenant_id, sum(amount) AS total FROM orders GROUP BY tenant_id"]


# Every example makes a stream table and drops it.
FEW = max(10, settings().max_examples // 4)


@settings(max_examples=FEW)
@given(first=st.lists(policies, max_size=3), happened=rounds, query=st.sampled_from(QUERIES))
def test_a13_any_policies_and_any_changes(
    place: Place, author: Connection, first: list[str], happened: Any, query: str
) -> None:
    """The stream table is what its owner sees."""
    superuser = place.superuser
    try:
        protect(place, *first)
        pg_trickle.create_stream_table(author, "st", query, refresh_mode="DIFFERENTIAL", schedule=None)
        for turn, (policy, statements) in enumerate(happened):
            if policy is not None:
                superuser.execute(f"CREATE POLICY later_{turn} ON orders {policy}".encode())
            for statement in statements:
                superuser.execute(statement.encode())
            pg_trickle.refresh_stream_table(author, "st")
            assert_fresh(author, "st")
    finally:
        superuser.execute("SELECT pgtrickle.drop_stream_table('st') FROM pgtrickle.pgt_stream_tables")
        for (policy,) in superuser.execute("SELECT policyname FROM pg_policies WHERE tablename = 'orders'").fetchall():
            superuser.execute(f"DROP POLICY {policy} ON orders".encode())
        superuser.execute(
            "TRUNCATE orders; INSERT INTO orders SELECT i, 1 + i % 3, i % 7, i, NULL FROM generate_series(1, 30) AS i"
        )


@pytest.mark.versions
@pytest.mark.parametrize("query", QUERIES)
def test_a13_immediate_maintenance_shows_what_the_owner_may_see(place: Place, author: Connection, query: str) -> None:
    protect(place, "FOR SELECT USING (tenant_id = 1)", "FOR SELECT USING (note = current_user)")
    pg_trickle.create_stream_table(author, "st", query, refresh_mode="IMMEDIATE")
    for statement in (
        "INSERT INTO orders VALUES (101, 1, 1, 1, ''), (102, 2, 1, 1, '')",
        "UPDATE orders SET note = 'st_author' WHERE id % 4 = 0",
        "UPDATE orders SET tenant_id = 1 + tenant_id % 3",
        "WITH gone AS (DELETE FROM orders WHERE id < 5 RETURNING id) INSERT INTO orders SELECT id, 1, 1, 1 FROM gone",
        "TRUNCATE orders",
    ):
        place.superuser.execute(statement.encode())
        assert_fresh(author, "st")


def test_a13_immediate_maintenance_stops_when_policies_change(place: Place, author: Connection) -> None:
    protect(place, "FOR SELECT USING (tenant_id = 1)")
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode="IMMEDIATE")
    place.superuser.execute("ALTER POLICY policy_0 ON orders USING (tenant_id = 2)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        place.superuser.execute("UPDATE orders SET amount = 0")
    pg_trickle.refresh_stream_table(author, "st")
    assert_fresh(author, "st")
    place.superuser.execute("UPDATE orders SET tenant_id = 1 + tenant_id % 3")
    assert_fresh(author, "st")
