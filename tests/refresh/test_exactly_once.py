"""Every committed change is applied once, whatever commits in whatever order."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

import pg_trickle
from pg_trickle.testing.process import wait_until

Connection = psycopg.Connection[tuple[Any, ...]]
Oracle = Callable[[Connection, str], None]

NAMES = ("kept", "sums", "bag", "top")
REFRESH_ALL = "SELECT pgtrickle.refresh_stream_table(n) FROM unnest(ARRAY['kept', 'top', 'bag']) AS n"

pytestmark = pytest.mark.versions


@pytest.fixture
def shop(db: Connection) -> Connection:
    """A filter by key, a grouped sum, a bag, and a stream table on another one."""
    db.execute("CREATE TABLE t (id int PRIMARY KEY, k int, v int)")
    db.execute("INSERT INTO t SELECT n, n % 4, n FROM generate_series(1, 20) AS n")
    for name, query in (
        ("kept", "SELECT id, v FROM t WHERE v > 5"),
        ("sums", "SELECT k, count(*) AS n, sum(v) AS s, max(v) AS m FROM t GROUP BY k"),
        ("bag", "SELECT k FROM t"),
        ("top", "SELECT n, count(*) AS groups FROM sums GROUP BY n"),
    ):
        pg_trickle.create_stream_table(db, name, query, schedule=None)
    return db


@pytest.fixture
def fresh(shop: Connection, assert_fresh: Oracle) -> Iterator[Callable[[], None]]:
    """Refresh all and compare; once more at the end of the test."""

    def fresh() -> None:
        shop.execute(REFRESH_ALL)
        for name in NAMES:
            assert_fresh(shop, name)

    yield fresh
    fresh()


def last(db: Connection, name: str) -> tuple[Any, ...]:
    row = db.execute(
        """SELECT refresh_mode, rows_in, rows_out, reason FROM pgtrickle.pgt_refresh_history
            WHERE pgt_name = %s ORDER BY refresh_id DESC LIMIT 1""",
        (name,),
    ).fetchone()
    assert row is not None
    return row


def test_a_transaction_that_commits_after_a_refresh_is_not_lost(
    shop: Connection, database: Any, fresh: Callable[[], None]
) -> None:
    early = database.connect(autocommit=False)
    early.execute("INSERT INTO t VALUES (100, 1, 100)")
    shop.execute("INSERT INTO t VALUES (101, 1, 101)")
    fresh()
    early.execute("INSERT INTO t VALUES (102, 1, 102)")
    shop.execute("UPDATE t SET v = v + 1 WHERE id = 101")
    fresh()
    early.commit()
    fresh()
    assert last(shop, "kept")[:2] == ("DIFFERENTIAL", 2)


def test_transactions_that_commit_in_reverse_order(shop: Connection, database: Any, fresh: Callable[[], None]) -> None:
    writers = [database.connect(autocommit=False) for _ in range(4)]
    for number, writer in enumerate(writers):
        writer.execute("INSERT INTO t VALUES (%s, 9, 50)", (200 + number,))
    for writer in reversed(writers):
        writer.commit()
        fresh()
        assert last(shop, "kept")[:3] == ("DIFFERENTIAL", 1, 1)


def quiet(db: Connection, name: str) -> bool:
    """Whether the next refresh will not even look into the buffers, if they are no further."""
    row = db.execute(
        "SELECT quiet_at IS NOT NULL FROM pgtrickle.pgt_stream_tables WHERE pgt_name = %s", (name,)
    ).fetchone()
    assert row is not None
    return bool(row[0])


def test_buffers_are_passed_by_only_when_nobody_is_under_way(
    shop: Connection, database: Any, fresh: Callable[[], None]
) -> None:
    refresh = "SELECT pgtrickle.refresh_stream_table('kept')"
    shop.execute("INSERT INTO t VALUES (101, 1, 101)")
    shop.execute(refresh)
    assert not quiet(shop, "kept")
    shop.execute(refresh)
    assert quiet(shop, "kept")

    # Its number is drawn, and no snapshot lists it: it is the youngest transaction.
    late = database.connect(autocommit=False)
    late.execute("INSERT INTO t VALUES (102, 1, 102)")
    shop.execute("INSERT INTO t VALUES (103, 1, 103)")
    for _ in range(3):
        shop.execute(refresh)
        assert not quiet(shop, "kept")
    late.commit()
    shop.execute(refresh)
    assert last(shop, "kept")[:2] == ("DIFFERENTIAL", 1)

    # What a transaction's own number tells is how things were when it was assigned.
    old, busy = (database.connect(autocommit=False) for _ in range(2))
    old.execute("INSERT INTO t VALUES (104, 1, 1)")
    busy.execute("INSERT INTO t VALUES (105, 1, 105)")
    shop.execute(refresh)
    old.execute(refresh)
    old.execute("DELETE FROM t WHERE id = 104")
    old.execute(refresh)
    old.execute(refresh)
    assert not quiet(old, "kept")
    old.commit()
    busy.commit()
    fresh()


def test_who_waits_for_a_refresh_has_a_younger_number_than_those_who_wrote_meanwhile(
    shop: Connection, database: Any, fresh: Callable[[], None]
) -> None:
    """What is_quiet rests on: PostgreSQL gives a transaction that waits for a row its number behind the lock."""
    shop.execute("INSERT INTO t VALUES (101, 1, 101)")
    holder, late, waiter = (database.connect(autocommit=False) for _ in range(3))
    holder.execute(
        "SELECT pgtrickle_changes.lock_stream_table(pgt_id) FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'kept'"
    )

    def wait() -> None:
        waiter.execute("SELECT pgtrickle.refresh_stream_table('kept')")
        waiter.commit()

    waiting = threading.Thread(target=wait)
    waiting.start()
    blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    assert wait_until(lambda: shop.execute(blocked, (waiter.info.backend_pid,)).fetchone() == (True,), 60)
    late.execute("INSERT INTO t VALUES (102, 1, 102)")
    holder.execute("SELECT pgtrickle.refresh_stream_table('kept')")
    holder.commit()
    waiting.join()
    assert last(shop, "kept")[1:3] == (0, 0)
    assert not quiet(shop, "kept")
    late.commit()
    fresh()


def test_a_prepared_transaction_is_applied_when_it_commits(
    shop: Connection, database: Any, fresh: Callable[[], None]
) -> None:
    shop.execute("BEGIN; INSERT INTO t VALUES (300, 1, 300); PREPARE TRANSACTION 'later'")
    shop.execute("INSERT INTO t VALUES (301, 1, 301)")
    fresh()
    shop.execute("COMMIT PREPARED 'later'")
    fresh()


@pytest.mark.parametrize(
    "level", [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
)
def test_writes_and_refreshes_in_one_transaction(
    shop: Connection, database: Any, fresh: Callable[[], None], assert_fresh: Oracle, level: IsolationLevel
) -> None:
    conn = database.connect(autocommit=False)
    conn.isolation_level = level
    for step in range(3):
        conn.execute("INSERT INTO t VALUES (%s, 1, 40)", (400 + step,))
        conn.execute("SAVEPOINT undone")
        conn.execute("UPDATE t SET v = v * 2, k = 7 WHERE id % 3 = 0")
        conn.execute(REFRESH_ALL)
        conn.execute("ROLLBACK TO undone")
        conn.execute("DELETE FROM t WHERE id = %s", (step + 1,))
        conn.execute(REFRESH_ALL)
        for name in NAMES:
            assert_fresh(conn, name)
    conn.execute("INSERT INTO t VALUES (499, 1, 40)")
    conn.commit()
    fresh()


def test_a_refresh_that_is_rolled_back_leaves_its_changes(
    shop: Connection, database: Any, fresh: Callable[[], None]
) -> None:
    shop.execute("UPDATE t SET v = v + 100 WHERE id < 5")
    conn = database.connect(autocommit=False)
    conn.execute("INSERT INTO t VALUES (500, 1, 1000)")
    conn.execute(REFRESH_ALL)
    conn.rollback()
    fresh()
    assert last(shop, "kept")[:2] == ("DIFFERENTIAL", 8)


def test_a_snapshot_older_than_the_last_refresh_is_a_conflict(shop: Connection, database: Any) -> None:
    conn = database.connect(autocommit=False)
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    conn.execute("SELECT count(*) FROM t")
    shop.execute("INSERT INTO t VALUES (600, 1, 60)")
    shop.execute(REFRESH_ALL)
    with pytest.raises(psycopg.errors.SerializationFailure):
        conn.execute(REFRESH_ALL)


def test_created_in_a_snapshot_older_than_its_capture(shop: Connection, database: Any, assert_fresh: Oracle) -> None:
    """What was written between the snapshot and the triggers is in neither, until it is computed once more."""
    shop.execute("CREATE TABLE u (a int); INSERT INTO u VALUES (1)")
    conn = database.connect(autocommit=False)
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    conn.execute("SELECT count(*) FROM u")
    shop.execute("INSERT INTO u VALUES (2)")
    pg_trickle.create_stream_table(conn, "young", "SELECT a FROM u", schedule=None)
    assert conn.execute("SELECT count(*) FROM young").fetchone() == (1,)
    conn.commit()
    shop.execute("SELECT pgtrickle.refresh_stream_table('young')")
    assert_fresh(shop, "young")


def test_a_key_that_another_transaction_has_deleted_since_the_snapshot(
    shop: Connection, database: Any, fresh: Callable[[], None]
) -> None:
    """In REPEATABLE READ both rows of that key are visible to the one who inserted it again."""
    conn = database.connect(autocommit=False)
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    conn.execute("SELECT count(*) FROM t")
    shop.execute("DELETE FROM t WHERE id = 10")
    conn.execute("INSERT INTO t VALUES (10, 3, 77)")
    conn.execute("SELECT pgtrickle.refresh_stream_table('kept'), pgtrickle.refresh_stream_table('top')")
    conn.commit()
    fresh()


def test_a_source_that_changes_during_a_refresh(shop: Connection, database: Any, fresh: Callable[[], None]) -> None:
    """The query's own function commits changes elsewhere, twice: the refresh has to begin again."""
    shop.execute("CREATE EXTENSION dblink; CREATE SEQUENCE calls")
    shop.execute(
        f"""CREATE FUNCTION meddle(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
           BEGIN
               IF v = 999 AND nextval('public.calls') <= 2 THEN
                   PERFORM public.dblink_exec(
                       '{database.dsn}', 'INSERT INTO t VALUES (' || 700 + currval('public.calls') || ', 1, 5)');
               END IF;
               RETURN v;
           END $$""".encode()
    )
    pg_trickle.create_stream_table(shop, "meddled", "SELECT id, meddle(v) AS v FROM t", schedule=None)
    shop.execute("INSERT INTO t VALUES (999, 1, 999)")
    shop.execute("SELECT pgtrickle.refresh_stream_table('meddled')")
    assert last(shop, "meddled")[0] == "DIFFERENTIAL"
    assert shop.execute("SELECT count(*) FROM t WHERE id BETWEEN 700 AND 710").fetchone() == (2,)
    assert shop.execute("TABLE meddled EXCEPT SELECT id, v FROM t").fetchall() == []
    assert shop.execute("SELECT id, v FROM t EXCEPT TABLE meddled").fetchall() == []


