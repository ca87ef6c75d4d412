"""Policies that read other tables: incremental while these stay, recomputed when they change (A13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import MEMBER, Place, attempted
from tests.security.test_policies import LINES, MARK, captured, create, protect, refreshed

Fails = Callable[..., psycopg.Error]


def rows(place: Place, trigger_mode: str) -> None:
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('cdc_trigger_mode', %s)", (trigger_mode,))


BECAME = "what policies of its sources read was changed"


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["FULL", "DIFFERENTIAL", "AUTO"])
def test_a13_a_tenant_sees_what_his_memberships_show_him(tenants: Place, mode: str, worker: Any) -> None:
    protect(tenants, MEMBER)
    author = tenants.as_("st_author")
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode=mode)
    for change in (
        "UPDATE orders SET tenant_id = 1 + (tenant_id + 1) % 3, amount = amount + 1 WHERE id % 2 = 0",
        "INSERT INTO memberships VALUES (3, 'st_author')",
        "INSERT INTO orders VALUES (101, 3, 1, 1, ''), (102, 2, 1, 1, '')",
        "DELETE FROM memberships WHERE tenant_id = 1",
    ):
        tenants.superuser.execute(change.encode())
        pg_trickle.refresh_stream_table(tenants.superuser, "st")
        assert_fresh(author, "st")
    tenants.superuser.execute("UPDATE memberships SET tenant_id = 2 WHERE usr = 'st_author'")
    worker.wait_for(lambda: tenants.value("SELECT count(*) FROM st WHERE tenant_id <> 2") == 0)
    assert_fresh(author, "st")


@pytest.mark.versions
@pytest.mark.parametrize("trigger_mode", ["statement", "row"])
def test_a13_what_memberships_hide_is_not_captured(tenants: Place, trigger_mode: str) -> None:
    rows(tenants, trigger_mode)
    protect(tenants, MEMBER)
    author = create(tenants)
    for statement in (
        "INSERT INTO orders VALUES (101, 1, 1, 1, ''), (102, 2, 1, 1, '')",
        "UPDATE orders SET amount = 5 WHERE id = 102",
        "UPDATE orders SET tenant_id = 3 - tenant_id WHERE id > 100",
        "DELETE FROM orders WHERE id > 100",
    ):
        tenants.superuser.execute(statement.encode())
    assert captured(tenants) == [(1, 101, 1), (-1, 101, 1), (1, 102, 1), (-1, 102, 1)]
    refreshed(tenants, author)
    assert tenants.last_refresh("reason") is None


def test_a13_only_what_policies_read_of_a_table_makes_it_recompute(tenants: Place) -> None:
    protect(tenants, MEMBER)
    author = create(tenants)
    for change, mode in (
        ("UPDATE memberships SET role = 'writer'", "DIFFERENTIAL"),
        ("UPDATE memberships SET tenant_id = 2 WHERE usr = 'st_author'", "FULL"),
        ("UPDATE orders SET amount = 0", "DIFFERENTIAL"),
        ("TRUNCATE memberships", "FULL"),
        ("UPDATE orders SET amount = 1", "DIFFERENTIAL"),
    ):
        tenants.superuser.execute(change.encode())
        refreshed(tenants, author, mode)
        assert tenants.last_refresh("reason") == (BECAME if mode == "FULL" else None)


SUBQUERIES = {
    "exists": """USING (EXISTS (SELECT FROM memberships AS m
                                WHERE m.usr = current_user AND m.tenant_id = orders.tenant_id))""",
    "join": """USING (tenant_id IN (SELECT t.id FROM memberships AS m
                                      JOIN tenants AS t ON m.tenant_id IN (t.id, t.parent)
                                     WHERE m.usr = current_user))""",
    "array": "USING (tenant_id = ANY (ARRAY(SELECT m.tenant_id FROM memberships AS m WHERE m.usr = current_user)))",
    "quoted": "USING (note <> 'ANY (ARRAY(SELECT ' AND tenant_id <> ALL (ARRAY(SELECT id FROM tenants WHERE open)))",
    "scalar": "USING (tenant_id <= (SELECT max(tenant_id) FROM memberships WHERE usr = current_user))",
    "two columns": "USING ((tenant_id, 'reader') IN (SELECT tenant_id, role FROM memberships))",
    "with": "USING (tenant_id IN (WITH o AS (SELECT id FROM tenants WHERE open UNION SELECT 1) SELECT id FROM o))",
    "grouped": """USING (tenant_id IN (SELECT tenant_id FROM memberships GROUP BY tenant_id
                                       HAVING count(*) > 1 OR bool_or(usr = current_user) OR sum(tenant_id) > 5))""",
    "either": "USING (tenant_id = 3 OR tenant_id IN (SELECT tenant_id FROM memberships WHERE usr = current_user))",
    "restrictive": "AS RESTRICTIVE " + MEMBER,
    "no row": "USING ((SELECT count(*) FROM memberships) > 2)",
    "no table": "USING (tenant_id IN (SELECT g FROM generate_series(1, 2) AS g))",
}


@pytest.mark.parametrize("subquery", SUBQUERIES)
def test_a13_subqueries_that_tables_answer_are_kept_incrementally(tenants: Place, subquery: str) -> None:
    protect(tenants, SUBQUERIES[subquery], "FOR SELECT USING (tenant_id = 1)")
    author = create(tenants)
    for change in (
        "UPDATE orders SET tenant_id = 1 + tenant_id % 3, amount = amount + 1 WHERE id % 2 = 0",
        "INSERT INTO memberships VALUES (3, 'st_author'), (2, 'st_author'), (2, 'x')",
        "INSERT INTO orders SELECT i, i % 4, 1, i, 'new' FROM generate_series(100, 110) AS i",
        "UPDATE tenants SET open = true WHERE id = 2",
        "UPDATE orders SET tenant_id = 3 WHERE id % 3 = 0; DELETE FROM orders WHERE id % 5 = 0",
    ):
        tenants.superuser.execute(change.encode())
        pg_trickle.refresh_stream_table(author, "st")
        assert_fresh(author, "st")
        if "orders" in change:
            assert tenants.last_refresh("reason") is None


RECOMPUTED = {
    "limit": "USING (tenant_id IN (SELECT tenant_id FROM memberships LIMIT 1))",
    "first": "USING (tenant_id IN (SELECT DISTINCT ON (usr) tenant_id FROM memberships))",
    "list": "USING ((SELECT string_agg(usr, ',') FROM memberships) <> '')",
    "array": "USING (ARRAY[tenant_id] = ARRAY(SELECT tenant_id FROM memberships))",
    "quoted": """USING (note <> ' ANY (ARRAY( SELECT '
                        AND ARRAY[tenant_id] = ARRAY(SELECT tenant_id FROM memberships))""",
    "window": "USING (tenant_id IN (SELECT row_number() OVER () FROM memberships))",
    "floats": "USING (tenant_id < (SELECT sum(0.1::float8 * tenant_id) FROM memberships))",
    "setting": "USING (tenant_id IN (SELECT tenant_id FROM memberships WHERE usr = current_setting('app.usr', true)))",
    "roles": "USING (EXISTS (SELECT FROM pg_roles WHERE rolname = note))",
    "view": "USING (tenant_id IN (SELECT id FROM open_tenants))",
    "somebody else's": "USING (tenant_id IN (SELECT tenant_id FROM theirs))",
    "partitions": "USING (tenant_id IN (SELECT tenant_id FROM parts))",
    "unlogged": "USING (tenant_id IN (SELECT tenant_id FROM fleeting))",
    "stream table": "USING (tenant_id IN (SELECT tenant_id FROM members))",
    "its policy": "USING (tenant_id IN (SELECT tenant_id FROM hidden))",
}


@pytest.fixture
def unwatched(tenants: Place) -> Place:
    """Tables that nobody watches for what policies show."""
    tenants.superuser.execute(
        """CREATE VIEW open_tenants AS SELECT id FROM tenants WHERE open;
           CREATE TABLE theirs AS TABLE memberships; ALTER TABLE theirs OWNER TO app_reader;
           CREATE TABLE parts (tenant_id int) PARTITION BY LIST (tenant_id);
           CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
           CREATE UNLOGGED TABLE fleeting AS TABLE memberships;
           CREATE TABLE hidden AS TABLE memberships; ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
           CREATE POLICY p ON hidden USING (usr = current_setting('app.usr', true))"""
    )
    pg_trickle.create_stream_table(tenants.superuser, "members", "SELECT tenant_id FROM memberships", schedule=None)
    tenants.superuser.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO st_author")
    return tenants


@pytest.mark.parametrize("subquery", RECOMPUTED)
def test_a13_other_subqueries_make_it_recompute(unwatched: Place, fails: Fails, subquery: str) -> None:
    protect(unwatched, RECOMPUTED[subquery])
    error = fails("0A000", create, unwatched)
    assert "polic" in (error.diag.message_detail or ""), error
    author = unwatched.as_("st_author")
    pg_trickle.create_stream_table(author, "st", LINES)
    author.execute("SET app.usr = 'st_author'")
    for change in (
        "UPDATE orders SET tenant_id = 1 + tenant_id % 3",
        "INSERT INTO memberships VALUES (3, 'st_author')",
    ):
        unwatched.superuser.execute(change.encode())
        refreshed(unwatched, author, "FULL")
    assert "polic" in unwatched.value("SELECT pgtrickle.explain_stream_table('st')")


def test_a13_no_statement_maintains_what_depends_on_memberships(tenants: Place, fails: Fails) -> None:
    protect(tenants, MEMBER)
    author = tenants.as_("st_author")
    error = fails("0A000", pg_trickle.create_stream_table, author, "st", LINES, refresh_mode="IMMEDIATE")
    assert "public.memberships" in (error.diag.message_detail or "")
    create(tenants)
    assert fails("0A000", pg_trickle.alter_stream_table, author, "st", refresh_mode="IMMEDIATE")


@pytest.mark.usefixtures("worker")
def test_a13_immediate_stops_when_a_policy_begins_to_read_memberships(tenants: Place, fails: Fails) -> None:
    protect(tenants, "USING (tenant_id = 1)")
    author = tenants.as_("st_author")
    pg_trickle.create_stream_table(author, "st", LINES, refresh_mode="IMMEDIATE")
    tenants.superuser.execute(f"ALTER POLICY policy_0 ON orders {MEMBER}".encode())
    fails("55000", tenants.superuser.execute, "UPDATE orders SET amount = 0")
    pg_trickle.alter_stream_table(author, "st", refresh_mode="AUTO")
    tenants.superuser.execute("UPDATE orders SET amount = 0")
    refreshed(tenants, author)


@pytest.mark.versions
def test_a13_policies_of_what_policies_read_count_too(tenants: Place) -> None:
    """Tenants are seen by memberships, memberships by their own policy: both are watched."""
    protect(tenants, "USING (tenant_id IN (SELECT id FROM tenants WHERE parent IS NULL))")
    tenants.superuser.execute(
        """ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
           CREATE POLICY members ON tenants USING (id IN (SELECT tenant_id FROM memberships));
           ALTER TABLE memberships ENABLE ROW LEVEL SECURITY;
           CREATE POLICY own ON memberships USING (usr = current_user)"""
    )
    author = create(tenants)
    for change, mode in (
        ("UPDATE orders SET amount = amount + 1, tenant_id = 1 + tenant_id % 3", "DIFFERENTIAL"),
        ("INSERT INTO memberships VALUES (3, 'somebody')", "DIFFERENTIAL"),
        ("UPDATE memberships SET usr = 'st_author'", "FULL"),
        ("UPDATE tenants SET parent = NULL", "FULL"),
        ("ALTER POLICY own ON memberships USING (usr = current_user AND tenant_id > 1)", "FULL"),
        ("UPDATE orders SET amount = amount + 1, tenant_id = 1 + tenant_id % 3", "DIFFERENTIAL"),
        ("ALTER TABLE memberships DISABLE ROW LEVEL SECURITY", "FULL"),
        ("UPDATE orders SET amount = amount + 1, tenant_id = 1 + tenant_id % 3", "DIFFERENTIAL"),
    ):
        tenants.superuser.execute(change.encode())
        pg_trickle.refresh_stream_table(author, "st")
        assert_fresh(author, "st")
        if tenants.last_refresh("skipped_reason") is None:
            assert tenants.last_refresh("refresh_mode") == mode, (change, tenants.last_refresh("reason"))


# What happens after the capture was made, before anybody has refreshed: nobody knows any more what the owner may see.
CLOSED = {
    "renamed": """ALTER TABLE memberships RENAME TO former; GRANT SELECT ON former TO st_author;
                  CREATE TABLE memberships AS SELECT g, 'st_author' AS usr FROM generate_series(1, 3) AS g (tenant_id);
                  GRANT SELECT ON memberships TO st_author""",
    "column": """ALTER TABLE memberships RENAME usr TO former; ALTER TABLE memberships RENAME role TO usr;
                 UPDATE memberships SET usr = 'st_author'""",
    "given away": "ALTER TABLE memberships OWNER TO app_reader; GRANT SELECT ON memberships TO st_author",
    "hidden": "ALTER TABLE memberships ENABLE ROW LEVEL SECURITY",
    "child": "CREATE TABLE more () INHERITS (memberships); INSERT INTO more VALUES (2, 'st_author')",
    "revoked": "REVOKE SELECT ON memberships FROM st_author",
    "columns": "REVOKE SELECT ON memberships FROM st_author; GRANT SELECT (usr) ON memberships TO st_author",
    "tightened": "ALTER POLICY policy_0 ON orders USING (tenant_id IN (SELECT 7 FROM memberships))",
    "dropped": "DROP TABLE memberships CASCADE",
}


@pytest.mark.parametrize("change", CLOSED)
def test_a13_what_is_not_certain_is_not_captured(tenants: Place, change: str) -> None:
    protect(tenants, MEMBER, "FOR SELECT USING (false)")
    author = create(tenants)
    tenants.superuser.execute(CLOSED[change].encode())
    tenants.superuser.execute("INSERT INTO orders VALUES (101, 1, 1, 1, ''), (102, 2, 1, 1, '')")
    assert captured(tenants) == [MARK]
    if change in ("revoked", "columns"):
        assert attempted(pg_trickle.refresh_stream_table, author, "st") == "42501"
        tenants.superuser.execute("GRANT SELECT ON memberships TO st_author")
    if change in ("given away", "child"):
        assert attempted(pg_trickle.refresh_stream_table, author, "st") == "0A000"
        pg_trickle.alter_stream_table(author, "st", refresh_mode="AUTO")
    for _ in range(2):
        pg_trickle.refresh_stream_table(author, "st")
        assert_fresh(author, "st")
        tenants.superuser.execute("UPDATE orders SET amount = amount + 1")


def test_a13_who_may_not_read_memberships_can_not_read_the_source(tenants: Place, fails: Fails) -> None:
    """As when he selects from it."""
    protect(tenants, MEMBER)
    tenants.superuser.execute("REVOKE SELECT ON memberships FROM st_author")
    author = tenants.as_("st_author")
    for named in ({}, {"initialize": False}, {"refresh_mode": "FULL"}):
        fails("42501", pg_trickle.create_stream_table, author, "st", LINES, **named)
    assert tenants.value("SELECT count(*) FROM pgtrickle.pgt_stream_tables") == 0


def test_a13_a_subquery_that_fails_stops_no_writer(tenants: Place, fails: Fails) -> None:
    protect(tenants, "USING (tenant_id = (SELECT tenant_id FROM memberships WHERE usr = current_user))")
    author = create(tenants)
    for trigger_mode in ("statement", "row"):
        tenants.superuser.execute("INSERT INTO memberships VALUES (2, 'st_author')")
        tenants.superuser.execute("INSERT INTO orders VALUES (101, 2, 1, 1, '')")
        assert captured(tenants)[-1] == MARK
        fails("21000", pg_trickle.refresh_stream_table, author, "st")
        tenants.superuser.execute("DELETE FROM memberships WHERE tenant_id = 2")
        refreshed(tenants, author, "FULL")
        tenants.superuser.execute("DELETE FROM orders WHERE id = 101")
        rows(tenants, "row") if trigger_mode == "statement" else None
        pg_trickle.repair_stream_table(author, "st")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a13_who_writes_by_an_older_snapshot_does_not_judge(tenants: Place, level: str) -> None:
    """He may not know the memberships of now, whatever his transaction id says."""
    protect(tenants, MEMBER)
    author = create(tenants)
    writer = tenants.as_("postgres")
    writer.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT".encode())
    tenants.superuser.execute("INSERT INTO memberships VALUES (2, 'st_author')")
    refreshed(tenants, author, "FULL")
    writer.execute("INSERT INTO orders VALUES (102, 2, 1, 1, ''), (103, 3, 1, 1, '')")
    writer.execute("COMMIT")
    assert captured(tenants) == [MARK]
    refreshed(tenants, author, "FULL")
    assert tenants.value("SELECT count(*) FROM st WHERE id = 102") == 1
    tenants.superuser.execute("UPDATE orders SET amount = 0")
    refreshed(tenants, author)


def test_a13_many_rows_cost_one_look_at_memberships(tenants: Place) -> None:
    """Also in a session whose first statement changed one row, for which another plan would have done."""
    tenants.superuser.execute("INSERT INTO memberships SELECT 1000 + i, 'x' FROM generate_series(1, 500) AS i")
    protect(tenants, MEMBER)
    create(tenants)
    plans: list[str] = []
    writer = tenants.as_("postgres")
    writer.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
    writer.execute(
        """LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
           SET client_min_messages = log"""
    )
    writer.execute("UPDATE orders SET amount = amount + 1 WHERE id = 1")
    (plan,) = (one for one in plans if "INSERT INTO pgtrickle_changes" in one)
    assert "on memberships" in plan
    assert "Nested Loop" not in plan


# In one transaction memberships and source are changed, one after the other or at once.
TOGETHER = {
    "memberships first": (
        "INSERT INTO memberships VALUES (2, 'st_author')",
        "UPDATE orders SET tenant_id = 2 WHERE id < 9",
    ),
    "source first": ("UPDATE orders SET tenant_id = 2 WHERE id < 9", "INSERT INTO memberships VALUES (2, 'st_author')"),
    "at once": (
        "WITH m AS (DELETE FROM memberships RETURNING *) UPDATE orders SET tenant_id = 2 FROM m WHERE id < 9",
        "WITH o AS (UPDATE orders SET tenant_id = 1 WHERE id < 3) INSERT INTO memberships VALUES (1, 'st_author')",
    ),
    "rolled back": (
        """SAVEPOINT s; INSERT INTO memberships VALUES (2, 'st_author');
           UPDATE orders SET tenant_id = 2 WHERE id < 9; ROLLBACK TO s""",
        "UPDATE orders SET tenant_id = 2 WHERE id < 5",
    ),
    "rolled back in part": (
        "INSERT INTO memberships VALUES (2, 'st_author'); SAVEPOINT s; UPDATE orders SET tenant_id = 2; ROLLBACK TO s",
        "SAVEPOINT t; DELETE FROM memberships; ROLLBACK TO t; UPDATE orders SET tenant_id = 2 WHERE id < 5",
    ),
    "there and back": (
        "INSERT INTO memberships VALUES (2, 'st_author'); UPDATE orders SET tenant_id = 2 WHERE id < 9",
        "DELETE FROM memberships WHERE tenant_id = 2; UPDATE orders SET amount = 0 WHERE id < 9",
    ),
    "cascade": ("DELETE FROM tenants WHERE id = 1", "INSERT INTO tenants VALUES (1, 2)"),
    "trigger": ("UPDATE orders SET note = 'join 2'", "UPDATE orders SET note = 'leave 1', amount = 0 WHERE id = 7"),
}


@pytest.mark.parametrize("again", [False, True], ids=["once", "refreshed in between"])
@pytest.mark.parametrize("sequence", TOGETHER)
def test_a13_one_transaction_changes_what_is_shown_and_the_rows(tenants: Place, sequence: str, again: bool) -> None:
    protect(tenants, MEMBER)
    tenants.superuser.execute(
        """DELETE FROM memberships WHERE usr <> 'st_author';
           ALTER TABLE memberships ADD FOREIGN KEY (tenant_id) REFERENCES tenants ON DELETE CASCADE;
           ALTER TABLE orders ADD FOREIGN KEY (tenant_id) REFERENCES tenants ON DELETE CASCADE;
           CREATE FUNCTION join_or_leave() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
               INSERT INTO memberships SELECT right(NEW.note, 1)::int, 'st_author' WHERE NEW.note LIKE 'join%';
               DELETE FROM memberships WHERE NEW.note LIKE 'leave%' AND tenant_id = right(NEW.note, 1)::int;
               RETURN NULL;
           END $$;
           CREATE TRIGGER a_first AFTER UPDATE ON orders FOR EACH ROW WHEN (NEW.note LIKE 'join%')
               EXECUTE FUNCTION join_or_leave();
           CREATE TRIGGER z_last AFTER UPDATE ON orders FOR EACH ROW WHEN (NEW.note LIKE 'leave%')
               EXECUTE FUNCTION join_or_leave();"""
    )
    author = create(tenants)
    with tenants.superuser.transaction():
        for statement in TOGETHER[sequence]:
            tenants.superuser.execute(statement.encode())
            if again:
                pg_trickle.refresh_stream_table(tenants.superuser, "st")
    for change in ("SELECT", "UPDATE orders SET amount = amount + 1"):
        tenants.superuser.execute(change.encode())
        pg_trickle.refresh_stream_table(author, "st")
        assert_fresh(author, "st")
