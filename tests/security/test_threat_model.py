"""Attacks thought up with the code open: by strangers, authors, members of pgtrickle_admin, owners in a circle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import pg_trickle
from pg_trickle.catalog.model import CompileRequest
from pg_trickle.compile import compile as compile_query
from pg_trickle.testing.oracle import assert_fresh
from pg_trickle.worker.loop import Worker
from tests.conftest import WORKER_ROLE
from tests.security.conftest import TOTALS, Connection, Place, attempted

Fails = Callable[..., psycopg.Error]

STEP = "SELECT src, dst FROM edges UNION SELECT r.src, e.dst FROM {} AS r JOIN edges AS e ON e.src = r.dst"


@pytest.fixture
def stranger(place: Place) -> Connection:
    """A role that may do nothing but connect."""
    return place.role("stranger")


@pytest.mark.versions
def test_a15_no_strangers_lock_is_in_anybodys_way(place: Place, author: Connection, stranger: Connection) -> None:
    """Advisory locks are anybody's: what matters must not wait for one."""
    for space in range(1885762395, 1885762411):
        for number in range(-2, 12):
            stranger.execute("SELECT pg_advisory_lock(%s, %s)", (space, number))
    author.execute("SET statement_timeout = '20s'")
    place.superuser.execute("SET statement_timeout = '20s'")
    pg_trickle.create_stream_table(author, "st", TOTALS)
    pg_trickle.create_stream_table(author, "above", "SELECT tenant_id, total FROM st")
    pg_trickle.alter_stream_table(
        author, "above", query="SELECT tenant_id, sum(total) AS total FROM st GROUP BY tenant_id"
    )
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    place.fresh("st", "above")


