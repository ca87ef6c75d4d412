"""What the engine refuses in some situation, read in full; and that what the hint says to do helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest

import pg_trickle
from tests.operating.test_engine_refusals import Told, said

Connection = psycopg.Connection[tuple[Any, ...]]
Act = LiteralString | Callable[[Connection], object]

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, v int, name text);
INSERT INTO t SELECT n, n % 3, 'n' || n FROM generate_series(1, 9) AS n;
CREATE TABLE w (id int PRIMARY KEY);
"""
COMPILED = "Let pgtrickle.create_stream_table, the command line or the Python API compile the query."
READ_WRITE = "Call it in a READ WRITE transaction, on the primary server"
IMMEDIATE_NOT = "Use AUTO: with schedule 'calculated' changes show within milliseconds of their commit."
REFRESH: LiteralString = "SELECT pgtrickle.refresh_stream_table('s')"
CHANGE: LiteralString = "UPDATE t SET v = v + 1"


def create(query: str, **options: Any) -> Callable[[Connection], object]:
    return lambda conn: pg_trickle.create_stream_table(conn, "x", query, schedule=None, **options)


def alter(name: str, query: str) -> Callable[[Connection], object]:
    return lambda conn: pg_trickle.alter_stream_table(conn, name, query=query)


@dataclass(frozen=True)
class Situation:
    """``before``: how it comes about; ``call``: what is refused; ``told``: in these words; ``remedy``: what they say
    to do, after which the call succeeds.  Without one there is nothing to do but something else."""

    before: tuple[Act, ...]
    call: Act
    told: Told
    remedy: tuple[Act, ...] = ()


