"""What an owner, a caller or a plan tries in order to run something as somebody else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

import pg_trickle
from pg_trickle.api import compile_locally
from tests.definition.conftest import TOTALS, Connection, Fails

# Everything that an attacker's code notes: as whom it ran.
LOG = """
CREATE SCHEMA own AUTHORIZATION st_author;
CREATE TABLE own.log (who name);
GRANT USAGE ON SCHEMA own TO PUBLIC;
GRANT INSERT ON own.log TO PUBLIC;
CREATE FUNCTION own.note() RETURNS int LANGUAGE plpgsql VOLATILE AS
    'BEGIN INSERT INTO own.log VALUES (current_user); RETURN 1; END';
CREATE FUNCTION own.note_trigger() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO own.log VALUES (current_user); RETURN NEW; END';
CREATE FUNCTION own.attempt(command text) RETURNS int LANGUAGE plpgsql VOLATILE AS
    'BEGIN INSERT INTO own.log VALUES (current_user); EXECUTE command; RETURN 1; END';
"""
# What resolves without a schema once an attacker's schema comes first.
LURES = """
CREATE FUNCTION own.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS
    'BEGIN PERFORM own.note(); RETURN pg_catalog.clock_timestamp(); END';
CREATE FUNCTION own.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql VOLATILE AS
    'BEGIN PERFORM own.note(); RETURN pg_catalog.format($1, VARIADIC $2); END';
CREATE FUNCTION own.pg_current_xact_id() RETURNS xid8 LANGUAGE plpgsql VOLATILE AS
    'BEGIN PERFORM own.note(); RETURN pg_catalog.pg_current_xact_id(); END';
CREATE FUNCTION own.jsonb_build_object(VARIADIC text[]) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS
    'BEGIN PERFORM own.note(); RETURN ''{}''; END';
