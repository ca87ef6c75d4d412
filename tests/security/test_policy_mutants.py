"""Would the tests of policies notice if the engine took them for something else?  Each mistake must be found (A13)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import MEMBER, MEMBERSHIPS, Connection, Place
from tests.security.test_policies import captured, create, protect, refreshed

POLICIES = (
    "FOR SELECT TO st_author USING (tenant_id = 1)",
    "FOR ALL USING (note = 'all')",
    "FOR UPDATE USING (true)",
    "FOR SELECT TO app_reader USING (true)",
    "FOR SELECT " + MEMBER,
    "AS RESTRICTIVE FOR SELECT USING (id <> 105)",
    "AS RESTRICTIVE FOR ALL TO st_author USING (id <> 106)",
    "AS RESTRICTIVE USING (NOT EXISTS (SELECT FROM tenants WHERE id = orders.id))",
)
QUERY = (
    """SELECT o.id, o.tenant_id, o.amount, c.name FROM orders AS o LEFT JOIN customers AS c ON c.id = o.customer_id"""
)
STATEMENTS = (
    "INSERT INTO orders SELECT i, 1 + i % 4, 1, i, NULL FROM generate_series(101, 112) AS i",
    "UPDATE orders SET note = 'all' WHERE id IN (103, 105, 106)",
    "UPDATE orders SET tenant_id = 1 + (tenant_id + 1) % 4, amount = 0",
    "DELETE FROM orders WHERE id % 2 = 0",
)


def seen(author: Connection) -> Counter[Any]:
    return Counter(author.execute("SELECT id, tenant_id FROM orders").fetchall())


def check_rows(place: Place, author: Connection) -> None:
    """What is captured is the difference of what the owner sees, and a refresh applies it."""
    for statement in STATEMENTS:
        before = seen(author)
        place.superuser.execute(statement.encode())
        changes = Counter[Any]()
        for weight, *row in captured(place):
            changes[tuple(row)] += weight
        after = seen(author)
        after.subtract(before)
        assert {row: n for row, n in changes.items() if n} == {row: n for row, n in after.items() if n}, statement
        refreshed(place, author)
        place.superuser.execute(f"DELETE FROM {place.buffer('orders', 'st_author')}".encode())


def check_memberships(place: Place, author: Connection) -> None:
    """What policies read is changed: before, while and after the source is written."""
    old, young = place.as_("postgres"), place.as_("postgres")
    young.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT")
    old.execute("BEGIN; INSERT INTO orders VALUES (200, 4, 1, 1, '')")
    place.superuser.execute("INSERT INTO memberships VALUES (4, 'st_author')")
    refreshed(place, author, "FULL")
    young.execute("INSERT INTO orders VALUES (201, 4, 1, 1, '')")
    for writer in (old, young):
        writer.execute("COMMIT")
        refreshed(place, author, "FULL")
    place.superuser.execute("INSERT INTO orders VALUES (202, 4, 1, 1, '')")
    refreshed(place, author)


def examine(place: Place) -> None:
    """All of it; fails if anything is wrong."""
    author = create(place, QUERY)
    check_rows(place, author)
    check_memberships(place, author)
    place.superuser.execute(
        "DROP POLICY policy_0 ON orders; DROP POLICY policy_1 ON orders; DROP POLICY policy_4 ON orders"
    )
    pg_trickle.refresh_stream_table(author, "st")
    assert place.value("SELECT count(*) FROM st") == 0
    place.superuser.execute("INSERT INTO orders VALUES (300, 1, 1, 1, 'all')")
    assert_fresh(author, "st")
    refreshed(place, author)


@pytest.fixture
def protected(place: Place, author: Connection) -> Place:
    place.superuser.execute(MEMBERSHIPS.encode())
    protect(place, *POLICIES)
    return place


# What is done wrong: (function, what it says, what it says then).
MUTANTS = {
    "no filter": ("capture_filter", "IF pgtrickle_changes.row_security_applies(p_owner, p_source)", "IF false"),
    "no old images": ("capture_images", "p_predicate IS NULL", "p_predicate IS NULL OR p_rows ~* 'old'"),
    "no new images": ("capture_images", "p_predicate IS NULL", "p_predicate IS NULL OR p_rows ~* 'new'"),
    "restrictive ignored": ("policy_filter", "FILTER (WHERE NOT p.polpermissive AND", "FILTER (WHERE false AND"),
    "permissive ignored": ("policy_filter", "FILTER (WHERE p.polpermissive AND", "FILTER (WHERE false AND"),
    "all permissive": ("policy_filter", "' OR ' ORDER BY p.oid", "' AND ' ORDER BY p.oid"),
    "any restrictive": ("policy_filter", "' AND ' ORDER BY p.oid", "' OR ' ORDER BY p.oid"),
    "none shows all": ("policy_filter", "|| ')', 'false')", "|| ')', 'true')"),
    "FOR ALL ignored": ("policies_for", "IN ('r', '*')", "= 'r'"),
    "FOR SELECT ignored": ("policies_for", "IN ('r', '*')", "= '*'"),
    "FOR UPDATE taken": ("policies_for", "IN ('r', '*')", "IN ('r', '*', 'w')"),
    "every role": ("policies_for", "r.id = 0 OR", "true OR"),
    "no role but PUBLIC": ("policies_for", "OR pg_has_role(p_owner, r.id, 'USAGE')", ""),
    "no PUBLIC": ("policies_for", "r.id = 0 OR", ""),
    "memberships unread": ("recompute_reason", "d.decides_rows AND p_pending", "false AND p_pending"),
    "memberships uncaptured": ("deciding_tables", "AND d.captured", "AND false"),
    "writers forgotten": ("writers_under_way", "WHERE x.id <>", "WHERE false AND x.id <>"),
    "locks unread": ("writers_under_way", "x.id::xid = ANY (v_holding) OR", ""),
    "older snapshots": ("policies_hold", "read committed,read uncommitted", "read committed,repeatable read"),
}  # fmt: skip


def mutate(place: Place, function: str, says: str, then: str) -> None:
    definition = place.value(
        """SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p
            WHERE p.proname = %s AND p.pronamespace = 'pgtrickle_changes'::regnamespace""",
        function,
    )
    assert says in definition
    place.superuser.execute(definition.replace(says, then).encode())


def test_a13_the_examination_is_passed(protected: Place) -> None:
    examine(protected)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a13_what_is_done_wrong_with_policies_is_found(protected: Place, mutant: str) -> None:
    mutate(protected, *MUTANTS[mutant])
    with pytest.raises(AssertionError):
        examine(protected)
