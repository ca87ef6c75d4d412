"""Who refreshes what reads somebody else's stream table has no say in what that one shows."""

from __future__ import annotations

import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import Connection, Place

TENANT = """
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON orders USING (tenant_id = current_setting('app.tenant_id', true)::int);
"""
WAYS = {
    "a policy": (TENANT, "SELECT id, tenant_id FROM orders"),
    "a policy of what a policy reads": (
        """ALTER TABLE orders ENABLE ROW LEVEL SECURITY; ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
           CREATE POLICY known ON orders USING (tenant_id IN (SELECT id FROM customers));
           CREATE POLICY tenant ON customers USING (id = current_setting('app.tenant_id', true)::int)""",
        "SELECT id, tenant_id FROM orders",
    ),
    "a policy for a view's owner": (
        TENANT
        + """CREATE ROLE view_owner; GRANT SELECT ON orders TO view_owner; CREATE VIEW seen AS SELECT * FROM orders;
             ALTER VIEW seen OWNER TO view_owner; GRANT SELECT ON seen TO st_author""",
        "SELECT id, tenant_id FROM seen",
    ),
    "a function": (
        """CREATE FUNCTION tenant() RETURNS int STABLE LANGUAGE plpgsql AS
               'BEGIN RETURN current_setting(''app.tenant_id'', true)::int; END'""",
        "SELECT id, tenant_id FROM orders WHERE tenant_id = tenant()",
    ),
    "a function within a view of a view": (
        """CREATE FUNCTION tenant() RETURNS int STABLE LANGUAGE plpgsql AS
               'BEGIN RETURN current_setting(''app.tenant_id'', true)::int; END';
           CREATE FUNCTION is_seen(int) RETURNS boolean IMMUTABLE LANGUAGE sql RETURN $1 = tenant();
           CREATE VIEW seen AS SELECT * FROM orders WHERE is_seen(tenant_id); CREATE VIEW shown AS SELECT * FROM seen;
           GRANT SELECT ON shown TO st_author""",
        "SELECT id, tenant_id FROM shown",
    ),
    "a setting within a view": (
        """CREATE VIEW seen AS SELECT * FROM orders WHERE tenant_id = current_setting('app.tenant_id', true)::int;
           GRANT SELECT ON seen TO st_author""",
        "SELECT id, tenant_id FROM seen",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_s12_a_reader_can_not_make_a_stream_table_show_more(place: Place, author: Connection, way: str) -> None:
    """The owner's sessions are for one tenant; he opens what that one sees to a spy, who asks for another's."""
    setup, query = WAYS[way]
    place.database.adopt_role("view_owner")
    place.superuser.execute(f"{setup}; ALTER ROLE st_author SET app.tenant_id = '1'".encode())
    owner = place.as_("st_author")
    pg_trickle.create_stream_table(owner, "lower", query, schedule=None)
    spy = place.author("spy")
    place.superuser.execute("REVOKE ALL ON orders, customers FROM spy; GRANT SELECT ON lower TO spy")
    spy.execute("SET app.tenant_id = '2'")
    pg_trickle.create_stream_table(spy, "upper", "SELECT tenant_id, count(*) AS n FROM lower GROUP BY tenant_id")
    place.superuser.execute("UPDATE orders SET note = 'x'; INSERT INTO orders VALUES (99, 1, 1, 1, '')")
    told: list[str | None] = []
    spy.add_notice_handler(lambda notice: told.append(notice.message_primary))
    pg_trickle.refresh_stream_table(spy, "upper")
    assert 'stream table "lower" is read as it is' in told
    assert place.superuser.execute("SELECT DISTINCT tenant_id FROM lower").fetchall() == [(1,)]
    assert place.superuser.execute("SELECT * FROM upper").fetchall() == [(1, 10)]
    pg_trickle.refresh_stream_table(owner, "lower")
    assert_fresh(owner, "lower")
    pg_trickle.refresh_stream_table(spy, "upper")
    assert_fresh(spy, "upper")
    assert place.superuser.execute("SELECT * FROM upper").fetchall() == [(1, 11)]


CHANGES = {
    "a policy": "ALTER POLICY tenant ON orders USING (tenant_id = current_setting('app.tenant_id', true)::int)",
    "a view": """CREATE OR REPLACE VIEW seen AS
                     SELECT * FROM orders WHERE tenant_id = current_setting('app.tenant_id', true)::int""",
}


@pytest.mark.parametrize("change", CHANGES)
def test_s12_nor_where_the_session_has_come_to_decide_it_since(place: Place, author: Connection, change: str) -> None:
    place.superuser.execute(
        """ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY tenant ON orders USING (tenant_id = 1);
           CREATE VIEW seen WITH (security_invoker = on) AS SELECT * FROM orders; GRANT SELECT ON seen TO st_author"""
    )
    pg_trickle.create_stream_table(author, "lower", "SELECT id, tenant_id FROM seen", schedule=None)
    assert place.value("SELECT effective_refresh_mode FROM pgtrickle.pgt_stream_tables") == "DIFFERENTIAL"
    spy = place.author("spy")
    place.superuser.execute("REVOKE ALL ON orders, customers, seen FROM spy; GRANT SELECT ON lower TO spy")
    pg_trickle.create_stream_table(spy, "upper", "SELECT tenant_id, count(*) AS n FROM lower GROUP BY tenant_id")
    place.superuser.execute("DROP POLICY tenant ON orders" if change == "a view" else "SELECT")
    place.superuser.execute("CREATE POLICY everything ON orders USING (true)" if change == "a view" else "SELECT")
    place.superuser.execute(CHANGES[change].encode())
    spy.execute("SET app.tenant_id = '2'")
    pg_trickle.refresh_stream_table(spy, "upper")
    assert place.superuser.execute("SELECT DISTINCT tenant_id FROM lower").fetchall() == [(1,)]


def test_s12_what_no_session_decides_is_brought_up_to_date_for_any_reader(place: Place, author: Connection) -> None:
    place.superuser.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    place.superuser.execute("CREATE POLICY tenant ON orders USING (tenant_id = 1)")
    pg_trickle.create_stream_table(author, "lower", "SELECT id, tenant_id FROM orders", schedule=None)
    spy = place.author("spy")
    pg_trickle.create_stream_table(spy, "upper", "SELECT count(*) AS n FROM lower", schedule=None)
    place.superuser.execute("INSERT INTO orders VALUES (98, 2, 1, 1, ''), (99, 1, 1, 1, '')")
    pg_trickle.refresh_stream_table(spy, "upper")
    assert place.superuser.execute("SELECT n FROM upper").fetchall() == [(11,)]
