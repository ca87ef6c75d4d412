"""Publications: of one stream table, and of everything there is."""

from __future__ import annotations

import psycopg
import pytest

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

QUERIES = {
    "groups": ("SELECT k, sum(a) AS s FROM public.source GROUP BY k", "DIFFERENTIAL"),
    "stages": ("SELECT k, count(DISTINCT a) AS n, min(a) AS m FROM public.source GROUP BY k", "DIFFERENTIAL"),
    "rows": ("SELECT a FROM public.source", "DIFFERENTIAL"),
    "ranked": ("SELECT DISTINCT ON (k) k, a FROM public.source ORDER BY k, a", "FULL"),
    "instant": ("SELECT k, sum(a) AS s FROM public.source GROUP BY k HAVING sum(a) > 3", "IMMEDIATE"),
}
WRITES = (
    "INSERT INTO public.source VALUES (1, 5), (2, NULL), (2, 9)",
    "UPDATE public.source SET a = a + 1, k = 1 WHERE k < 2",
    "DELETE FROM public.source WHERE a > 7",
    "TRUNCATE public.source",
)


@pytest.mark.versions
def test_publishing_all_tables_stops_neither_writers_nor_refreshes(database, db):
    """Without a replica identity a published table's rows can be neither updated nor deleted."""
    # Keyed, as a published table of a user's has to be.
    db.execute("CREATE TABLE public.source (k int, a int, id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
    db.execute("INSERT INTO public.source SELECT i % 4, i FROM generate_series(1, 12) AS i")
    for name, (query, mode) in QUERIES.items():
        pg_trickle.create_stream_table(db, f"public.{name}", query, schedule=None, refresh_mode=mode)
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    for write in WRITES:
        db.execute(write)
        assert_fresh(db, "public.instant")
        for name in QUERIES:
            db.execute("SELECT pgtrickle.refresh_stream_table(%s)", (f"public.{name}",))
            assert_fresh(db, f"public.{name}")
        db.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    for name in QUERIES:
        db.execute("SELECT pgtrickle.drop_stream_table(%s)", (f"public.{name}",))


class TestPublicationOfOne:
    """It is its owner's, and goes with the stream table."""

    @pytest.fixture
    def owner(self, database, db):
        database.make_role("keeper")
        db.execute("CREATE TABLE public.source (k int, a int); GRANT ALL ON SCHEMA public TO keeper")
        db.execute("GRANT SELECT ON public.source TO keeper; GRANT USAGE ON SCHEMA pgtrickle TO keeper")
        db.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO keeper")
        owner = database.connect("keeper")
        pg_trickle.create_stream_table(owner, 'public."Its Rows"', QUERIES["groups"][0], schedule=None)
        return owner

    PUBLISH = """SELECT pgtrickle.stream_table_to_publication('"Its Rows"')"""
    PUBLISHED = "SELECT tablename FROM pg_publication_tables WHERE pubname = %s"

    def test_made_refreshed_and_dropped(self, database, db, owner):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="publish") as raised:
            owner.execute(self.PUBLISH)
        assert raised.value.diag.message_hint == f"GRANT CREATE ON DATABASE {database.name} TO keeper;"
        db.execute(f"GRANT CREATE ON DATABASE {database.name} TO keeper")
        (name,) = owner.execute(self.PUBLISH).fetchone()
        assert owner.execute(self.PUBLISHED, (name,)).fetchall() == [("Its Rows",)]
        with pytest.raises(psycopg.errors.DuplicateObject, match="published already"):
            owner.execute(self.PUBLISH)
        for write in WRITES:
            db.execute(write)
            owner.execute("""SELECT pgtrickle.refresh_stream_table('"Its Rows"')""")
            assert_fresh(owner, 'public."Its Rows"')
        owner.execute("""SELECT pgtrickle.drop_stream_table_publication('"Its Rows"')""")
        assert owner.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
        with pytest.raises(psycopg.errors.UndefinedObject, match="not published"):
            owner.execute("""SELECT pgtrickle.drop_stream_table_publication('"Its Rows"')""")
        db.execute(f"REVOKE CREATE ON DATABASE {database.name} FROM keeper")

    def test_goes_with_the_stream_table(self, database, db, owner):
        db.execute(f"GRANT CREATE ON DATABASE {database.name} TO keeper")
        owner.execute(self.PUBLISH)
        # What only looks like one of ours stays.
        db.execute("CREATE PUBLICATION other; COMMENT ON PUBLICATION other IS 'pg_trickle publishes stream table 1'")
        owner.execute("""SELECT pgtrickle.drop_stream_table('"Its Rows"')""")
        assert db.execute("SELECT pubname FROM pg_publication").fetchall() == [("other",)]
        db.execute(f"REVOKE CREATE ON DATABASE {database.name} FROM keeper")

    def test_only_its_owner_publishes(self, database, db, owner):
        database.make_role("stranger")
        db.execute("GRANT USAGE ON SCHEMA pgtrickle TO stranger")
        db.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO stranger")
        stranger = database.connect("stranger")
        for call in (
            self.PUBLISH,
            self.PUBLISH.replace("stream_table_to_publication", "drop_stream_table_publication"),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
                stranger.execute(call)
