"""Around the maintenance: what is refused, who may what, tampering, repairs, suspension, looking."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import differences
from tests.definition.conftest import AUTHOR

Connection = psycopg.Connection[tuple[Any, ...]]

TOTALS = "SELECT customer_id, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer_id"
REGIONS = "SELECT c.region, o.amount FROM orders AS o JOIN customers AS c ON c.id = o.customer_id"


@pytest.fixture
def author(database: Any, db: Connection) -> Connection:
    """An owner of IMMEDIATE stream tables with the guide's rights; the superuser writes."""
    db.execute(
        """CREATE TABLE customers (id int PRIMARY KEY, region text);
           CREATE TABLE orders (id int PRIMARY KEY, customer_id int, amount numeric);
           INSERT INTO customers SELECT g, 'r' || g % 2 FROM generate_series(1, 4) AS g;
           INSERT INTO orders SELECT g, g % 4 + 1, g FROM generate_series(1, 20) AS g"""
    )
    database.make_role("author")
    db.execute(sql.SQL(AUTHOR).format(role=sql.Identifier("author")))
    conn: Connection = database.connect("author")
    for name, query in (("totals", TOTALS), ("regions", REGIONS)):
        pg_trickle.create_stream_table(conn, name, query, refresh_mode="IMMEDIATE")
    return conn


def check(db: Connection) -> None:
    for name in ("totals", "regions"):
        assert differences(db, name) == []


def one(conn: Connection, query: LiteralString, *parameters: Any) -> Any:
    row = conn.execute(query, parameters or None).fetchone()
    assert row is not None
    return row[0]


def flagged_and_repaired(db: Connection, name: str) -> None:
    """Housekeeping notices; the worker's refresh, in REPEATABLE READ, repairs, if need be in two goes."""
    db.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert one(db, "SELECT needs_reinit FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", name)
    for _ in range(2):
        db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        (result,) = one(
            db,
            """SELECT pgtrickle_changes.worker_refresh(array_agg(pgt_id), 'SCHEDULER')
                 FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s""",
            name,
        )
        db.execute("COMMIT")
        assert result["error"] is None
    assert not one(db, "SELECT needs_reinit FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", name)
    assert (
        one(
            db,
            "SELECT initiated_by FROM pgtrickle.pgt_refresh_history WHERE pgt_name = %s ORDER BY refresh_id DESC",
            name,
        )
        == "IMMEDIATE-fallback"
    )
    assert differences(db, name) == []


REFUSED: dict[str, LiteralString] = {
    "no rule": "SELECT id, random() AS r FROM orders",
    "time": "SELECT id FROM dated WHERE at > now() - interval '1 hour'",
    "a table with children": "SELECT id FROM parent",
    "a partition": "SELECT id FROM parted_1",
    "a materialized view": "SELECT id FROM materialized",
}


