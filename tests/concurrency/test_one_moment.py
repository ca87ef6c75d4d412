"""Stream tables that hang together show one moment, whoever creates, alters, drops or refreshes one of them meanwhile.

A clock moves in the writer's transactions, and every stream table shows what it says: so two that show different
numbers show two moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.types.json import Jsonb

from pg_trickle.worker.loop import Worker
from tests.concurrency.steps import Stage, interleavings

Connection = psycopg.Connection[tuple[Any, ...]]

GRAPH = "SELECT pgtrickle_changes.graph_version()"
STIRRED = "SELECT pgtrickle_changes.stirred(%s, %s)"
TICK = "UPDATE clock SET n = n + 1"


@pytest.fixture
def clock(db: Connection) -> Connection:
    db.execute("CREATE TABLE clock (id int PRIMARY KEY, n int NOT NULL)")
    db.execute("INSERT INTO clock VALUES (1, 0), (2, 0)")
    create(db, "root", "SELECT id, n FROM clock")
    return db


def create(conn: Connection, name: str, query: str, **options: Any) -> None:
    conn.execute(creation(name, query).encode())


def creation(name: str, query: str) -> str:
    return f"SELECT pgtrickle.create_stream_table('{name}', '{query}')"


@pytest.fixture(autouse=True)
def compiler(worker: Any) -> None:
    """SQL callers need one; it refreshes nothing, as everything here is to happen in turn."""


@pytest.fixture
def worker(database: Any) -> Iterator[Any]:
    made = Worker(database.dsn_of("pgtrickle_worker"), schedule=False)
    made.start()
    made.wait_for(lambda: made.is_active)
    yield made
    made.stop()


def one(conn: Connection, query: str, *values: Any) -> Any:
    row = conn.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def number(conn: Connection, name: str) -> int:
    return int(one(conn, "SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", name))


def moment(conn: Connection, name: str) -> list[int]:
    return [n for (n,) in conn.execute(f"SELECT DISTINCT n FROM {name}".encode())]


def run(
    conn: Connection,
    *names: str,
    companions: tuple[str, ...] = (),
    graph: int | None = None,
    quiet: dict[str, Any] | None = None,
) -> list[Any]:
    """As the worker does it, by the graph of now unless another is given."""
    graph = one(conn, GRAPH) if graph is None else graph
    group = [number(conn, name) for name in names], [number(conn, name) for name in companions]
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with conn.transaction():
            values = *group, graph, Jsonb(quiet or {})
            found = one(conn, "SELECT pgtrickle_changes.worker_refresh(%s, 'SCHEDULER', %s, %s, %s)", *values)
    finally:
        conn.isolation_level = None
    return list(found)


def test_a_group_put_together_before_a_creation_is_not_refreshed(clock: Connection) -> None:
    graph = one(clock, GRAPH)
    create(clock, "leaf", "SELECT n FROM root")
    clock.execute(TICK)
    assert run(clock, "root", graph=graph) == [{"pgt_id": number(clock, "root"), "outdated": True}]
    assert moment(clock, "root") == moment(clock, "leaf") == [0]
    run(clock, "root", "leaf")
    assert moment(clock, "root") == moment(clock, "leaf") == [1]


@pytest.mark.parametrize(
    "change",
    [
        "SELECT pgtrickle.alter_stream_table('leaf', query => 'SELECT n + 0 AS n FROM clock')",
        "SELECT pgtrickle.alter_stream_table('leaf', schedule => '1h')",
        "SELECT pgtrickle.suspend_stream_table('leaf')",
        "SELECT pgtrickle.drop_stream_table('leaf')",
        "SELECT pgtrickle.gate_source('clock')",
    ],
)
def test_what_changes_the_graph_changes_its_version(clock: Connection, change: str) -> None:
    create(clock, "leaf", "SELECT n FROM root")
    before = one(clock, GRAPH)
    clock.execute(change.encode())
    assert one(clock, GRAPH) != before


def test_a_companion_comes_along_if_the_snapshot_holds_something_for_it(clock: Connection) -> None:
    """It had nothing when the worker looked, and something when the snapshot was taken."""
    create(clock, "beside", "SELECT n + 0 AS n FROM clock WHERE id = 1")
    assert [found["pgt_id"] for found in run(clock, "root", companions=("beside",))] == [number(clock, "root")]
    clock.execute(TICK)
    found = {result["pgt_id"]: result["rows_in"] for result in run(clock, "root", companions=("beside",))}
    assert found == {number(clock, "root"): 4, number(clock, "beside"): 4}
    assert moment(clock, "root") == moment(clock, "beside") == [1]


def quiet(conn: Connection, source: str, *readers: str) -> dict[str, Any]:
    """A source whose mark the worker saw where it is now, everything in it being settled."""
    mark = (
        "SELECT jsonb_build_object(k, pgtrickle_changes.buffer_marks() -> k) FROM CAST(%s::regclass::oid AS text) AS k"
    )
    ((key, value),) = one(conn, mark, source).items()
    return {key: {"mark": value, "readers": [number(conn, name) for name in readers]}}


def test_a_companion_is_left_alone_until_the_mark_of_its_source_moves(clock: Connection, database: Any) -> None:
    clock.execute("CREATE TABLE other (n int)")
    create(clock, "beside", "SELECT n FROM other")
    create(clock, "above", "SELECT n FROM beside")
    seen = quiet(clock, "other", "beside", "above")
    clock.execute(TICK)
    with psycopg.connect(database.dsn) as holder:
        holder.execute("SELECT FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'beside' FOR NO KEY UPDATE")
        found = run(clock, "root", companions=("beside", "above"), quiet=seen)
        assert [result["pgt_id"] for result in found] == [number(clock, "root")]
    clock.execute("INSERT INTO other VALUES (1)")
    clock.execute(TICK)
    found = run(clock, "root", companions=("beside", "above"), quiet=seen)
    assert [result["pgt_id"] for result in found] == [number(clock, name) for name in ("root", "beside", "above")]


def test_a_companion_is_asked_where_the_buffer_of_its_source_cannot_be_read(clock: Connection, database: Any) -> None:
    clock.execute("CREATE TABLE other (n int)")
    create(clock, "beside", "SELECT n FROM other")
    values = [number(clock, "beside")], Jsonb(quiet(clock, "other", "beside"))
    assert one(clock, STIRRED, *values) == []
    sequence = one(
        clock, "SELECT sequence_relid::regclass FROM pgtrickle.pgt_captures WHERE source_relid = 'other'::regclass"
    )
    with psycopg.connect(database.dsn) as holder:
        holder.execute(f"ALTER SEQUENCE {sequence} CACHE 2".encode())
        assert one(clock, STIRRED, *values) == values[0]


def test_when_a_plan_is_stale_nobody_moves(clock: Connection) -> None:
    clock.execute("CREATE FUNCTION same(n int) RETURNS int IMMUTABLE RETURN n")
    create(clock, "beside", "SELECT public.same(n) AS n FROM clock")
    clock.execute("ALTER FUNCTION same STABLE")
    clock.execute(TICK)
    assert [(result["pgt_id"], result["stale_plan"]) for result in run(clock, "root", "beside")] == [
        (number(clock, "beside"), True)
    ]
    assert moment(clock, "root") == moment(clock, "beside") == [0]


def test_an_error_that_may_pass_by_itself_takes_the_group_back(clock: Connection) -> None:
    clock.execute(
        """CREATE FUNCTION moody(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$BEGIN IF n > 0 THEN RAISE SQLSTATE '40001'; END IF; RETURN n; END$$"""
    )
    create(clock, "moods", "SELECT public.moody(n) AS n FROM clock")
    clock.execute(TICK)
    with pytest.raises(psycopg.errors.SerializationFailure):
        run(clock, "root", "moods")
    assert moment(clock, "root") == moment(clock, "moods") == [0]


def stage(watch: Connection, database: Any, *names: str) -> Stage:
    return Stage(watch, {name: database.connect() for name in names})


def refresh_of(clock: Connection, *names: str) -> tuple[str, ...]:
    """A run of the worker's, from its snapshot to its end."""
    ids = [number(clock, name) for name in names]
    graph = one(clock, GRAPH)
    return (
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM clock",
        f"SELECT pgtrickle_changes.worker_refresh(ARRAY{ids}::bigint[], 'SCHEDULER', '{{}}', {graph})",
        "COMMIT",
    )


CHANGES = {
    "create": creation("leaf", "SELECT n + 0 AS n FROM root"),
    "alter": "SELECT pgtrickle.alter_stream_table('other', query => 'SELECT n + 1 AS n FROM root')",
}


@pytest.fixture
def behind(clock: Connection) -> Connection:
    """Everything is at 0, and the clock says 1; other shows 1 for ever, but for when it reads root."""
    create(clock, "known", "SELECT n FROM root")
    clock.execute("CREATE TABLE still AS SELECT 0 AS n")
    create(clock, "other", "SELECT n FROM still")
    clock.execute(TICK)
    return clock


def play(behind: Connection, database: Any, change: str, schedule: tuple[str, ...]) -> None:
    playing = stage(behind, database, "run", "change")
    steps = {"run": refresh_of(behind, "root", "known"), "change": ("BEGIN; " + CHANGES[change], "COMMIT")}
    try:
        for _ in playing.play(schedule, steps):
            check(behind)
        assert not playing.gave_up("run")
        assert not playing.gave_up("change")
        run(behind, "root", "known", companions=tuple({"leaf", "other"} & present(behind)))
        check(behind)
    finally:
        playing.close()


def present(conn: Connection) -> set[str]:
    return {name for (name,) in conn.execute("SELECT pgt_name FROM pgtrickle.pgt_stream_tables")}


def check(conn: Connection) -> None:
    """Whatever reads root shows what root shows.  What is being altered nobody sees."""
    conn.execute("SET lock_timeout = '20ms'")
    for name in present(conn) - {"root"}:
        query = one(conn, "SELECT defining_query FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", name)
        with suppress(psycopg.errors.LockNotAvailable):
            assert conn.execute(f"TABLE {name}".encode()).fetchall() == conn.execute(query.encode()).fetchall(), name
    conn.execute("RESET lock_timeout")


@pytest.mark.parametrize("schedule", [*interleavings({"run": 3, "change": 2})], ids=lambda s: "".join(w[0] for w in s))
@pytest.mark.parametrize("change", ["create"])
def test_who_begins_to_read_and_who_refreshes_go_in_one_order(
    behind: Connection, database: Any, change: str, schedule: tuple[str, ...]
) -> None:
    play(behind, database, change, schedule)


@pytest.mark.parametrize(
    "schedule",
    [
        tuple(order.split())
        for order in ("run change run change run", "change run run run change", "run run change change run")
    ],
)
def test_who_is_given_another_query_too(behind: Connection, database: Any, schedule: tuple[str, ...]) -> None:
    play(behind, database, "alter", schedule)


def test_a_creation_that_holds_nothing_still_would_be_noticed(behind: Connection, database: Any) -> None:
    behind.execute(
        """CREATE OR REPLACE FUNCTION pgtrickle_changes.hold_still(p_ids bigint[]) RETURNS void
           LANGUAGE sql AS 'SELECT'"""
    )
    with pytest.raises(AssertionError):
        play(behind, database, "create", ("run", "change", "run", "run", "change"))


GAP = "SELECT r.n AS n, c.n AS m FROM root AS r JOIN clock AS c USING (id)"


def refresh_while_the_clock_moves(clock: Connection, database: Any) -> list[tuple[int, int]]:
    """By hand, in READ COMMITTED: root is refreshed, then the clock moves, then what reads both is refreshed."""
    create(clock, "gap", GAP)
    holder = f"BEGIN; SELECT FROM pgtrickle.pgt_plans WHERE pgt_id = {number(clock, 'gap')} FOR UPDATE"
    steps = {
        "holder": (holder, "COMMIT"),
        "refresher": ("SELECT pgtrickle.refresh_stream_table('gap')",),
        "writer": (TICK,),
    }
    playing = stage(clock, database, *steps)
    try:
        for _ in playing.play(("holder", "refresher", "writer", "holder"), steps):
            pass
    finally:
        playing.close()
    return [(n, m) for n, m in clock.execute("SELECT n, m FROM gap")]


def test_by_hand_what_is_read_is_refreshed_to_the_same_moment(clock: Connection, database: Any) -> None:
    assert refresh_while_the_clock_moves(clock, database) == [(1, 1), (1, 1)]


def test_a_refresh_by_hand_that_does_not_look_again_would_be_noticed(clock: Connection, database: Any) -> None:
    clock.execute(
        """CREATE OR REPLACE FUNCTION pgtrickle_changes.have_moved(p_ids bigint[], p_snapshot pg_snapshot)
           RETURNS boolean LANGUAGE sql AS 'SELECT false'"""
    )
    assert refresh_while_the_clock_moves(clock, database) == [(0, 1), (0, 1)]