def write(cursor: psycopg.Cursor[tuple[Any, ...]], dice: random.Random) -> None:
    low = dice.randint(1, 40)
    statement, values = dice.choice(
        [
            (
                "INSERT INTO t VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET k = excluded.k, v = excluded.v",
                (low, dice.choice([None, 1, 2]), dice.choice([None, 3, 30])),
            ),
            ("UPDATE t SET k = %s WHERE id BETWEEN %s AND %s", (dice.randint(0, 3), low, low + 4)),
            ("UPDATE t SET v = v + %s WHERE id BETWEEN %s AND %s", (dice.choice([-20, 0, 20]), low, low + 4)),
            ("DELETE FROM t WHERE id BETWEEN %s AND %s", (low, low + 2)),
        ]
    )
    cursor.execute(statement.encode(), values)


CONFLICTS = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


def write_at_random(conn: Connection, seed: int, stop: threading.Event) -> None:
    """Transactions of a few statements, some with savepoints, some refreshing, some rolled back."""
    dice = random.Random(seed)
    while not stop.is_set():
        conn.isolation_level = dice.choice([IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ])
        try:
            with conn.transaction(force_rollback=dice.random() < 0.15), conn.cursor() as cursor:
                for _ in range(dice.randint(1, 4)):
                    write(cursor, dice)
                    with conn.transaction(force_rollback=dice.random() < 0.5):
                        write(cursor, dice)
                    if dice.random() < 0.1:
                        cursor.execute("SELECT pgtrickle_changes.refresh(1, 'MANUAL')")
                    stop.wait(dice.random() / 100)
        except CONFLICTS:
            pass