"""


@pytest.fixture
def attacker(shop: Any, author: Connection) -> Connection:
    shop.superuser.execute(f"GRANT CREATE ON DATABASE {shop.database.name} TO st_author".encode())
    author.execute(LOG.encode())
    author.execute(LURES.encode())
    return author


def ran_as(shop: Any) -> set[str]:
    return {who for (who,) in shop.superuser.execute("SELECT who FROM own.log")}


def calling(command: str) -> str:
    return (
        sql.SQL("SELECT id, own.attempt({}) AS x FROM orders WHERE id = 1").format(sql.Literal(command)).as_string(None)
    )


LASTING = [
    "SELECT pg_catalog.set_config('search_path', 'own, pg_catalog', false)",
    "SET search_path = own, pg_catalog",
    "SET standard_conforming_strings = off",
    "CREATE TEMPORARY TABLE orders (id int)",
    "CREATE TEMPORARY VIEW customers AS SELECT own.note() AS id",
    "DECLARE c CURSOR WITH HOLD FOR SELECT own.note()",
    "PREPARE q AS SELECT own.note()",
]


@pytest.mark.versions
@pytest.mark.parametrize("command", LASTING)
def test_a_query_leaves_nothing_in_the_session_of_whoever_refreshes(
    shop: Any, attacker: Connection, fails: Fails, command: str
) -> None:
    fails("25000", pg_trickle.create_stream_table, attacker, "st", calling(command), refresh_mode="FULL")
    pg_trickle.create_stream_table(attacker, "st", calling(command), refresh_mode="FULL", initialize=False)
    victim = shop.as_("postgres")
    before = victim.execute("SELECT current_setting('search_path')").fetchone()
    fails("25000", pg_trickle.refresh_stream_table, victim, "st")
    assert victim.execute("SELECT current_setting('search_path')").fetchone() == before
    assert victim.execute("SELECT name FROM pg_cursors WHERE is_holdable").fetchall() == []
    assert victim.execute("SELECT count(*) FROM orders").fetchone() == (20,)
    assert ran_as(shop) <= {"st_author"}


@pytest.mark.parametrize(
    "command",
    [
        "RESET ROLE",
        "SET ROLE postgres",
        "RESET SESSION AUTHORIZATION",
        "SET SESSION AUTHORIZATION postgres",
        "ALTER ROLE st_author SUPERUSER",
        "CREATE EXTENSION dblink",
        "COMMIT",
        "SELECT * FROM pgtrickle_changes.run_as(10, 'SELECT 1')",
        "UPDATE pgtrickle.pgt_stream_tables SET owner_oid = 10",
    ],
)
def test_a_query_has_its_owners_rights_at_most(shop: Any, attacker: Connection, command: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        pg_trickle.create_stream_table(attacker, "st", calling(command), refresh_mode="FULL")
    assert caught.value.sqlstate in {"42501", "0A000", "42883", "2D000"}, caught.value
    pg_trickle.create_stream_table(attacker, "st", calling(command), refresh_mode="FULL", initialize=False)
    with pytest.raises(psycopg.Error):
        pg_trickle.refresh_stream_table(shop.as_("postgres"), "st")
    assert ran_as(shop) <= {"st_author"}
    assert shop.superuser.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'st_author'").fetchone() == (False,)


TRAP = """CREATE TABLE own.trap (i int);
CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON own.trap DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION own.note_trigger()"""


@pytest.mark.versions
@pytest.mark.parametrize("command", [*LASTING, "INSERT INTO own.trap VALUES (1)"])
def test_nothing_runs_as_the_worker(shop: Any, attacker: Connection, command: str) -> None:
    attacker.execute(TRAP)
    pg_trickle.create_stream_table(attacker, "st", calling(command), refresh_mode="FULL", initialize=False)
    worker = shop.as_("pgtrickle_worker")
    path = worker.execute("SELECT current_setting('search_path')").fetchone()
    with worker.transaction():
        worker.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        (result,) = worker.execute(
            "SELECT pgtrickle_changes.worker_refresh(%s, 'SCHEDULER')", ([shop.catalog("st")["pgt_id"]],)
        ).fetchone()
    assert result[0]["error"]["sqlstate"] == "25000", result
    assert worker.execute("SELECT current_setting('search_path')").fetchone() == path
    assert worker.execute("SELECT count(*) FROM pg_cursors WHERE is_holdable").fetchone() == (0,)
    assert ran_as(shop) <= {"st_author"}


def test_deferred_triggers_do_not_fire_as_whoever_refreshes(shop: Any, attacker: Connection, fails: Fails) -> None:
    attacker.execute(TRAP)
    pg_trickle.create_stream_table(
        attacker, "st", calling("INSERT INTO own.trap VALUES (1)"), refresh_mode="FULL", initialize=False
    )
    victim = shop.as_("postgres")
    fails("25000", pg_trickle.refresh_stream_table, victim, "st")
    assert ran_as(shop) <= {"st_author"}


def test_a_deferrable_foreign_key_is_no_trouble(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT id, name FROM customers")
    author.execute("ALTER TABLE st ADD PRIMARY KEY (id)")
    author.execute("CREATE TABLE likes (id int REFERENCES st DEFERRABLE INITIALLY DEFERRED)")
    author.execute("INSERT INTO likes VALUES (1)")
    shop.superuser.execute("UPDATE customers SET name = 'x'")
    shop.fresh("st")


def alter_runner(shop: Any, attacker: Connection, change: str) -> None:
    (runner,) = shop.superuser.execute("SELECT 'as_' || 'st_author'::regrole::oid").fetchone()
    attacker.execute(
        f"ALTER FUNCTION pgtrickle_changes.{runner}(text, pg_snapshot, xid8, jsonb, jsonb) {change}".encode()
    )


@pytest.mark.parametrize(
    "change",
    [
        "SECURITY INVOKER",
        "SECURITY INVOKER SET role = 'st_author'",
        "SET search_path = own, pg_catalog",
        "SET role = 'st_author'",
        "SET SCHEMA own",
        "RESET ALL",
        "IMMUTABLE",
        "STRICT",
    ],
)
def test_the_runner_lends_nobody_elses_rights(shop: Any, attacker: Connection, change: str) -> None:
    pg_trickle.create_stream_table(attacker, "st", "SELECT id, own.note() AS n FROM orders", refresh_mode="FULL")
    shop.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO st_author")
    alter_runner(shop, attacker, change)
    victim = shop.as_("postgres")
    shop.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, '')")
    # Most changes are undone; with a role of its own it doesn't start.
    with nullcontext() if not change.startswith("SET role") else pytest.raises(psycopg.errors.InsufficientPrivilege):
        pg_trickle.refresh_stream_table(victim, "st")
    assert ran_as(shop) == {"st_author"}
    assert victim.execute("SELECT current_user::text").fetchone() == ("postgres",)


def test_a_runner_that_is_gone_is_made_again(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", TOTALS)
    shop.superuser.execute("CREATE SCHEMA own AUTHORIZATION st_author")
    alter_runner(shop, author, "SET SCHEMA own")
    shop.superuser.execute("INSERT INTO orders VALUES (99, 1, 1, '')")
    shop.fresh("st")


def test_nobody_else_may_call_a_runner(shop: Any, author: Connection, fails: Fails) -> None:
    """Not even when default privileges give everybody everything."""
    shop.author("other")
    shop.superuser.execute("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO other")
    shop.superuser.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO other")
    shop.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO other")
    pg_trickle.create_stream_table(author, "st", TOTALS + " HAVING count(*) > 1")
    open_to_other = shop.superuser.execute(
        """SELECT p.oid::regprocedure::text FROM pg_proc AS p
            WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace
              AND has_function_privilege('other', p.oid, 'EXECUTE')
           UNION ALL
           SELECT c.oid::regclass::text FROM pg_class AS c
            WHERE c.relnamespace = 'pgtrickle_changes'::regnamespace AND c.relkind = 'r'
              AND has_table_privilege('other', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')"""
    ).fetchall()
    assert open_to_other == []