SITUATIONS = {
    "a function of the API that was taken away": Situation(
        ("REVOKE EXECUTE ON FUNCTION pgtrickle.refresh_stream_table(text) FROM somebody; SET ROLE somebody",),
        "INSERT INTO pgtrickle.gate (action, args) VALUES ('refresh_stream_table', '{\"name\": \"s\"}')",
        (
            "42501",
            "permission denied for function refresh_stream_table",
            "GRANT EXECUTE ON FUNCTION pgtrickle.refresh_stream_table(text) TO somebody;",
        ),
        (
            "RESET ROLE; ALTER TABLE s OWNER TO somebody; GRANT SELECT ON t TO somebody",
            "GRANT EXECUTE ON FUNCTION pgtrickle.refresh_stream_table(text) TO somebody; SET ROLE somebody",
        ),
    ),
    "a query that leaves something behind": Situation(
        (
            """CREATE FUNCTION leaves(int) RETURNS int LANGUAGE plpgsql AS
               $$BEGIN CREATE TEMPORARY TABLE left_behind (); RETURN $1; END$$""",
        ),
        create("SELECT leaves(id) AS id FROM t WHERE id = 1", refresh_mode="FULL"),
        ("25000", "the query leaves something behind in the session", "Such functions can't be used in stream tables."),
    ),
    "a query that sets the search path": Situation(
        (
            """CREATE FUNCTION sets(int) RETURNS int LANGUAGE plpgsql AS
               $$BEGIN PERFORM set_config('search_path', 'public', false); RETURN $1; END$$""",
        ),
        create("SELECT sets(id) AS id FROM t", refresh_mode="FULL"),
        (
            "25000",
            "the query changes search_path or standard_conforming_strings",
            "Use SET LOCAL, or better the function's own SET clause.",
        ),
        (
            """CREATE OR REPLACE FUNCTION sets(int) RETURNS int LANGUAGE plpgsql SET search_path = public AS
               $$BEGIN RETURN $1; END$$""",
        ),
    ),
    "events that wait for the end of the transaction": Situation(
        (
            """CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
               CREATE CONSTRAINT TRIGGER late AFTER INSERT ON w DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
               EXECUTE FUNCTION late()""",
            CHANGE,
            "BEGIN; INSERT INTO w SELECT generate_series(1, 1000)",
        ),
        REFRESH,
        (
            "25000",
            "triggers wait for the end of the transaction",
            "SET CONSTRAINTS ALL IMMEDIATE before the transaction writes; a deferrable constraint trigger can't depend"
            " on a stream table.",
        ),
        ("ROLLBACK; BEGIN; SET CONSTRAINTS ALL IMMEDIATE; INSERT INTO w SELECT generate_series(1, 1000)",),
    ),
    "the WAL of a server that isn't made for it": Situation(
        (),
        "CALL pgtrickle.enable_wal()",
        (
            "55000",
            'capture from the WAL needs wal_level "logical"',
            "ALTER SYSTEM SET wal_level = logical; then restart the server.",
        ),
    ),
    "a source that the same session reads": Situation(
        ("BEGIN; DECLARE reads CURSOR FOR SELECT id FROM w; FETCH reads",),
        create("SELECT id FROM w"),
        (
            "55006",
            'cannot ALTER TABLE "w" because it is being used by active queries in this session',
            "SET CONSTRAINTS ALL IMMEDIATE first, close what reads the table, or do it in a transaction of its own.",
        ),
        ("ROLLBACK; BEGIN; DECLARE reads CURSOR FOR SELECT id FROM w; FETCH reads; CLOSE reads",),
    ),
    "a plan for other facts": Situation(
        (),
        """SELECT pgtrickle.create_stream_table_with_plan('x', 'SELECT id FROM t', plan => p.plan)
             FROM pgtrickle.pgt_plans AS p""",
        ("40001", "the plan was made for other facts than hold now", "Try again."),
    ),
    "a stream table that came with a dump": Situation(
        ("UPDATE pgtrickle.pgt_stream_tables SET home = 'elsewhere'",),
        # That compiles, which in SQL takes a worker: the plan is of another database.
        lambda conn: pg_trickle.refresh_stream_table(conn, "s"),
        (
            "55000",
            'stream table "s" came with a dump and isn\'t maintained yet',
            "A superuser revives all stream tables of this database with SELECT pgtrickle.restore_stream_tables();",
        ),
        ("SELECT pgtrickle.restore_stream_tables();",),
    ),
    "a dump restored beside what there was": Situation(
        (create("SELECT id FROM w"), "UPDATE pgtrickle.pgt_stream_tables SET home = 'elsewhere' WHERE pgt_name = 's'"),
        "SELECT pgtrickle.restore_stream_tables()",
        (
            "55000",
            "this database had stream tables before the dump was restored into it",
            "Restore the dump into a new database.",
        ),
    ),
    "a stream table that a dump gave to a superuser": Situation(
        (
            "GRANT SELECT ON t TO somebody; ALTER TABLE s OWNER TO somebody",
            REFRESH,
            "UPDATE pgtrickle.pgt_stream_tables SET home = 'elsewhere'; ALTER TABLE s OWNER TO postgres",
        ),
        "SELECT pgtrickle.restore_stream_tables()",
        (
            "55000",
            'stream table "s" came with the dump to a superuser',
            "ALTER TABLE public.s OWNER TO a role without such rights; then call it again.",
        ),
        ("ALTER TABLE s OWNER TO somebody",),
    ),
    "capture from the WAL where it isn't enabled": Situation(
        (),
        create("SELECT id FROM t", cdc_mode="wal"),
        (
            "55000",
            "capture from the WAL is not available",
            "A superuser has to CALL pgtrickle.enable_wal(), with wal_level = logical; or use cdc_mode => 'trigger'.",
        ),
    ),
    "a table that the owner may not read any more": Situation(
        (
            "GRANT SELECT ON t TO somebody; ALTER TABLE s OWNER TO somebody",
            REFRESH,
            "REVOKE SELECT ON t FROM somebody",
            CHANGE,
        ),
        REFRESH,
        ("42501", 'permission denied for table "t"', "GRANT SELECT ON public.t TO somebody;"),
        ("GRANT SELECT ON public.t TO somebody;",),
    ),
    "a schema that the owner may not use any more": Situation(
        (
            "CREATE SCHEMA a; CREATE TABLE a.o (id int)",
            create("SELECT id FROM a.o"),
            "GRANT USAGE ON SCHEMA a TO somebody; GRANT SELECT ON a.o TO somebody; ALTER TABLE x OWNER TO somebody",
            "SELECT pgtrickle.refresh_stream_table('x')",
            "REVOKE USAGE ON SCHEMA a FROM somebody; INSERT INTO a.o VALUES (1)",
        ),
        "SELECT pgtrickle.refresh_stream_table('x')",
        ("42501", 'permission denied for table "o"', "GRANT USAGE ON SCHEMA a TO somebody;"),
        ("GRANT USAGE ON SCHEMA a TO somebody;",),
    ),
    "a definition that was dropped": Situation(
        (
            """DO $$BEGIN EXECUTE (SELECT format('DROP VIEW %s CASCADE', definition_view::regclass)
                                     FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 's'); END$$""",
        ),
        REFRESH,
        (
            "42P17",
            'the definition of stream table "s" was dropped',
            "Give it a new query with pgtrickle.alter_stream_table, or drop it.",
        ),
        (alter("s", "SELECT id, v FROM t"),),
    ),
    "a trigger that writes to a source": Situation(
        (
            """CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN UPDATE public.t SET v = v + 1 WHERE id = 9; RETURN NULL; END$$;
               CREATE TRIGGER again AFTER UPDATE ON s EXECUTE FUNCTION again()""",
            CHANGE,
        ),
        REFRESH,
        (
            "55000",
            'refreshing "s" changes its own sources',
            "Look for triggers on the stream table, and for functions in its query, that write to a source.",
        ),
        ("DROP TRIGGER again ON s",),
    ),
    "a trigger that keeps rows": Situation(
        (
            """CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
               CREATE TRIGGER kept BEFORE DELETE ON s FOR EACH ROW EXECUTE FUNCTION kept()""",
            "DELETE FROM t WHERE id = 1; SELECT pgtrickle.reinitialize_stream_table('s')",
        ),
        REFRESH,
        (
            "55000",
            'recomputing "s" contradicts itself',
            "Look for triggers and rules on the stream table; then SELECT pgtrickle.repair_stream_table('public.s');",
        ),
        ("DROP TRIGGER kept ON s", "SELECT pgtrickle.repair_stream_table('public.s')"),
    ),
    "a group that no index takes": Situation(
        (
            create("SELECT name, count(*) AS n FROM t GROUP BY name"),
            "INSERT INTO t SELECT 99, 1, string_agg(md5(n::text), '') FROM generate_series(1, 300) AS n",
        ),
        "SELECT pgtrickle.refresh_stream_table('x')",
        (
            "54000",
            'refreshing "x" exceeds a limit of PostgreSQL',
            "What tells the rows apart is indexed, some 2,700 bytes of it at most: group by a hash or by the beginning"
            " of long values.",
        ),
        (alter("x", "SELECT left(name, 100) AS name, count(*) AS n FROM t GROUP BY left(name, 100)"),),
    ),
    "a stream table that is suspended": Situation(
        ("SELECT pgtrickle.suspend_stream_table('s')", CHANGE),
        REFRESH,
        ("55000", 'stream table "s" is suspended', "SELECT pgtrickle.resume_stream_table('public.s');"),
        ("SELECT pgtrickle.resume_stream_table('public.s');",),
    ),
    "a query that the clock changes, in IMMEDIATE mode": Situation(
        (),
        create("SELECT id FROM t WHERE now() > '2024-01-01'", refresh_mode="IMMEDIATE"),
        ("0A000", "the query can't be maintained in refresh mode IMMEDIATE", IMMEDIATE_NOT),
    ),
    "a query that reads no table, in IMMEDIATE mode": Situation(
        (),
        create("SELECT n FROM generate_series(1, 3) AS n", refresh_mode="IMMEDIATE"),
        ("0A000", "the query can't be maintained in refresh mode IMMEDIATE", IMMEDIATE_NOT),
    ),
    "a partition, in IMMEDIATE mode": Situation(
        ("CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p DEFAULT",),
        create("SELECT id FROM p_1", refresh_mode="IMMEDIATE"),
        ("0A000", 'changes of "public.p_1" can\'t be followed in refresh mode IMMEDIATE', IMMEDIATE_NOT),
    ),
    "cleaning up under a snapshot": Situation(
        ("BEGIN ISOLATION LEVEL REPEATABLE READ",),
        "SELECT pgtrickle_changes.cleanup_buffer(buffer) FROM pgtrickle.pgt_captures",
        ("25000", "change buffers are cleaned up in READ COMMITTED only", "Call it in a transaction of its own."),
        ("ROLLBACK",),
    ),
    "a worker's refresh without one": Situation(
        (),
        "SELECT pgtrickle_changes.worker_refresh('{1}', 'SCHEDULER')",
        ("25000", "the worker refreshes in REPEATABLE READ", "BEGIN ISOLATION LEVEL REPEATABLE READ first."),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ",),
    ),
    "a cycle": Situation(
        (create("SELECT id, v FROM s"),),
        alter("s", "SELECT id, v FROM x"),
        (
            "42P17",
            'stream table "s" would depend on itself',
            "pg_trickle.allow_circular is off; a superuser may turn it on, with ALTER SYSTEM.",
        ),
    ),
    "draining, by somebody": Situation(
        ("SET ROLE somebody",),
        "SELECT pgtrickle.drain()",
        ("42501", "permission denied to drain the worker", "Ask a superuser; pause_all() suspends your own."),
    ),
    "no schema to create in": Situation(
        ("SET search_path = ''",),
        create("SELECT id FROM public.t"),
        ("3F000", "no schema has been selected to create in", "Name the schema, or set search_path."),
        ("RESET search_path",),
    ),
    "a stream table that was given to a superuser": Situation(
        (
            "GRANT SELECT ON t TO somebody; ALTER TABLE s OWNER TO somebody",
            REFRESH,
            "ALTER TABLE s OWNER TO postgres",
        ),
        REFRESH,
        (
            "55000",
            'stream table "s" was given to a superuser',
            "ALTER TABLE public.s OWNER TO somebody; or drop it, and let the superuser create it.",
        ),
        ("ALTER TABLE public.s OWNER TO somebody;",),
    ),
    "a plan of another version": Situation(
        (),
        """SELECT pgtrickle.create_stream_table_with_plan('x', 'SELECT id FROM t', plan => '{"format": 2}')""",
        ("22023", "invalid plan: its format is 2, not 1", "Upgrade the extension and the Python package together."),
    ),
    "half a plan": Situation(
        (),
        """SELECT pgtrickle.create_stream_table_with_plan('x', 'SELECT id FROM t', plan => '{"format": 1}')""",
        ("22023", 'invalid plan: "incremental" is missing or malformed', COMPILED),
    ),
    "a query in SQL, without a worker": Situation(
        (),
        "SELECT pgtrickle.create_stream_table('x', 'SELECT id FROM t')",
        (
            "55000",
            "no pg_trickle worker is running",
            "Start one with pgtrickle worker --dsn ..., or use the command line (pgtrickle create) or the Python API,"
            " which need none.",
        ),
    ),
    "definitions that are no objects": Situation(
        (),
        "SELECT pgtrickle.bulk_create('[1]')",
        (
            "22023",
            "arguments of a stream table are a JSON object",
            'For instance {"name": "totals", "query": "SELECT ..."}.',
        ),
    ),
    "a column that was dropped": Situation(
        ("ALTER TABLE s DROP COLUMN v", CHANGE),
        REFRESH,
        (
            "42P17",
            'stream table "s" has not the columns of its query: column "v" was dropped',
            "SELECT pgtrickle.repair_stream_table('public.s'); gives it the columns back; or give it another query with"
            " alter_stream_table.",
        ),
        ("SELECT pgtrickle.repair_stream_table('public.s');",),
    ),
    "a stream table that is published": Situation(
        ("SELECT pgtrickle.stream_table_to_publication('s')",),
        "SELECT pgtrickle.stream_table_to_publication('s')",
        (
            "42710",
            'stream table "s" is published already',
            "Subscribe to that, or SELECT pgtrickle.drop_stream_table_publication('public.s');",
        ),
        ("SELECT pgtrickle.drop_stream_table_publication('public.s')",),
    ),
    "publishing, by who may not": Situation(
        ("GRANT SELECT ON t TO somebody; ALTER TABLE s OWNER TO somebody; SET ROLE somebody",),
        "SELECT pgtrickle.stream_table_to_publication('s')",
        ("42501", 'permission denied to publish stream table "s"', "GRANT CREATE ON DATABASE {database} TO somebody;"),
        (
            """RESET ROLE;
               DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO somebody', current_database()); END$$;
               SET ROLE somebody""",
        ),
    ),
    "a worker's role that isn't there": Situation(
        (),
        "SELECT pgtrickle.grant_worker('nobody_there')",
        ("42704", 'role "nobody_there" does not exist', "CREATE ROLE nobody_there LOGIN;"),
    ),
    "a snapshot of another query": Situation(
        ("SELECT pgtrickle.snapshot_stream_table('s', 'kept')", alter("s", "SELECT id, name AS v FROM t")),
        "SELECT pgtrickle.restore_from_snapshot('s', 'kept')",
        (
            "42P17",
            'snapshot "public.kept" has other columns than stream table "s"',
            "Read it like any table; what the stream table's query shows is what a refresh brings.",
        ),
    ),
    "a fuse of what was never filled": Situation(
        (create("SELECT id FROM t", initialize=False),),
        "SELECT pgtrickle.reset_fuse('x', 'skip_changes')",
        ("55000", 'stream table "x" reads no changes', "There is nothing to skip."),
    ),
    "validating without writing": Situation(
        ("BEGIN READ ONLY",),
        "SELECT * FROM pgtrickle.validate_query('SELECT id FROM t')",
        (
            "25006",
            "cannot validate a query in a read-only transaction",
            f"{READ_WRITE}; it leaves nothing behind.",
        ),
    ),
    "a plan that is somebody else's": Situation(
        ("GRANT pg_monitor TO somebody; SET ROLE somebody",),
        "SELECT * FROM pgtrickle.explain_stream_table('public.s')",
        ("42501", 'permission denied for the plan of stream table "public.s"', "GRANT SELECT on it."),
        ("RESET ROLE; GRANT SELECT ON s TO somebody; SET ROLE somebody",),
    ),
    "a stream table that hides rows from its owner, verified without writing": Situation(
        (
            "GRANT SELECT ON t TO somebody; ALTER TABLE s OWNER TO somebody",
            REFRESH,
            "ALTER TABLE s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "BEGIN READ ONLY",
        ),
        "SELECT * FROM pgtrickle.verify_stream_table('s')",
        ("25006", 'stream table "s" hides rows from its own owner', f"{READ_WRITE}."),
        ("ROLLBACK",),
    ),
}  # fmt: skip


def carry_out(conn: Connection, act: Act) -> None:
    conn.execute(act) if isinstance(act, str) else act(conn)


@pytest.fixture
def conn(database: Any, db: Connection) -> Connection:
    """A stream table of two columns, and somebody who may call the API."""
    db.execute(SETUP)
    pg_trickle.create_stream_table(db, "s", "SELECT id, v FROM t", schedule=None)
    database.make_role("somebody")
    db.execute("GRANT USAGE ON SCHEMA pgtrickle TO somebody; GRANT CREATE, USAGE ON SCHEMA public TO somebody")
    db.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO somebody")
    return db


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_is_told_and_what_helps(conn: Connection, name: str) -> None:
    situation = SITUATIONS[name]
    for act in situation.before:
        carry_out(conn, act)
    with pytest.raises(psycopg.Error) as caught:
        carry_out(conn, situation.call)
    sqlstate, message, hint = situation.told
    assert said(caught.value) == (sqlstate, message, hint.replace("{database}", conn.info.dbname))
    for act in situation.remedy:
        carry_out(conn, act)
    if situation.remedy:
        carry_out(conn, situation.call)
