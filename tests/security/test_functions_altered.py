"""What its owner alters of a function that a writer's statement is about to call runs none of his code there.

ALTER FUNCTION takes no lock that a statement could hold against it.  It can't change what a function does, but under
which settings, and as whom: under a search path of his own the names in its body would be his.
"""

from __future__ import annotations

import pytest

import pg_trickle
from tests.security.conftest import Connection, Place
from tests.security.test_functions_held import COUNTS, FILL, SOURCES, WRITES, make_author, owned, writing

# Under its owner's settings a function runs as him, but is free to become again who has called it.
ALTER = """
ALTER FUNCTION pgtrickle_changes.{name}()
    SECURITY INVOKER SET role = st_author SET search_path = evil, pg_catalog, pg_temp
"""
OPERATOR = """
CREATE FUNCTION evil.greater(int, int) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE 'RESET ROLE'; INSERT INTO evil.log VALUES (current_user); RETURN true; END $$;
CREATE OPERATOR evil.> (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.greater)
"""
TYPE = """
CREATE FUNCTION evil.look(pg_catalog."char") RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO evil.log VALUES (current_user); RETURN true; END $$;
CREATE DOMAIN evil."char" AS pg_catalog."char" CHECK (evil.look(VALUE))
"""
SEVERAL = """
WITH one AS (INSERT INTO src VALUES (900, 900) RETURNING 1), two AS (UPDATE src SET v = v + 1 RETURNING 1)
DELETE FROM src WHERE id = 3
"""


@pytest.fixture
def author(place: Place) -> Connection:
    return make_author(place)


@pytest.mark.versions
@pytest.mark.parametrize("source", SOURCES)
def test_an_operator_of_its_owners_is_not_taken_for_one_in_a_policy(
    place: Place, author: Connection, source: str
) -> None:
    """Altered while the statement runs, after the guard was asked."""
    place.superuser.execute((SOURCES[source] + ";" + FILL).encode())
    place.superuser.execute(
        """ALTER TABLE src ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON src TO st_author USING (v > 3);
           CREATE TABLE audit (n int);
           CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_advisory_xact_lock(1); INSERT INTO audit VALUES (1); RETURN NULL; END';
           CREATE OR REPLACE TRIGGER aaa AFTER INSERT ON src FOR EACH STATEMENT EXECUTE FUNCTION slow()"""
    )
    pg_trickle.create_stream_table(author, "st", COUNTS)
    author.execute(OPERATOR.encode())
    with writing(place, WRITES["INSERT"] if source == "partitioned" else "INSERT INTO src VALUES (100, 5)") as failed:
        for name in owned(place.superuser):
            author.execute(ALTER.format(name=name).encode())
    assert failed == []
    assert place.value("SELECT count(*) FROM evil.log") == 0
    pg_trickle.refresh_stream_table(author, "st")
    shown = [row for row in place.superuser.execute(COUNTS.encode()).fetchall() if row[0] > 3]
    assert sorted(place.superuser.execute("SELECT v, n FROM st").fetchall()) == sorted(shown)


def test_a_type_of_its_owners_is_not_taken_for_one_in_what_maintenance_calls(place: Place, author: Connection) -> None:
    """No guard is asked of what is called by a function that has been guarded."""
    place.superuser.execute((SOURCES["plain"] + ";" + FILL).encode())
    pg_trickle.create_stream_table(
        author,
        "st",
        "SELECT a.v, count(*) AS n FROM src AS a JOIN src AS b ON a.id = b.v GROUP BY a.v",
        refresh_mode="IMMEDIATE",
    )
    author.execute(TYPE.encode())
    altered = author.execute(
        """SELECT p.oid::regprocedure::text FROM pg_proc AS p
            WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proowner = 'st_author'::regrole
              AND p.proname ~ '^maintain_[0-9]+_.*(back|sound|texts)$'"""
    ).fetchall()
    assert len(altered) == 5
    for (function,) in altered:
        author.execute(f"ALTER FUNCTION {function} SET search_path = evil, pg_catalog".encode())
    place.superuser.execute(SEVERAL)
    assert place.value("SELECT count(*) FROM evil.log") == 0
    place.fresh("st")