def test_a_definer_of_an_attacker_does_not_lend_the_victims_identity(
    shop: Any, attacker: Connection, fails: Fails
) -> None:
    pg_trickle.create_stream_table(shop.superuser, "precious", "SELECT id, secret FROM customers")
    attacker.execute(
        """CREATE FUNCTION own.trojan() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
               $$BEGIN PERFORM pgtrickle.drop_stream_table('public.precious'); END$$;
           GRANT EXECUTE ON FUNCTION own.trojan() TO PUBLIC"""
    )
    fails("42501", shop.as_("postgres").execute, "SELECT own.trojan()")
    assert shop.catalog("precious")


GATE = "INSERT INTO pgtrickle.gate (action, args) VALUES (%s, %s)"


@pytest.mark.parametrize(
    "action",
    ["", "run_as", "drop_stream_table; DROP TABLE orders", "compile_request(text)", "do_drop_stream_table", None],
)
def test_the_gate_knows_its_actions_only(author: Connection, fails: Fails, action: str | None) -> None:
    fails("22023", author.execute, GATE, (action, Jsonb({})))


@pytest.mark.parametrize("args", [None, [], 5, "x", [["name", "x"]]])
def test_the_gate_takes_objects_only(author: Connection, fails: Fails, args: Any) -> None:
    fails("22023", author.execute, GATE, ("drop_stream_table", Jsonb(args)))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO pgtrickle.gate (action, args, caller) VALUES ('drop_stream_table', '{}', 'postgres')",
        "INSERT INTO pgtrickle.gate (action, args, caller) VALUES ('drop_stream_table', '{}', DEFAULT)",
        "INSERT INTO pgtrickle.gate (action, args, schemas) VALUES ('drop_stream_table', '{}', '{own}')",
        "INSERT INTO pgtrickle.gate VALUES ('drop_stream_table', '{}', NULL, 'postgres')",
        "SELECT caller FROM pgtrickle.gate",
    ],
)
def test_nobody_tells_the_gate_who_he_is(author: Connection, fails: Fails, statement: str) -> None:
    fails("42501", author.execute, statement.encode())


def test_a_view_on_the_gate_does_not_open_it(shop: Any, attacker: Connection, fails: Fails) -> None:
    pg_trickle.create_stream_table(shop.superuser, "precious", "SELECT id, secret FROM customers")
    fails("42501", attacker.execute, "CREATE VIEW own.door AS SELECT action, args, caller FROM pgtrickle.gate")
    args = Jsonb({"name": "public.precious"})
    insert = "INSERT INTO own.door (action, args) VALUES ('drop_stream_table', %s)"
    attacker.execute("CREATE VIEW own.door AS SELECT action, args FROM pgtrickle.gate")
    fails("42501", attacker.execute, insert, (args,))
    assert shop.catalog("precious")


def test_the_path_of_a_call_is_the_sessions(shop: Any, author: Connection, fails: Fails) -> None:
    """What is passed along with the arguments isn't believed."""
    args = {"name": "st", "query": TOTALS, "schema": "pgtrickle_changes", "search_path": "pgtrickle", "schemas": ["x"]}
    error = fails("55000", author.execute, GATE, ("create_stream_table", Jsonb(args)))
    assert "worker" in str(error)


def test_without_execute_the_gate_is_closed(shop: Any, fails: Fails) -> None:
    shop.database.make_role("visitor")
    shop.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle TO visitor")
    visitor = shop.as_("visitor")
    actions = [action for (action,) in shop.superuser.execute("SELECT action FROM pgtrickle_changes.gate_actions")]
    assert len(actions) > 10
    for action in actions:
        fails("42501", visitor.execute, GATE, (action, Jsonb({"name": "x", "query": "SELECT 1"})))


@pytest.mark.parametrize("grant", ["", "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO visitor"])
def test_without_usage_nothing_is_there(shop: Any, fails: Fails, grant: str) -> None:
    shop.database.make_role("visitor")
    shop.superuser.execute((grant or "SELECT").encode())
    visitor = shop.as_("visitor")
    fails("42501", visitor.execute, "SELECT pgtrickle.create_stream_table('a', 'SELECT 1')")
    fails("42501", visitor.execute, GATE, ("create_stream_table", Jsonb({})))


# Plans that a client passes in.

CREATE = "SELECT pgtrickle.create_stream_table_with_plan('st', %s, plan => %s)"
Change = Callable[[dict[str, Any], Any], Any]


