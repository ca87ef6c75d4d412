"""What somebody makes that depends on another owner's machinery is in nobody's way (A15).

PostgreSQL asks for no right on a table of whoever defines a view of it, or a column of its row type: only for USAGE on
its schema, which every owner of stream tables has on the machinery's.  And what something depends on isn't dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import TOTALS, Connection, Place

# Statements that make something depend on whatever was generated: on tables, on their row types, on functions.
THINGS = """
SELECT format('CREATE VIEW own.view_%s AS SELECT FROM %s', c.oid, c.oid::regclass) FROM pg_class AS c
 WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname ~ '_[0-9]'
UNION ALL
SELECT format('CREATE TABLE own.typed_%s (x %s)', c.oid, c.oid::regclass) FROM pg_class AS c
 WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname ~ '_[0-9]'
UNION ALL
SELECT format('CREATE VIEW own.calling_%s AS SELECT %s(%s)', p.oid, p.oid::regproc,
              (SELECT string_agg('NULL::' || format_type(t.oid, NULL), ', ') FROM unnest(p.proargtypes) AS t(oid)))
  FROM pg_proc AS p
 WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ '_[0-9]'
   AND p.prorettype <> 'trigger'::regtype
"""
QUERY = TOTALS + " HAVING count(*) > 1"


def by_superuser(statement: str) -> Callable[[Place, Connection], None]:
    def run(place: Place, _: Connection) -> None:
        place.superuser.execute(statement.encode())

    return run


HAPPENINGS: dict[str, Callable[[Place, Connection], None]] = {
    "nothing": by_superuser("SELECT"),
    "another query": lambda _, author: pg_trickle.alter_stream_table(
        author, "st", query="SELECT note, count(*) AS n FROM orders GROUP BY note"
    ),
    "to FULL": lambda _, author: pg_trickle.alter_stream_table(author, "st", refresh_mode="FULL"),
    "to IMMEDIATE": lambda _, author: pg_trickle.alter_stream_table(author, "st", refresh_mode="IMMEDIATE"),
    "to DIFFERENTIAL": lambda _, author: pg_trickle.alter_stream_table(author, "st", refresh_mode="DIFFERENTIAL"),
    "another owner": by_superuser("ALTER TABLE st OWNER TO heir"),
    "a policy": by_superuser(
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON orders USING (tenant_id = 1)"
    ),
    "a stale plan": by_superuser("ALTER TABLE orders RENAME customer_id TO customer"),
}


@pytest.mark.parametrize("happening", HAPPENINGS)
@pytest.mark.parametrize("mode", ["DIFFERENTIAL", "IMMEDIATE"])
def test_a15_what_a_stranger_lets_depend_on_it_stops_nothing(
    place: Place, author: Connection, mode: str, happening: str
) -> None:
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('keep_plans', 'always')")
    pg_trickle.create_stream_table(author, "st", QUERY, schedule=None, refresh_mode=mode)
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    pg_trickle.refresh_stream_table(author, "st")
    stranger = place.author("stranger")
    place.author("heir")
    place.superuser.execute("CREATE SCHEMA own AUTHORIZATION stranger; REVOKE ALL ON orders, st FROM stranger")
    pg_trickle.create_stream_table(stranger, "theirs", "SELECT id FROM customers")
    things = [statement for (statement,) in place.superuser.execute(THINGS.encode()).fetchall()]
    assert len(things) > 10
    for statement in things:
        stranger.execute(statement.encode())
    HAPPENINGS[happening](place, author)
    owner = place.as_(place.value("SELECT tableowner::text FROM pg_tables WHERE tablename = 'st'"))
    pg_trickle.refresh_stream_table(owner, "st")
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    pg_trickle.refresh_stream_table(owner, "st")
    assert_fresh(owner, "st")
    pg_trickle.drop_stream_table(owner, "st")
    place.superuser.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    left = """SELECT array_agg(p.proname::text) FROM pg_proc AS p
               WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proowner = 'st_author'::regrole"""
    assert place.value(left) is None