def test_a11_nor_keeps_it_the_worker_from_its_work(
    place: Place, author: Connection, stranger: Connection, database: Any
) -> None:
    for number in range(1, 12):
        stranger.execute("SELECT pg_advisory_lock(1885762401, %s)", (number,))
    workers = [Worker(database.dsn_of(WORKER_ROLE)) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        workers[0].wait_for(lambda: any(worker.is_active for worker in workers))
        active = next(worker for worker in workers if worker.is_active)
        author.execute("SELECT pgtrickle.create_stream_table('st', %s)", (TOTALS,))
        place.superuser.execute("UPDATE orders SET amount = 0")
        refreshed = "SELECT count(*) FROM pgtrickle.pgt_refresh_history WHERE initiated_by = 'SCHEDULER'"
        active.wait_for(lambda: place.value(refreshed) > 0)
        # The other one stands by, also when the locks are free again, until the first is gone.
        stranger.execute("SELECT pg_advisory_unlock_all()")
        active.wait_until_idle()
        active.wait_until_idle()
        assert [worker.is_active for worker in workers].count(True) == 1
        assert "stranger" not in place.value(
            "SELECT detail FROM pgtrickle.health_check() WHERE check_name = 'worker_running'"
        )
        active.stop()
        other = next(worker for worker in workers if worker is not active)
        other.wait_for(lambda: other.is_active)
    finally:
        for worker in workers:
            worker.stop()


@pytest.mark.versions
def test_a07_the_gate_knows_who_calls_however_he_calls(place: Place, author: Connection, major: int) -> None:
    """COPY and MERGE into the view are INSERTs too: its defaults say who calls, and nobody else can."""
    pg_trickle.create_stream_table(author, "st", TOTALS)
    place.role("intruder")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle TO intruder")
    place.superuser.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgtrickle TO intruder")
    intruder = place.as_("intruder")

    def copied(columns: str, line: str) -> None:
        with intruder.cursor() as cursor, cursor.copy(f"COPY pgtrickle.gate ({columns}) FROM STDIN".encode()) as copy:
            copy.write(line)

    drop = '{"name": "public.st"}'
    assert attempted(copied, "action, args", f"drop_stream_table\t{drop}\n") == "42501"
    assert attempted(copied, "action, args, caller", f"drop_stream_table\t{drop}\tst_author\n") == "42501"
    assert attempted(copied, "action, args, caller", f"drop_stream_table\t{drop}\t\\N\n") == "42501"
    for text in (
        "INSERT INTO pgtrickle.gate (action, args, caller) VALUES ('drop_stream_table', %s, 'st_author')",
        "INSERT INTO pgtrickle.gate (action, args, caller) VALUES ('drop_stream_table', %s, NULL)",
        "INSERT INTO pgtrickle.gate (action, args) VALUES ('drop_stream_table', %s)",
        "INSERT INTO pgtrickle.gate AS g (action, args) VALUES ('drop_stream_table', %s) RETURNING result, caller",
    ):
        assert attempted(intruder.execute, text, (drop,)) == "42501", text
    assert attempted(intruder.execute, "UPDATE pgtrickle.gate SET action = 'drop_stream_table'") is not None
    if major >= 17:
        merge = """MERGE INTO pgtrickle.gate AS g USING (VALUES (1)) AS v(x) ON false
                   WHEN NOT MATCHED THEN INSERT (action, args) VALUES ('drop_stream_table', '{"name": "public.st"}')"""
        assert attempted(intruder.execute, merge) is not None
    view = "CREATE TEMPORARY VIEW {} AS SELECT {} FROM pgtrickle.gate"
    assert attempted(intruder.execute, view.format("forged", "action, args, caller").encode()) == "42501"
    intruder.execute(view.format("mine", "action, args").encode())
    assert attempted(intruder.execute, "INSERT INTO mine VALUES ('drop_stream_table', %s)", (drop,)) == "42501"
    place.fresh("st")


def test_a03_a_definition_that_its_owner_takes_away_and_rewrites_gains_him_nothing(
    place: Place, author: Connection, fails: Fails
) -> None:
    """The view is his, so he may move it where he may replace it: then it means something else, to him."""
    place.superuser.execute(
        "CREATE TABLE vault (tenant_id int, customer_id int, total numeric); INSERT INTO vault VALUES (1, 1, 666)"
    )
    pg_trickle.create_stream_table(author, "st", TOTALS)
    number = place.value("SELECT pgt_id FROM pgtrickle.pgt_stream_tables")
    author.execute(f"ALTER VIEW pgtrickle_changes.query_{number} SET SCHEMA public".encode())
    # What he may not read stays unread.
    author.execute(f"CREATE OR REPLACE VIEW query_{number} AS SELECT tenant_id, customer_id, total FROM vault".encode())
    fails("42501", pg_trickle.refresh_stream_table, author, "st")
    assert place.value("SELECT count(*) FROM st WHERE total = 666") == 0
    # Nor is a circle closed that isn't allowed.
    author.execute(
        f"CREATE OR REPLACE VIEW query_{number} AS SELECT tenant_id, customer_id, total + 1 AS total FROM st".encode()
    )
    fails("42P17", pg_trickle.refresh_stream_table, author, "st")
    # A new query mends it.
    pg_trickle.alter_stream_table(author, "st", query=TOTALS)
    place.fresh("st")


def test_a01_reassigned_machinery_runs_for_nobody(place: Place, author: Connection, fails: Fails) -> None:
    """REASSIGN OWNED hands a runner made for one role to another: it must not run as that one."""
    pg_trickle.create_stream_table(author, "st", TOTALS)
    heir = place.author("heir")
    place.superuser.execute("GRANT USAGE ON SCHEMA pgtrickle_changes TO heir")
    place.superuser.execute("REASSIGN OWNED BY st_author TO heir")
    runners = "SELECT proname FROM pg_proc WHERE proname ~ '^as_[0-9]' AND proowner = 'heir'::regrole ORDER BY 1"
    for (name,) in place.superuser.execute(runners.encode()).fetchall():
        if name == f"as_{place.value('SELECT oid FROM pg_roles WHERE rolname = %s', 'heir')}":
            continue
        call = f"SELECT pgtrickle_changes.{name}('SELECT to_jsonb(current_user)', NULL, NULL, NULL, '{{}}')"
        fails("55000", heir.execute, call.encode())
    place.superuser.execute("UPDATE orders SET amount = amount + 1")
    place.fresh("st")
    assert place.value("SELECT pg_get_userbyid(owner_oid) FROM pgtrickle.pgt_stream_tables") == "heir"


@pytest.fixture
def shared(place: Place, author: Connection) -> tuple[Connection, Connection]:
    """A circle of two owners, a villain's table and a victim's."""
    place.superuser.execute("CREATE TABLE edges (src int, dst int); INSERT INTO edges VALUES (1, 2), (2, 3), (3, 1)")
    place.superuser.execute("INSERT INTO pgtrickle.pgt_settings VALUES ('allow_circular', 'on')")
    villain, victim = place.author("villain"), place.author("victim")
    pg_trickle.create_stream_table(villain, "theirs", "SELECT src, dst FROM edges")
    villain.execute("GRANT SELECT ON theirs TO victim")
    pg_trickle.create_stream_table(victim, "mine", STEP.format("theirs"))
    victim.execute("GRANT SELECT ON mine TO villain")
    plan = pg_trickle.api.compile_locally(villain, "theirs", STEP.format("mine"), existing=True)
    villain.execute(
        "SELECT pgtrickle.alter_stream_table_with_plan('theirs', query => %s, plan => %s)",
        (STEP.format("mine"), Jsonb(plan.to_json())),
    )
    for name in ("theirs", "mine"):
        pg_trickle.refresh_stream_table(place.superuser, name)
    return villain, victim


def test_a02_what_one_of_a_circle_attaches_to_his_table_runs_as_him(
    place: Place, shared: tuple[Connection, Connection]
) -> None:
    villain, victim = shared
    villain.execute(
        """CREATE TABLE seen (who name, by_session name); GRANT INSERT ON seen TO PUBLIC;
           CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO public.seen VALUES (current_user, session_user); RETURN coalesce(NEW, OLD); END $$;
           CREATE TRIGGER look BEFORE INSERT OR DELETE OR UPDATE ON theirs FOR EACH ROW EXECUTE FUNCTION look();
           CREATE TRIGGER after_all AFTER INSERT OR DELETE ON theirs FOR EACH STATEMENT EXECUTE FUNCTION look()"""
    )
    for statement in ("INSERT INTO edges VALUES (3, 4)", "DELETE FROM edges WHERE src = 3"):
        place.superuser.execute(statement.encode())
        pg_trickle.refresh_stream_table(victim, "mine")
        for name in ("theirs", "mine"):
            assert_fresh(place.superuser, name)
    assert place.superuser.execute("SELECT DISTINCT who FROM seen").fetchall() == [("villain",)]


@pytest.mark.parametrize(
    "sabotage",
    [
        "CREATE RULE nothing AS ON DELETE TO theirs DO INSTEAD NOTHING",
        "CREATE RULE nothing AS ON INSERT TO theirs DO INSTEAD NOTHING",
        "ALTER TABLE theirs ADD CHECK (src < 3) NOT VALID",
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        " CREATE TRIGGER fail BEFORE DELETE ON theirs FOR EACH STATEMENT EXECUTE FUNCTION fail()",
        "CREATE FUNCTION less() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        " CREATE TRIGGER less BEFORE INSERT OR DELETE ON theirs FOR EACH ROW EXECUTE FUNCTION less()",
        "ALTER TABLE theirs ADD COLUMN more int",
        "REVOKE SELECT ON theirs FROM victim",
        "REVOKE ALL ON theirs FROM villain",
    ],
)
def test_a15_one_of_a_circle_can_stop_it_but_not_spoil_what_others_have(
    place: Place, shared: tuple[Connection, Connection], sabotage: str
) -> None:
    """Whatever he does, the victim's table is what its query gives of what it reads, or it stays as it was."""
    villain, victim = shared
    before = place.value("SELECT array_agg(row(src, dst)::text ORDER BY 1) FROM mine")
    villain.execute(sabotage.encode())
    place.superuser.execute("DELETE FROM edges WHERE src = 3; INSERT INTO edges VALUES (5, 6)")
    victim.execute("SET statement_timeout = '60s'")
    failed = attempted(pg_trickle.refresh_stream_table, victim, "mine")
    if failed is None:
        assert_fresh(place.superuser, "mine")
    else:
        assert place.value("SELECT array_agg(row(src, dst)::text ORDER BY 1) FROM mine") == before
    # And she can always leave.
    pg_trickle.alter_stream_table(victim, "mine", query="SELECT src, dst FROM edges")
    assert_fresh(place.superuser, "mine")


def test_a11_a_forged_plan_in_a_circle_ends(place: Place, shared: tuple[Connection, Connection]) -> None:
    """He vouches himself for a query that takes back what it gave: rounds are counted, and nothing is left of them."""
    villain, victim = shared
    paradox = "SELECT 9 AS src, 1 AS dst WHERE NOT EXISTS (SELECT FROM mine WHERE src = 9)"
    row = villain.execute("SELECT pgtrickle.compile_request('theirs', %s, true)", (paradox,)).fetchone()
    request = row[0] if row else {}
    for relation in request["relations"]:
        relation.pop("circular", None)
    forged = compile_query(CompileRequest.from_json(request)).to_json() | {"circular": {"restart": []}}
    assert forged["incremental"]
    before = place.value("SELECT array_agg(row(src, dst)::text ORDER BY 1) FROM mine")
    text = "SELECT pgtrickle.alter_stream_table_with_plan('theirs', query => %s, plan => %s)"
    villain.execute(text, (paradox, Jsonb(forged)))
    place.superuser.execute("SET statement_timeout = '120s'")
    for name in ("theirs", "mine"):
        assert attempted(pg_trickle.refresh_stream_table, place.superuser, name) in {"54000", "55000"}
    assert place.value("SELECT array_agg(row(src, dst)::text ORDER BY 1) FROM mine") == before
    pg_trickle.alter_stream_table(victim, "mine", query="SELECT src, dst FROM edges")
    place.fresh("mine", "theirs")


def test_a10_no_name_in_a_shared_schema_keeps_a_definition_out(place: Place, author: Connection) -> None:
    """Somebody has taken, in the schema of the stream table, the names that definitions will have in the engine's."""
    squatter = place.role("squatter")
    place.superuser.execute("GRANT CREATE ON SCHEMA public TO squatter")
    for number in range(1, 30):
        squatter.execute(f"CREATE TABLE public.query_{number} ()".encode())
    pg_trickle.create_stream_table(author, "st", TOTALS)
    pg_trickle.alter_stream_table(author, "st", query=TOTALS.replace("sum", "max"))
    place.fresh("st")