@pytest.mark.parametrize("query", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(author: Connection, db: Connection, query: LiteralString) -> None:
    db.execute(
        """CREATE TABLE dated (id int, at timestamptz);
           CREATE TABLE parted (id int) PARTITION BY RANGE (id);
           CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9);
           CREATE TABLE parent (id int);
           CREATE TABLE child () INHERITS (parent);
           CREATE MATERIALIZED VIEW materialized AS SELECT 1 AS id;
           GRANT SELECT ON ALL TABLES IN SCHEMA public TO author"""
    )
    with pytest.raises(psycopg.errors.FeatureNotSupported) as refusal:
        pg_trickle.create_stream_table(author, "st", query, refresh_mode="IMMEDIATE")
    assert refusal.value.diag.message_detail
    assert one(db, "SELECT to_regclass('st')") is None


def test_everything_runs_as_the_owner(author: Connection, db: Connection) -> None:
    """Who writes needs no right on the stream table, nor on what its query reads."""
    db.execute("CREATE ROLE writer LOGIN; GRANT INSERT, DELETE ON orders TO writer; SET ROLE writer")
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    db.execute("RESET ROLE")
    check(db)
    db.execute("DROP OWNED BY writer; DROP ROLE writer")


@pytest.mark.parametrize(
    ("change", "sqlstate"),
    [
        ("REVOKE SELECT ON orders FROM author", "42501"),
        ("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "55000"),
        ("ALTER TABLE regions ENABLE ROW LEVEL SECURITY; ALTER TABLE regions FORCE ROW LEVEL SECURITY", "55000"),
        ("REVOKE ALL ON regions FROM author", "42501"),
        ("REVOKE INSERT ON totals FROM author", "42501"),
        ("ALTER TABLE regions OWNER TO postgres", "42501"),
        ("ALTER SCHEMA public OWNER TO postgres; REVOKE ALL ON SCHEMA public FROM PUBLIC, author", "42501"),
    ],
)
def test_what_the_owner_may_not_see_or_write_stops_the_writer(
    author: Connection, db: Connection, change: LiteralString, sqlstate: str
) -> None:
    """With the stream table's name and a way out, which works."""
    db.execute("INSERT INTO orders VALUES (99, 1, 5)")
    db.execute(change)
    with pytest.raises(psycopg.Error) as failure:
        db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    assert failure.value.sqlstate == sqlstate
    assert '"regions"' in str(failure.value.diag.message_primary) or '"totals"' in str(
        failure.value.diag.message_primary
    )
    assert "suspend_stream_table" in str(failure.value.diag.message_hint)
    for name in ("totals", "regions"):
        pg_trickle.suspend_stream_table(db if "OWNER" in change else author, name)
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")


def test_who_was_given_what_he_must_not_run_ends_its_maintenance(author: Connection, db: Connection) -> None:
    """Whatever else is refused to a superuser: the query is still somebody else's."""
    db.execute("ALTER TABLE regions OWNER TO postgres; ALTER TABLE totals OWNER TO postgres")
    with pytest.raises(psycopg.Error, match="was given to a superuser"):
        pg_trickle.refresh_stream_table(db, "regions")
    with pytest.raises(psycopg.Error, match="must be owner"):
        pg_trickle.suspend_stream_table(author, "regions")
    pg_trickle.suspend_stream_table(db, "regions")
    pg_trickle.suspend_stream_table(db, "totals")
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    with pytest.raises(psycopg.Error, match="was given to a superuser"):
        pg_trickle.resume_stream_table(db, "regions")
    db.execute("ALTER TABLE regions OWNER TO author")
    pg_trickle.resume_stream_table(author, "regions")
    assert differences(db, "regions") == []
    pg_trickle.drop_stream_table(db, "regions")
    db.execute("INSERT INTO orders VALUES (101, 1, 5)")
    pg_trickle.drop_stream_table(db, "totals")
    db.execute("INSERT INTO orders VALUES (102, 1, 5)")
    assert one(db, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal") == 0


def test_suspended_and_resumed(author: Connection, db: Connection) -> None:
    pg_trickle.suspend_stream_table(author, "totals")
    assert one(db, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal") == 8
    db.execute("DELETE FROM orders WHERE id < 5")
    assert differences(db, "regions") == []
    assert differences(db, "totals") != []
    pg_trickle.resume_stream_table(author, "totals")
    db.execute("DELETE FROM orders WHERE id < 9")
    check(db)


BROKEN: dict[str, LiteralString] = {
    "a disabled trigger": "ALTER TABLE orders DISABLE TRIGGER ALL",
    "a dropped trigger": "DROP TRIGGER pg_trickle_imm_rows_{id}_ins ON orders",
    "a function that runs as anybody": "ALTER FUNCTION pgtrickle_changes.{ins} SECURITY INVOKER",
    "a function of somebody else's making": """ALTER FUNCTION pgtrickle_changes.{ins} RENAME TO gone;
        CREATE FUNCTION pgtrickle_changes.{ins} RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'""",
    "a dropped function": "DROP FUNCTION pgtrickle_changes.{ins} CASCADE",
}


@pytest.mark.parametrize("breakage", BROKEN.values(), ids=BROKEN)
def test_broken_maintenance_is_noticed_and_repaired(author: Connection, db: Connection, breakage: str) -> None:
    del author
    row = db.execute(
        """SELECT lpad(pgt_id::text, 10, '0'), format('maintain_%s_%s_ins()', pgt_id, 'orders'::regclass::oid)
             FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'totals'"""
    ).fetchone()
    assert row is not None
    db.execute(breakage.format(id=row[0], ins=row[1]).encode())
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    assert differences(db, "totals") != []
    flagged_and_repaired(db, "totals")
    db.execute("INSERT INTO orders VALUES (101, 1, 5)")
    assert differences(db, "totals") == []


def test_an_altered_function_never_runs_as_the_writer(author: Connection, db: Connection) -> None:
    """Its owner may do with it what he likes: he gets nobody else to call it."""
    name = one(
        db,
        """SELECT format('pgtrickle_changes.maintain_%s_%s_ins()', pgt_id, 'orders'::regclass::oid)
             FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'totals'""",
    )
    author.execute("CREATE TABLE loot AS SELECT current_user AS who WHERE false; GRANT INSERT ON loot TO PUBLIC")
    author.execute(f"ALTER FUNCTION {name} SECURITY INVOKER".encode())
    author.execute(f"ALTER FUNCTION {name} RESET ALL".encode())
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    assert differences(db, "totals") != []
    assert one(db, "SELECT count(*) FROM loot") == 0


def test_what_functions_are_compared_with_is_out_of_reach_and_does_nothing(author: Connection, db: Connection) -> None:
    original = one(
        db,
        """SELECT format('pgtrickle_changes.maintain_%s_%s_ins_original()', pgt_id, 'orders'::regclass::oid)
             FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'totals'""",
    )
    author.execute("CREATE TABLE bait AS TABLE orders WITH NO DATA")
    attach = f"""CREATE TRIGGER t AFTER INSERT ON bait REFERENCING NEW TABLE AS __pgt_new
                    FOR EACH STATEMENT EXECUTE FUNCTION {original}"""
    for forbidden in (f"ALTER FUNCTION {original} SECURITY INVOKER", attach):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            author.execute(forbidden.encode())
    db.execute(attach.encode())
    author.execute("INSERT INTO bait SELECT 200, 1, 5")
    check(db)


@pytest.mark.parametrize(
    "sequence", ["closed_{id}", "opened_{id}", "under_way_{id}_number_seq", "taker_{id}", "repaired_{id}"]
)
def test_nobody_else_hides_what_is_under_way(author: Connection, database: Any, db: Connection, sequence: str) -> None:
    del author
    number = one(db, "SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'regions'")
    database.make_role("writer")
    db.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO writer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect("writer").execute(
            f"SELECT setval('pgtrickle_changes.{sequence.format(id=number)}', 1000000)".encode()
        )


def test_spelling_definitions_otherwise_switches_nothing_off(author: Connection, db: Connection) -> None:
    del author
    db.execute("SET quote_all_identifiers = on")
    db.execute("CREATE TEMPORARY TABLE trigger (x int)")
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    check(db)


def test_a_changed_function_is_noticed(author: Connection, db: Connection) -> None:
    db.execute("CREATE FUNCTION twice(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN n * 2")
    pg_trickle.create_stream_table(
        author, "doubled", "SELECT id, twice(amount) AS d FROM orders", refresh_mode="IMMEDIATE"
    )
    db.execute("CREATE OR REPLACE FUNCTION twice(n numeric) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN n + n + 1")
    flagged_and_repaired(db, "doubled")
    assert differences(db, "doubled") == []


def test_a_subscription_to_a_source_is_noticed(author: Connection, db: Connection) -> None:
    """Its worker fires row triggers only: what it writes isn't maintained, and a refresh says so."""
    db.execute("INSERT INTO pg_subscription_rel VALUES (1, 'orders'::regclass, 'r', '0/1')")
    db.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert one(db, "SELECT bool_and(needs_reinit) FROM pgtrickle.pgt_stream_tables")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="can't be followed") as failure:
        pg_trickle.refresh_stream_table(author, "totals")
    assert "logical replication" in str(failure.value.diag.message_detail)
    pg_trickle.alter_stream_table(author, "totals", refresh_mode="AUTO")
    assert differences(db, "totals") == []
    db.execute("DELETE FROM pg_subscription_rel")
    pg_trickle.refresh_stream_table(author, "regions")
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    assert differences(db, "regions") == []


def test_a_renamed_stream_table_stops_writers_until_it_is_followed(author: Connection, db: Connection) -> None:
    for change, name in (
        ("ALTER TABLE totals RENAME TO sums", "public.sums"),
        ("CREATE SCHEMA elsewhere AUTHORIZATION author; ALTER TABLE sums SET SCHEMA elsewhere", "elsewhere.sums"),
    ):
        db.execute(change.encode())
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has another name") as failure:
            db.execute("INSERT INTO orders VALUES (100, 1, 5)")
        assert f"refresh_stream_table('{name}')" in str(failure.value.diag.message_hint)
        pg_trickle.refresh_stream_table(author, name)
        db.execute("UPDATE orders SET amount = amount + 1")
        assert differences(db, name) == []


def test_a_stream_table_dropped_by_hand_stops_nobody(author: Connection, db: Connection) -> None:
    del author
    db.execute("DROP TABLE totals, regions")
    db.execute("INSERT INTO orders VALUES (100, 1, 5); DELETE FROM customers")
    db.execute("BEGIN; UPDATE orders SET amount = 3; TRUNCATE orders; DELETE FROM customers; COMMIT")
    db.execute("SELECT pgtrickle_changes.worker_housekeeping()")
    assert one(db, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pg\\_trickle%'") == 0


def test_a_written_stream_table_is_recomputed(author: Connection, db: Connection) -> None:
    found: list[str | None] = []
    db.add_notice_handler(lambda diagnostic: found.append(diagnostic.message_primary))
    author.execute("DELETE FROM regions")
    db.execute("DELETE FROM orders WHERE id = 1")
    assert differences(db, "regions") == []
    assert found == ['stream table "regions" is recomputed']


def test_a_refresh_repairs(author: Connection, db: Connection) -> None:
    author.execute("UPDATE totals SET n = n + 1")
    author.execute("INSERT INTO regions VALUES ('x', 1)")
    assert one(author, "SELECT extra FROM pgtrickle.verify_stream_table('regions')") == 1
    for name in ("totals", "regions"):
        pg_trickle.refresh_stream_table(author, name)
    check(db)


def test_nothing_is_left_of_a_dropped_one(author: Connection, db: Connection) -> None:
    for name in ("totals", "regions"):
        pg_trickle.drop_stream_table(author, name)
    assert one(db, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pg\\_trickle%'") == 0
    left = (
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtrickle_changes'::regnamespace AND relname ~ '_[0-9]+$'"
    )
    assert one(db, left) == 0
    assert one(db, "SELECT count(*) FROM pg_proc WHERE proname ~ '^maintain_[0-9]'") == 0


@pytest.mark.versions
def test_a_deferrable_trigger_of_strangers_does_not_run_at_all(author: Connection, db: Connection) -> None:
    """Before PostgreSQL 18 it would run as whoever commits."""
    author.execute(
        """CREATE TABLE loot (who name);
           GRANT INSERT ON loot TO PUBLIC;
           CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$
               BEGIN INSERT INTO public.loot SELECT current_user; RETURN NULL; END $$;
           CREATE CONSTRAINT TRIGGER trap AFTER INSERT OR UPDATE ON totals
              DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap()"""
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    assert db.execute("SELECT who FROM loot").fetchall() == []


def test_what_monitoring_says(author: Connection, db: Connection) -> None:
    status = "SELECT status, refresh_mode, staleness FROM pgtrickle.pgt_status() WHERE name = 'public.totals'"
    row = author.execute(status).fetchone()
    assert row is not None
    assert row[:2] == ("ACTIVE", "IMMEDIATE")
    assert row[2].total_seconds() == 0
    assert set(author.execute("SELECT cdc_mode FROM pgtrickle.list_sources('regions')")) == {("trigger",)}
    health = "SELECT severity FROM pgtrickle.health_check() WHERE check_name = 'capture_integrity'"
    assert one(db, health) == "OK"
    db.execute("ALTER TABLE orders DISABLE TRIGGER ALL")
    assert one(db, health) == "ERROR"


def test_the_worker_repairs_and_otherwise_leaves_it_alone(author: Connection, db: Connection, worker: Any) -> None:
    worker.wait_until_idle()
    count = "SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE pgt_name = 'totals'"
    db.execute("INSERT INTO orders VALUES (100, 1, 5)")
    worker.wait_until_idle()
    assert one(db, count) == 1
    author.execute("DELETE FROM totals")
    pg_trickle.reinitialize_stream_table(author, "totals")
    worker.wait_for(lambda: differences(db, "totals") == [])