def put(path: str, value: Any) -> Change:
    def change(plan: dict[str, Any], shop: Any) -> None:
        target: Any = plan
        *way, last = path.split(".")
        for step in way:
            target = target[int(step) if isinstance(target, list) else step]
        target[int(last) if isinstance(target, list) else last] = value(shop) if callable(value) else value

    return change


def oid_of(name: str) -> Callable[[Any], int]:
    def find(shop: Any) -> int:
        (oid,) = shop.superuser.execute("SELECT to_regclass(%s)::oid::bigint", (name,)).fetchone()
        return int(oid)

    return find


STATE = {"columns": ["a"], "key": ["a"], "not_null": [], "nonnegative": [], "query": "SELECT 1 AS a"}
FORGED: list[tuple[str, Change]] = [
    ("22023", put("sources.0.oid", oid_of("public.customers"))),
    ("22023", put("sources.0.oid", oid_of("pg_catalog.pg_authid"))),
    ("22023", put("sources.0.oid", 0)),
    ("42501", put("sources.0.columns", ["id", "no such column"])),
    ("42501", put("sources.0.columns", ["ctid"])),
    ("22023", put("states", [{**STATE, "name": "pgt_stream_tables"}])),
    ("22023", put("states", [{**STATE, "name": "state_1_1; DROP TABLE orders"}])),
    ("22023", put("states", [{**STATE, "name": None}])),
    ("22023", put("states", {})),
    ("22023", put("sources", None)),
    ("22023", put("programs", [])),
    ("22023", put("programs.verify", 5)),
    ("22023", put("incremental", "yes")),
    ("22023", put("format", 2)),
    ("40001", put("request_hash", "x")),
    ("40001", put("request_hash", None)),
    ("42703", put("key", ["no such column"])),
    ("42501", put("programs.fill", ["SELECT pg_catalog.count(*) FROM pg_catalog.pg_authid"])),
    ("42501", put("programs.fill", ["SELECT pg_catalog.count(*) FROM public.hidden"])),
    ("42501", put("programs.fill", ["SELECT 1; DROP TABLE public.orders"])),
    ("42501", put("programs.fill", ["DROP TABLE public.orders"])),
    ("42501", put("programs.fill", ["RESET ROLE"])),
    ("42501", put("programs.fill", ["SELECT pgtrickle_changes.run_as(10, 'SELECT 1')"])),
]


@pytest.mark.parametrize(("sqlstate", "change"), FORGED, ids=range(len(FORGED)))
def test_a_forged_plan_changes_nothing(
    shop: Any, author: Connection, fails: Fails, sqlstate: str, change: Change
) -> None:
    shop.superuser.execute("CREATE TABLE hidden (a int)")
    before = shop.traces()
    with author.transaction(force_rollback=True):
        plan = compile_locally(author, "st", TOTALS).to_json()
        change(plan, shop)
        with pytest.raises(psycopg.Error) as caught, author.transaction():
            author.execute(CREATE, (TOTALS, Jsonb(plan)))
    assert caught.value.sqlstate == sqlstate, caught.value
    assert shop.traces() == before


def test_a_plan_for_another_table_is_refused(shop: Any, author: Connection, fails: Fails) -> None:
    with author.transaction():
        plan = compile_locally(author, "another", TOTALS).to_json()
        with pytest.raises(psycopg.Error) as caught, author.transaction():
            author.execute(CREATE, (TOTALS, Jsonb(plan)))
    assert caught.value.sqlstate == "40001"


@pytest.mark.parametrize("id", [-1, 0, 1, 2**40, 2**70, "1", 1.5])
def test_a_plan_does_not_choose_its_number(shop: Any, author: Connection, id: Any) -> None:
    pg_trickle.create_stream_table(author, "first", TOTALS)
    with author.transaction():
        plan = compile_locally(author, "st", TOTALS).to_json()
        with pytest.raises(psycopg.Error) as caught, author.transaction():
            author.execute(CREATE, (TOTALS, Jsonb({**plan, "id": id})))
    assert caught.value.sqlstate in {"40001", "22003", "22P02"}, caught.value


def test_a_plan_may_not_capture_what_a_policy_hides(shop: Any, author: Connection) -> None:
    shop.superuser.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    shop.superuser.execute("CREATE POLICY few ON orders USING (id < length(current_setting('app.few', true)))")
    with author.transaction():
        plan = compile_locally(author, "st", TOTALS).to_json()
        assert plan["sources"] == []
        plan["sources"] = [{"oid": oid_of("public.orders")(shop), "columns": ["id"]}]
        with pytest.raises(psycopg.Error) as caught, author.transaction():
            author.execute(CREATE, (TOTALS, Jsonb(plan)))
    assert caught.value.sqlstate == "42501"