def refresh_at_random(conn: Connection, seed: int, stop: threading.Event, wrong: list[object]) -> None:
    """Groups in one snapshot, as the worker does it; each must equal its query in that snapshot."""
    dice = random.Random(seed)
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    while not stop.is_set():
        try:
            with conn.transaction(force_rollback=dice.random() < 0.1):
                group = dice.choice([[1, 2, 3, 4], [2, 4], [3], [1]])
                (results,) = conn.execute(
                    "SELECT pgtrickle_changes.worker_refresh(%s::bigint[], 'SCHEDULER')", (group,)
                ).fetchone() or ([],)
                for result in results:
                    if result["error"] is not None:
                        if result["error"]["sqlstate"] not in {"40001", "40P01"}:
                            wrong.append(result)
                    elif result["skipped"] is None:
                        (verdict,) = conn.execute(
                            "SELECT pgtrickle_changes.verify(%s)", (result["pgt_id"],)
                        ).fetchone() or ({},)
                        if verdict != {"missing": 0, "extra": 0}:
                            wrong.append((result, verdict))
        except CONFLICTS:
            pass


@pytest.mark.property
@pytest.mark.parametrize("seed", [1, 2])
def test_random_writers_refreshers_and_cleaners(
    shop: Connection, database: Any, fresh: Callable[[], None], seed: int
) -> None:
    stop = threading.Event()
    wrong: list[object] = []

    def clean(conn: Connection) -> None:
        while not stop.is_set():
            conn.execute("SELECT pgtrickle_changes.worker_housekeeping(), pgtrickle_changes.worker_drain_wal(NULL)")
            stop.wait(0.02)

    threads = [
        *(
            threading.Thread(target=write_at_random, args=(database.connect(), 10 * seed + number, stop))
            for number in range(3)
        ),
        threading.Thread(target=refresh_at_random, args=(database.connect(), seed, stop, wrong)),
        threading.Thread(target=clean, args=(database.connect(),)),
    ]
    for thread in threads:
        thread.start()
    stop.wait(4)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    fresh()
