"""ALTER TABLE … OWNER TO on a stream table moves everything with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place, denied

Fails = Callable[..., psycopg.Error]

BELONGINGS = """
SELECT c.relname::text, c.relowner::regrole::text FROM pg_class AS c
 WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind IN ('r', 'v')
   AND c.relname ~ '^(changes|state|delta|query|held)_[0-9]'
UNION ALL
SELECT p.proname, p.proowner::regrole::text FROM pg_proc AS p
 WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ '^(as|capture|maintain|program)_[0-9]'
   -- What an owner's functions are compared with is the engine's; so is what notes statements, tells turns and flags,
   -- and what says that his rights can't have gone unnoticed.
   AND p.proname !~ '^maintain_[0-9]+_(begin|gate|first|below|applied|firm)$|_original$'
"""
MADE = """
SELECT p.proname::text FROM pg_proc AS p
 WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ '^(as|capture|maintain|pending|program)_[0-9]'
"""


def owners(place: Place) -> set[str]:
    return {owner for _, owner in place.superuser.execute(BELONGINGS.encode())}


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL", "IMMEDIATE"])
def test_s25_with_the_table_goes_all_that_belongs_to_it(place: Place, author: Connection, mode: str) -> None:
    heir = place.author("heir")
    pg_trickle.create_stream_table(author, "st", TOTALS + " HAVING count(*) > 1", refresh_mode=mode)
    assert owners(place) == {"st_author"}
    place.superuser.execute("ALTER TABLE st OWNER TO heir")
    if mode != "IMMEDIATE":
        place.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id < 5")
    pg_trickle.refresh_stream_table(heir, "st")
    assert_fresh(place.superuser, "st")
    assert owners(place) == {"heir"}
    place.superuser.execute("UPDATE orders SET amount = amount + 1 WHERE id < 9")
    pg_trickle.refresh_stream_table(heir, "st")
    assert_fresh(place.superuser, "st")
    for action in (pg_trickle.refresh_stream_table, pg_trickle.drop_stream_table):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            action(author, "st")
    pg_trickle.drop_stream_table(heir, "st")
    assert owners(place) == set()
    assert place.superuser.execute(MADE.encode()).fetchall() == []
    place.superuser.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    for former in ("st_author", "heir"):
        assert not place.value("SELECT has_schema_privilege(%s, 'pgtrickle_changes', 'USAGE')", former)
    pg_trickle.create_stream_table(heir, "st", TOTALS, refresh_mode=mode)
    assert_fresh(heir, "st")


@pytest.mark.versions
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "FULL", "IMMEDIATE"])
@pytest.mark.parametrize("heir", ["postgres", "heir"])
def test_s25_who_was_given_it_drops_it_with_all_that_belonged_to_it(
    place: Place, author: Connection, mode: str, heir: str
) -> None:
    """A superuser, too, as whom its query must not run; and who was given only what reads it."""
    place.author("heir")
    for name in ("st", "other"):
        pg_trickle.create_stream_table(author, name, TOTALS + " HAVING count(*) > 1", refresh_mode=mode)
    pg_trickle.create_stream_table(author, "above", "SELECT count(*) AS n FROM st", schedule=None)
    place.superuser.execute(sql.SQL("ALTER TABLE above OWNER TO {}").format(sql.Identifier(heir)))
    if heir == "heir":
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
            pg_trickle.drop_stream_table(author, "st", cascade=True)
    pg_trickle.drop_stream_table(place.superuser, "st", cascade=True)
    assert place.value("SELECT array_agg(pgt_name ORDER BY 1) FROM pgtrickle.pgt_stream_tables") == ["other"]
    place.superuser.execute(sql.SQL("ALTER TABLE other OWNER TO {}").format(sql.Identifier(heir)))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        pg_trickle.drop_stream_table(author, "other")
    dropping = place.superuser if heir == "postgres" else place.as_("heir")
    dropping.execute("SELECT pgtrickle.bulk_drop_stream_tables(ARRAY['other'])")
    assert place.value("SELECT count(*) FROM pgtrickle.pgt_stream_tables") == 0
    assert owners(place) == set()
    place.superuser.execute("UPDATE orders SET amount = 1")


def test_s25_a_superuser_drops_nothing_that_something_else_depends_on(place: Place, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    place.superuser.execute("ALTER TABLE st OWNER TO postgres; CREATE VIEW seen AS SELECT * FROM st")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        pg_trickle.drop_stream_table(place.superuser, "st")
    place.superuser.execute("DROP VIEW seen")
    pg_trickle.drop_stream_table(place.superuser, "st")


def test_s25_usage_that_somebody_else_granted_is_left_alone(place: Place, author: Connection) -> None:
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO st_author")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    pg_trickle.drop_stream_table(author, "st")
    place.superuser.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert place.value("SELECT has_schema_privilege('st_author', 'pgtrickle_changes', 'USAGE')")


def test_s25_the_new_owners_rights_decide(place: Place, author: Connection, fails: Fails, worker: Any) -> None:
    heir = place.author("heir")
    place.superuser.execute(
        """ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
           CREATE POLICY one ON orders TO st_author USING (tenant_id = 1);
           CREATE POLICY two ON orders TO heir USING (tenant_id = 2)"""
    )
    pg_trickle.create_stream_table(author, "st", TOTALS)
    place.superuser.execute("ALTER TABLE st OWNER TO heir; UPDATE orders SET amount = amount + 1")
    worker.wait_for(lambda: place.value("SELECT array_agg(DISTINCT tenant_id) FROM st") == [2])
    assert_fresh(heir, "st")
    place.superuser.execute("ALTER TABLE st OWNER TO st_author; REVOKE SELECT ON orders FROM st_author")
    fails("42501", pg_trickle.refresh_stream_table, author, "st")


def test_s25_what_the_former_owner_shares_stays_his(place: Place, author: Connection) -> None:
    heir = place.author("heir")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    pg_trickle.create_stream_table(author, "kept", "SELECT id, note FROM orders")
    place.superuser.execute("ALTER TABLE st OWNER TO heir; UPDATE orders SET note = 'x', amount = 1")
    pg_trickle.refresh_stream_table(heir, "st")
    pg_trickle.refresh_stream_table(author, "kept")
    assert_fresh(place.superuser, "st")
    assert_fresh(place.superuser, "kept")
    assert owners(place) == {"heir", "st_author"}
    denied(heir, f"SELECT FROM {place.buffer('orders', 'st_author')}")
