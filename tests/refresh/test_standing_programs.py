"""Programs that stand: which changes they serve, what becomes of them, and that nothing else gets in their place."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

import pg_trickle
from pg_trickle.testing.oracle import assert_fresh

Connection = psycopg.Connection[tuple[Any, ...]]
JOIN = """
SELECT o.id, o.amount, c.region FROM orders AS o JOIN customers AS c ON c.id = o.customer_id WHERE o.amount > 10
"""
FUNCTIONS = """
SELECT p.proname FROM pg_proc AS p
 WHERE p.pronamespace = 'pgtrickle_changes'::regnamespace AND p.proname ~ '^program_' ORDER BY p.proname
"""


@pytest.fixture
def orders(db: Connection) -> Connection:
    db.execute("CREATE TABLE customers (id int PRIMARY KEY, region text NOT NULL)")
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, amount int NOT NULL)")
    db.execute("INSERT INTO customers SELECT n, 'r' || n % 3 FROM generate_series(1, 20) AS n")
    db.execute("INSERT INTO orders SELECT n, 1 + n % 20, n % 50 FROM generate_series(1, 5000) AS n")
    pg_trickle.create_stream_table(db, "st", JOIN, schedule=None, refresh_mode="DIFFERENTIAL")
    return db


def functions(db: Connection) -> list[str]:
    return [name for (name,) in db.execute(FUNCTIONS)]


def change(db: Connection, rows: int) -> None:
    """So many orders get another amount; a refresh, and a look whether it is right."""
    statement = "UPDATE orders SET amount = (amount + 17) %% 50 WHERE id <= %s"
    db.execute(statement, (rows,))
    pg_trickle.refresh_stream_table(db, "st")
    assert_fresh(db, "st")


def calls(db: Connection, name: str) -> int:
    db.execute("SELECT pg_stat_force_next_flush()")
    found = db.execute("SELECT calls FROM pg_stat_user_functions WHERE funcname = %s", (name,)).fetchone()
    return found[0] if found else 0


@pytest.mark.versions
def test_a_program_stands_from_the_second_time_on(orders, major):
    orders.execute("SET track_functions = 'all'")
    change(orders, 5)
    assert functions(orders) == []
    change(orders, 3)
    assert functions(orders) == ["program_1_1"]
    change(orders, 8)
    assert functions(orders) == ["program_1_1"]
    assert calls(orders, "program_1_1") == 2


def test_nothing_is_said_of_it(orders):
    told: list[str | None] = []
    orders.add_notice_handler(lambda diagnostic: told.append(diagnostic.message_primary))
    for rows in (5, 3, 300, 300):
        change(orders, rows)
    assert told == []


def test_changes_of_another_size_are_planned_anew(orders):
    for rows in (5, 5, 300, 300, 2500, 2500):
        change(orders, rows)
    assert functions(orders) == ["program_1_1", "program_1_2", "program_1_3"]
    change(orders, 600)
    assert functions(orders) == ["program_1_1", "program_1_2", "program_1_3"]


def test_sizes_are_compared_source_by_source(orders):
    change(orders, 300)
    change(orders, 300)
    orders.execute("INSERT INTO customers SELECT n, 'new' FROM generate_series(21, 320) AS n")
    orders.execute("UPDATE orders SET customer_id = 21 WHERE id <= 3")
    change(orders, 300)
    orders.execute("UPDATE customers SET region = 'other' WHERE id <= 2")
    change(orders, 300)
    assert functions(orders) == ["program_1_1"]


def test_many_changes_are_planned_every_time(orders):
    orders.execute("INSERT INTO orders SELECT n, 1 + n % 20, n % 50 FROM generate_series(5001, 40000) AS n")
    pg_trickle.refresh_stream_table(orders, "st")
    for _ in range(3):
        change(orders, 40000)
    assert functions(orders) == []


def test_what_a_query_says_of_change_rows_is_no_condition_on_them(orders):
    """A program that stands has other words for what tells the rows that are new, but not where a query shows them."""
    (plan,) = orders.execute("SELECT plan #>> '{programs,differential}' FROM pgtrickle.pgt_plans").fetchone()
    said = plan[plan.index("(xid >= ") : plan.index("::bigint)") + len("::bigint)")]
    orders.execute("SET pg_trickle.keep_plans = 'always'")
    query = sql.SQL("SELECT id, amount, {} AS said FROM orders").format(sql.Literal(said)).as_string(orders)
    pg_trickle.create_stream_table(orders, "says", query, schedule=None, refresh_mode="DIFFERENTIAL")
    orders.execute("UPDATE orders SET amount = amount + 1 WHERE id <= 5")
    pg_trickle.refresh_stream_table(orders, "says")
    assert len(functions(orders)) == 1
    assert_fresh(orders, "says")


def test_only_so_many_sizes_are_kept(orders):
    orders.execute("SET pg_trickle.keep_plans = 'always'")
    for _ in range(8):
        change(orders, 5)
        change(orders, 2500)
        # What is noted first is forgotten first: as if other sizes had been met in between.
        orders.execute("UPDATE pgtrickle_changes.standing_programs SET sources = '{1}' WHERE number <= 100")
    assert len(functions(orders)) == 6
    found = orders.execute("SELECT count(*), min(number), max(number) FROM pgtrickle_changes.standing_programs")
    assert found.fetchone() == (6, 11, 16)


def test_all_stream_tables_together_keep_only_so_many(orders):
    pg_trickle.create_stream_table(orders, "other", "SELECT id FROM customers", schedule=None)
    orders.execute(
        "INSERT INTO pgtrickle_changes.standing_programs SELECT pgt_id, n, '{}', '{}'"
        " FROM pgtrickle.pgt_stream_tables, generate_series(1, 200) AS n WHERE pgt_name = 'other'"
    )
    for _ in range(3):
        change(orders, 5)
    assert functions(orders) == []


def test_a_contradiction_is_noticed_by_a_standing_program(orders):
    change(orders, 5)
    change(orders, 5)
    orders.execute("DELETE FROM st WHERE id = 27")
    orders.execute("DELETE FROM orders WHERE id = 27")
    pg_trickle.refresh_stream_table(orders, "st")
    assert_fresh(orders, "st")
    reason = orders.execute("SELECT reason FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1")
    assert reason.fetchone() == ("the stream table did not hold what the changes take away",)


def test_they_go_with_the_plan_and_with_the_stream_table(orders):
    change(orders, 5)
    change(orders, 5)
    pg_trickle.alter_stream_table(orders, "st", query=JOIN.replace("> 10", "> 20"))
    assert functions(orders) == []
    change(orders, 5)
    change(orders, 5)
    assert functions(orders) == ["program_1_1"]
    pg_trickle.drop_stream_table(orders, "st")
    assert functions(orders) == []
    assert orders.execute("SELECT count(*) FROM pgtrickle_changes.standing_programs").fetchone() == (0,)


def test_none_is_kept_where_that_is_not_wanted(orders):
    orders.execute("SET pg_trickle.keep_plans = 'off'")
    for _ in range(3):
        change(orders, 5)
    assert functions(orders) == []


@pytest.fixture
def owner(database, orders) -> str:
    """Who owns the stream table, an ordinary role."""
    role: str = database.make_role("owner")
    orders.execute(sql.SQL("GRANT SELECT ON orders, customers TO {r}").format(r=sql.Identifier(role)))
    orders.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {r}").format(r=sql.Identifier(role)))
    orders.execute(sql.SQL("ALTER TABLE st OWNER TO {r}").format(r=sql.Identifier(role)))
    for _ in range(3):
        change(orders, 5)
    return role


def test_a_standing_program_is_its_owners_and_nobody_elses(orders, owner):
    found = orders.execute(
        "SELECT proowner::regrole::text, prosecdef, proacl::text FROM pg_proc WHERE proname = 'program_1_1'"
    )
    assert found.fetchone() == (owner, True, f"{{{owner}=X/{owner}}}")


def test_its_settings_are_the_runners_and_those_of_the_stream_table(orders):
    orders.execute("SET TimeZone = 'Asia/Tokyo'")
    query = "SELECT id, (now() - id * interval '1 day')::date AS day FROM orders"
    pg_trickle.create_stream_table(orders, "days", query, schedule=None)
    orders.execute("RESET TimeZone; SET pg_trickle.keep_plans = 'always'")
    orders.execute("DELETE FROM orders WHERE id <= 3")
    pg_trickle.refresh_stream_table(orders, "days")
    configured = "SELECT unnest(proconfig) FROM pg_proc WHERE proname ~ %s"

    def settings(function: str) -> dict[str, str]:
        return dict(one.split("=", 1) for (one,) in orders.execute(configured, (function,)))

    ((own,),) = orders.execute("SELECT settings FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'days'")
    assert own["TimeZone"] == "Asia/Tokyo"
    assert settings("^program_") == settings("^as_[0-9]+$") | own | {"plan_cache_mode": "force_generic_plan"}


@pytest.mark.parametrize("setting", ["search_path", "standard_conforming_strings"])
def test_a_standing_program_may_not_change_what_names_and_strings_mean(orders, setting):
    orders.execute(
        sql.SQL(
            """CREATE FUNCTION sets(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
               BEGIN IF $1 = 1000 THEN PERFORM set_config({setting}, 'off', false); END IF; RETURN $1; END$$"""
        ).format(setting=sql.Literal(setting))
    )
    pg_trickle.create_stream_table(orders, "setting", "SELECT id, sets(amount) AS n FROM orders", schedule=None)
    orders.execute("SET pg_trickle.keep_plans = 'always'")
    orders.execute("UPDATE orders SET amount = 7 WHERE id = 3")
    pg_trickle.refresh_stream_table(orders, "setting")
    before = orders.execute("SELECT current_setting(%s)", (setting,)).fetchone()
    orders.execute("UPDATE orders SET amount = 1000 WHERE id = 3")
    with pytest.raises(psycopg.errors.InvalidTransactionState, match="changes search_path or standard_conf") as caught:
        orders.execute("SELECT pgtrickle.refresh_stream_table('setting')")
    assert "call_standing" in (caught.value.diag.context or "")
    assert orders.execute("SELECT current_setting(%s)", (setting,)).fetchone() == before


@pytest.mark.parametrize(
    "name", ["program_1_1(pg_snapshot, xid8, jsonb, timestamptz)", "pending_1(pg_snapshot, xid8, jsonb)"]
)
def test_none_runs_as_anybody_but_its_owner(orders, owner, name):
    function = sql.SQL("pgtrickle_changes.{f}").format(f=sql.SQL(name))
    arguments = ", ".join(f"NULL::{one}" for one in name.rstrip(")").split("(")[1].split(", "))
    call = sql.SQL("SELECT pgtrickle_changes.{f}({a})").format(f=sql.SQL(name.split("(")[0]), a=sql.SQL(arguments))
    orders.execute(call)
    orders.execute(sql.SQL("ALTER FUNCTION {f} SECURITY INVOKER").format(f=function))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has been altered and runs nothing"):
        orders.execute(call)
    change(orders, 5)


def test_one_that_its_owner_has_altered_is_made_anew(database, orders, owner):
    session = database.connect(owner)
    known = "SELECT oid FROM pg_proc WHERE proname = 'program_1_1'"
    for alteration in ("SECURITY INVOKER", "SET search_path = public", "STRICT", "STABLE", "RESET plan_cache_mode"):
        before = orders.execute(known).fetchone()
        name = "pgtrickle_changes.program_1_1(pg_snapshot, xid8, jsonb, timestamptz)"
        session.execute(sql.SQL("ALTER FUNCTION {f} {how}").format(f=sql.SQL(name), how=sql.SQL(alteration)))
        change(orders, 5)
        assert orders.execute(known).fetchone() != before, alteration


def test_nobody_but_the_engine_puts_another_function_in_its_place(database, orders, owner):
    session = database.connect(owner)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(
            "CREATE OR REPLACE FUNCTION pgtrickle_changes.program_1_1(pg_snapshot, xid8, jsonb, timestamptz)"
            " RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'"
        )
    session.execute("CREATE FUNCTION public.mine(pg_snapshot, xid8, jsonb, timestamptz) RETURNS bigint RETURN 1")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("ALTER FUNCTION public.mine SET SCHEMA pgtrickle_changes")


def test_the_next_owner_never_runs_what_the_former_one_had(database, orders, owner):
    heir = database.make_role("heir")
    orders.execute("GRANT SELECT ON orders, customers TO heir")
    orders.execute(sql.SQL("ALTER TABLE st OWNER TO {r}").format(r=sql.Identifier(heir)))
    change(orders, 5)
    assert functions(orders) == []
    change(orders, 5)
    change(orders, 5)
    found = orders.execute("SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE proname ~ '^program_'")
    assert found.fetchall() == [("heir",)]


def counting(db: Connection) -> list[tuple[Any, ...]]:
    """The function that counts changes, who owns it and how it is set."""
    return db.execute(
        "SELECT proname, proowner::regrole::text, prosecdef, proacl::text, proconfig FROM pg_proc"
        " WHERE pronamespace = 'pgtrickle_changes'::regnamespace AND proname ~ '^pending_[0-9]'"
    ).fetchall()


@pytest.mark.versions
def test_counting_the_changes_stands_with_a_program(orders):
    change(orders, 5)
    assert counting(orders) == []
    change(orders, 5)
    assert [name for name, *_ in counting(orders)] == ["pending_1"]
    orders.execute("SET track_functions = 'all'")
    change(orders, 5)
    assert calls(orders, "pending_1") == 1
    rows = orders.execute("SELECT rows_in FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 1")
    assert rows.fetchone() == (10,)
    pg_trickle.drop_stream_table(orders, "st")
    assert counting(orders) == []


@pytest.mark.versions
def test_what_counts_is_looked_at_again_when_it_has_been_altered(orders):
    for _ in range(3):
        change(orders, 5)
    orders.execute("SET track_functions = 'all'")

    def refreshed() -> tuple[int, int]:
        """How often what counts was looked at, and called, in two more refreshes."""
        before = calls(orders, "is_counting"), calls(orders, "pending_1")
        for _ in range(2):
            orders.execute("UPDATE orders SET amount = (amount + 17) % 50 WHERE id <= 5")
            orders.execute("SELECT pgtrickle.refresh_stream_table('st')")
        assert_fresh(orders, "st")
        return calls(orders, "is_counting") - before[0], calls(orders, "pending_1") - before[1]

    alter = "ALTER FUNCTION pgtrickle_changes.pending_1(pg_snapshot, xid8, jsonb) "
    assert refreshed() == (0, 2)
    orders.execute((alter + "STABLE").encode())
    looked, called = refreshed()
    assert looked > 0
    assert called == 0
    orders.execute((alter + "VOLATILE").encode())
    assert refreshed() == (1, 2)


def test_it_counts_what_the_query_in_its_place_counts(orders):
    for _ in range(2):
        change(orders, 5)
    pending = (
        "SELECT pgtrickle_changes.pending(st.pgt_id, st.frontier, st.frontier_xid, st.frontier_seqs)"
        " FROM pgtrickle.pgt_stream_tables AS st"
    )
    orders.execute("SET track_functions = 'all'")
    with orders.transaction(force_rollback=True):
        found = []
        for write in (
            "SELECT 1",
            "UPDATE orders SET amount = amount + 1 WHERE id <= 30; DELETE FROM customers WHERE id = 20",
            "SELECT pgtrickle.refresh_stream_table('st'); INSERT INTO customers VALUES (20, 'again')",
            "TRUNCATE orders",
        ):
            orders.execute(write.encode())
            found.append(orders.execute(pending.encode()).fetchone())
        oids = orders.execute("SELECT 'orders'::regclass::oid::text, 'customers'::regclass::oid::text").fetchone()
        assert oids is not None
        there = [one and {oids.index(source): told for source, told in one.items()} for (one,) in found]
        assert there == [
            None,
            {0: [60, False, True, False, None], 1: [1, False, True, False, None]},
            {1: [1, False, True, True, None]},
            {0: [1, True, True, True, None], 1: [1, False, True, True, None]},
        ]
        orders.execute("DROP FUNCTION pgtrickle_changes.pending_1")
        assert orders.execute(pending.encode()).fetchone() == found[-1]


def test_it_is_the_owners_and_not_called_once_he_has_altered_it(database, orders, owner):
    settings = [
        "search_path=pg_catalog, pg_temp",
        "standard_conforming_strings=on",
        "row_security=on",
        "jit=off",
        "plan_cache_mode=force_generic_plan",
        "enable_seqscan=off",
    ]
    assert counting(orders) == [("pending_1", owner, True, f"{{{owner}=X/{owner}}}", settings)]
    session = database.connect(owner)
    name = "pgtrickle_changes.pending_1(pg_snapshot, xid8, jsonb)"
    orders.execute("SET track_functions = 'all'")
    for alteration in ("SECURITY INVOKER", "SET search_path = public", "STRICT", "STABLE"):
        session.execute(sql.SQL("ALTER FUNCTION {f} {how}").format(f=sql.SQL(name), how=sql.SQL(alteration)))
        change(orders, 5)
    assert calls(orders, "pending_1") == 0


# What asks which sources have changed, and a query that has it in a string, and as much of it as a name holds in one.
GATE = "coalesce(pg_catalog.jsonb_exists_any($3 -> 'changed', ARRAY['1']), TRUE)"
LIKE_IT = sql.SQL("""
SELECT o.id, c.region || r.name AS {name}, {text} AS text
  FROM orders AS o JOIN customers AS c ON c.id = o.customer_id JOIN regions AS r ON r.region = c.region
""").format(name=sql.Identifier(GATE[:63]), text=sql.Literal(GATE))


def test_a_program_for_whatever_has_changed_stands_for_what_has(orders):
    orders.execute("CREATE TABLE regions (region text PRIMARY KEY, name text NOT NULL)")
    orders.execute("INSERT INTO regions SELECT 'r' || n, 'region ' || n FROM generate_series(0, 2) AS n")
    orders.execute("ANALYZE")
    pg_trickle.create_stream_table(
        orders, "three", LIKE_IT.as_string(orders), schedule=None, refresh_mode="DIFFERENTIAL"
    )
    orders.execute("SET pg_trickle.keep_plans = 'always'")
    orders.execute("UPDATE orders SET customer_id = 1 + (id + 7) % 20 WHERE id < 30")
    orders.execute("UPDATE regions SET name = name || '!'")
    pg_trickle.refresh_stream_table(orders, "three")
    assert_fresh(orders, "three")
    ((body,),) = orders.execute("SELECT prosrc FROM pg_proc WHERE proname ~ '^program_'")
    assert "WHERE FALSE" in body
    assert GATE.replace("'", "''") in body
    assert f'"{GATE[:63]}"' in body
    assert GATE[:60] not in body.replace(f'"{GATE[:63]}"', "").replace(GATE.replace("'", "''"), "")
