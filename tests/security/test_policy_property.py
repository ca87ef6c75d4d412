"""Random policies, roles and owners that change with the rows, in every mode: a stream table is what its owner sees."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.errors import FeatureNotSupported, InsufficientPrivilege, ObjectNotInPrerequisiteState

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import Connection, Place

pytestmark = [pytest.mark.property, pytest.mark.slow]

# An example makes a dozen objects and connects as nobody anew.
FEW = max(8, settings().max_examples // 6)

SETUP = """
CREATE TABLE members (tenant_id int, who text);
INSERT INTO members VALUES (1, 'st_author'), (2, 'lender'), (3, 'nobody');
CREATE TABLE parted (id int, tenant_id int, amount numeric, note text) PARTITION BY LIST (tenant_id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1, 2);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT id, tenant_id, amount, note FROM orders;
CREATE VIEW lent AS SELECT id, tenant_id, amount, note FROM orders;
CREATE VIEW invoked WITH (security_invoker = on) AS SELECT id, tenant_id, amount, note FROM orders;
ALTER VIEW lent OWNER TO lender;
GRANT SELECT ON orders, members, parted, parted_1, parted_rest TO st_author, lender;
GRANT SELECT ON lent, invoked TO st_author;
"""
TABLES = ("orders", "members", "parted", "parted_1")
SOURCES = ("orders", "orders", "parted", "parted_1", "lent", "invoked")
QUERIES = (
    "SELECT id, tenant_id, amount FROM {0}",
    "SELECT tenant_id, count(*) AS n, sum(amount) AS total FROM {0} GROUP BY tenant_id",
    "SELECT a.id, b.amount FROM {0} AS a JOIN {1} AS b ON a.id = b.id",
    "SELECT a.id, m.who FROM {0} AS a LEFT JOIN members AS m ON m.tenant_id = a.tenant_id",
    "SELECT DISTINCT tenant_id, note FROM {0}",
    "SELECT id, amount FROM {0} WHERE tenant_id NOT IN (SELECT m.tenant_id FROM members AS m WHERE m.who <> 'lender')",
)
CONDITIONS = (
    "true", "false", "NULL", "tenant_id = 1", "tenant_id IS DISTINCT FROM 3", "note = current_user", "id % 3 = 0",
    "tenant_id IN (SELECT m.tenant_id FROM members AS m WHERE m.who = current_user)",
    "EXISTS (SELECT FROM members AS m WHERE m.tenant_id = {0}.tenant_id AND m.who <> 'nobody')",
    "pg_has_role(current_user, 'inner_circle', 'USAGE')",
)  # fmt: skip
OF_MEMBERS = ("true", "who = current_user", "tenant_id < 3", "who <> 'nobody'")
NEW = "<the next>"
GRANTS = ("circle TO st_author", "inner_circle TO circle", "circle TO lender", "inner_circle TO st_author")

numbers = st.integers(1, 40)
tables = st.sampled_from(TABLES)


def _policy(kind: str, table: str, command: str, to: str, chosen: int) -> str:
    conditions = OF_MEMBERS if table == "members" else CONDITIONS
    condition = conditions[chosen % len(conditions)].format(table)
    return f"CREATE POLICY {NEW} ON {table} AS {kind} FOR {command} TO {to} USING ({condition})"


policies = st.builds(
    _policy,
    st.sampled_from(["PERMISSIVE", "PERMISSIVE", "RESTRICTIVE"]),
    tables,
    st.sampled_from(["SELECT", "ALL", "UPDATE"]),
    st.sampled_from(["PUBLIC", "PUBLIC", "st_author", "circle", "inner_circle", "lender"]),
    st.integers(0, 30),
)
definitions = st.one_of(
    policies,
    policies,
    st.builds("ALTER TABLE {} {} ROW LEVEL SECURITY".format, tables, st.sampled_from(["ENABLE", "ENABLE", "DISABLE"])),
    st.builds(
        "ALTER ROLE {} {}".format,
        st.sampled_from(["st_author", "lender"]),
        st.sampled_from(["BYPASSRLS", "NOBYPASSRLS"]),
    ),
    st.builds("{}".format, st.sampled_from([f"GRANT {one}" for one in GRANTS])),
    st.builds("{}".format, st.sampled_from([f"REVOKE {one.replace(' TO ', ' FROM ')}" for one in GRANTS])),
    st.builds(
        "ALTER ROLE {} {}".format, st.sampled_from(["st_author", "circle"]), st.sampled_from(["INHERIT", "NOINHERIT"])
    ),
    st.builds(
        "ALTER VIEW {} SET (security_invoker = {})".format,
        st.sampled_from(["lent", "invoked"]),
        st.sampled_from(["on", "off"]),
    ),
    st.builds("ALTER TABLE {} OWNER TO {}".format, tables, st.sampled_from(["postgres", "lender"])),
    st.builds("{} SELECT ON members {} lender".format, *[st.just("GRANT"), st.just("TO")]),
    st.sampled_from(["REVOKE SELECT ON members FROM lender", "REVOKE SELECT ON orders FROM st_author"]),
    st.just("GRANT SELECT ON orders, members TO st_author, lender"),
)
writes = st.one_of(
    st.builds(
        "INSERT INTO {0} (id, tenant_id, amount, note) SELECT {1}, 1 + {1} % 2, {1}, {2}"
        " WHERE NOT EXISTS (SELECT FROM {0} WHERE id = {1})".format,
        st.sampled_from(["orders", "parted", "parted_1"]),
        numbers,
        st.sampled_from(["NULL", "'st_author'", "'x'"]),
    ),
    st.builds(
        "UPDATE {} SET amount = amount + 1 WHERE id % 4 = {}".format,
        st.sampled_from(["orders", "parted", "parted_1"]),
        st.integers(0, 3),
    ),
    st.builds(
        "UPDATE {} SET tenant_id = {} WHERE id % 5 = {}".format,
        st.sampled_from(["orders", "parted"]),
        st.integers(1, 3),
        st.integers(0, 4),
    ),
    st.builds(
        "UPDATE orders SET note = {} WHERE id > {}".format,
        st.sampled_from(["NULL", "'st_author'", "'lender'"]),
        numbers,
    ),
    st.builds(
        "DELETE FROM {} WHERE id % 7 = {}".format, st.sampled_from(["orders", "parted", "parted_1"]), st.integers(0, 6)
    ),
    st.builds(
        "INSERT INTO members VALUES ({}, '{}')".format, st.integers(1, 3), st.sampled_from(["st_author", "lender"])
    ),
    st.builds("DELETE FROM members WHERE tenant_id = {}".format, st.integers(1, 3)),
    st.builds("UPDATE members SET who = 'st_author' WHERE tenant_id = {}".format, st.integers(1, 3)),
)
rounds = st.lists(st.tuples(st.lists(definitions, max_size=2), st.lists(writes, max_size=3)), min_size=1, max_size=5)


@pytest.fixture
def town(place: Place, author: Connection) -> Place:
    """Roles that hold others; tables and views of several owners come with each example."""
    assert author.info.user == "st_author"
    for name in ("lender", "circle", "inner_circle"):
        place.database.make_role(name)
    return place


def remade(town: Place) -> None:
    """As if nothing had happened."""
    run = town.superuser.execute
    run("SELECT pgtrickle.drop_stream_table('st') FROM pgtrickle.pgt_stream_tables")
    for grant in GRANTS:
        run(f"REVOKE {grant.replace(' TO ', ' FROM ')}".encode())
    run("ALTER ROLE st_author NOBYPASSRLS INHERIT; ALTER ROLE lender NOBYPASSRLS; ALTER ROLE circle INHERIT")
    for (policy,) in run("SELECT policyname FROM pg_policies WHERE tablename = 'orders'").fetchall():
        run(f"DROP POLICY {policy} ON orders".encode())
    run("DROP VIEW IF EXISTS lent, invoked; DROP TABLE IF EXISTS members, parted")
    run("ALTER TABLE orders DISABLE ROW LEVEL SECURITY; ALTER TABLE orders OWNER TO postgres; TRUNCATE orders")
    run(
        "INSERT INTO orders SELECT i, 1 + i % 3, i % 7, i, CASE i % 3 WHEN 0 THEN 'st_author' WHEN 1 THEN 'lender' END"
        " FROM generate_series(1, 30) AS i"
    )
    run(SETUP.encode())


def created(author: Connection, query: str, mode: str) -> None:
    """In the mode, or in AUTO where that refuses the query as its sources are protected now."""
    try:
        pg_trickle.create_stream_table(author, "st", query, refresh_mode=mode, schedule=None)
    except FeatureNotSupported:
        pg_trickle.create_stream_table(author, "st", query, refresh_mode="AUTO", schedule=None)


def is_told(conn: Connection, query: str) -> bool:
    """Whether the query runs for its owner."""
    try:
        conn.execute(query.encode())
    except InsufficientPrivilege:
        return False
    return True


def refreshed(author: Connection, query: str) -> bool:
    """Bring it up to date and compare; False where the owner may not read all of it, which the refresh has to say."""
    try:
        pg_trickle.refresh_stream_table(author, "st")
    except InsufficientPrivilege:
        assert not is_told(author, query)
        return False
    except FeatureNotSupported:
        # What was maintained under the former policies isn't under these.
        pg_trickle.alter_stream_table(author, "st", refresh_mode="AUTO")
        return refreshed(author, query)
    assert is_told(author, query)
    assert_fresh(author, "st")
    return True


@settings(max_examples=FEW)
@given(
    first=st.lists(definitions, max_size=4),
    happened=rounds,
    query=st.builds(str.format, st.sampled_from(QUERIES), st.sampled_from(SOURCES), st.sampled_from(SOURCES)),
    mode=st.sampled_from(["DIFFERENTIAL", "DIFFERENTIAL", "AUTO", "FULL", "IMMEDIATE", "IMMEDIATE"]),
)
def test_a13_any_roles_policies_and_owners(
    town: Place, author: Connection, first: list[str], happened: Any, query: str, mode: str
) -> None:
    remade(town)
    policy_numbers = count(1)
    for statement in first:
        town.superuser.execute(statement.replace(NEW, f"p{next(policy_numbers)}").encode())
    if not is_told(author, query):
        return
    created(author, query, mode)
    for changes, statements in happened:
        for statement in changes:
            town.superuser.execute(statement.replace(NEW, f"p{next(policy_numbers)}").encode())
        # Until IMMEDIATE maintenance has followed what was changed, it may stop writers.
        is_sound = not changes
        for statement in statements:
            try:
                town.superuser.execute(statement.encode())
            except (ObjectNotInPrerequisiteState, InsufficientPrivilege):
                assert not is_sound
                refreshed(author, query)
            else:
                if is_sound and maintained(town):
                    assert_fresh(author, "st")
        refreshed(author, query)


def maintained(town: Place) -> bool:
    """Whether writers' statements keep it equal to its query."""
    return bool(
        town.value(
            """SELECT count(*) FROM pgtrickle.pgt_stream_tables
                WHERE refresh_mode = 'IMMEDIATE' AND status = 'ACTIVE' AND NOT needs_reinit"""
        )
    )
