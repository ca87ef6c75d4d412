"""Plans that a session keeps from one refresh to the next (decision 18) show no more than a new one would."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh
from tests.security.conftest import Connection, Place

Fails = Callable[..., psycopg.Error]

QUERY = """SELECT o.id, o.tenant_id, c.name, label(o.tenant_id) AS label
             FROM orders AS o JOIN customers AS c ON c.id = o.customer_id"""
FUNCTIONS = """
CREATE FUNCTION label(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'first ' || $1 $$;
GRANT EXECUTE ON FUNCTION label TO PUBLIC;
CREATE SCHEMA other; GRANT USAGE ON SCHEMA other TO PUBLIC;
"""
# What happens between two refreshes in the same session; and whether the next one has to fail.
HAPPENINGS = [
    ("SELECT", False),
    ("ALTER TABLE customers ENABLE ROW LEVEL SECURITY", False),
    ("CREATE POLICY few ON customers TO st_author USING (id < 4)", False),
    ("ALTER POLICY few ON customers USING (id > 2 AND current_user = 'st_author')", False),
    ("ALTER ROLE st_author BYPASSRLS", False),
    ("ALTER ROLE st_author NOBYPASSRLS", False),
    ("REVOKE SELECT ON customers FROM st_author", True),
    ("GRANT SELECT (id, name) ON customers TO st_author", False),
    ("REVOKE SELECT (name) ON customers FROM st_author", True),
    ("GRANT SELECT ON customers TO st_author", False),
    ("REVOKE EXECUTE ON FUNCTION label FROM PUBLIC", True),
    ("GRANT EXECUTE ON FUNCTION label TO PUBLIC", False),
    (
        "CREATE OR REPLACE FUNCTION label(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'second ' || $1 $$",
        False,
    ),
    # Namesakes, in front of everything on whatever path.
    ("CREATE TABLE other.orders AS TABLE orders; CREATE TABLE other.customers AS TABLE customers", False),
    ("CREATE FUNCTION other.label(int) RETURNS text LANGUAGE sql AS $$ SELECT 'forged' $$", False),
    ("CREATE TEMPORARY TABLE orders (LIKE public.orders); SET search_path = other, public", False),
    ("SET search_path = pg_temp, other, public; SET row_security = off", False),
    ("SET ROLE st_author; SET search_path = other", False),
    ("RESET ROLE; SET session_replication_role = replica; RESET session_replication_role", False),
]


@pytest.mark.versions
def test_s12_a_session_that_has_refreshed_before_sees_what_a_new_one_does(
    place: Place, author: Connection, fails: Fails
) -> None:
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('keep_plans', 'always')")
    place.superuser.execute(FUNCTIONS.encode())
    pg_trickle.create_stream_table(author, "public.st", QUERY, refresh_mode="DIFFERENTIAL", schedule=None)
    session = place.as_("postgres")
    for number, (happening, must_fail) in enumerate(HAPPENINGS):
        (session if "SET " in happening else place.superuser).execute(happening.encode())
        for change in ("SELECT", "UPDATE public.orders SET tenant_id = 1 + (id + {}) % 4 WHERE id % 3 = 0"):
            place.superuser.execute(change.format(number).encode())
            if must_fail:
                fails("42501", pg_trickle.refresh_stream_table, session, "public.st")
            else:
                pg_trickle.refresh_stream_table(session, "public.st")
                assert_fresh(author, "public.st")
    kept = (
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgtrickle_changes'::regnamespace AND proname ~ '^program_'"
    )
    assert place.value(kept) > 0
    assert place.value("SELECT count(*) FROM public.st WHERE label !~ 'second'") == 0
