"""Every order of writers, refreshers and cleaners: no change is lost, none counted twice, and nobody sees half of one.

Money moves between accounts and is written into a ledger in the same transaction.  So at every moment that
somebody can see, the total stays what it was, each account equals its entries (a stream table joined with the
table beside it), and the two arms of a diamond agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pg_trickle
from tests.concurrency.steps import Stage, interleavings
from tests.upkeep import check_states

Connection = psycopg.Connection[tuple[Any, ...]]

STREAMS = {
    "total": "SELECT sum(balance) AS s, count(*) AS n FROM account",
    "ledger": "SELECT account, sum(amount) AS s FROM entry GROUP BY account",
    "gaps": "SELECT a.id, a.balance - l.s AS gap FROM account AS a JOIN ledger AS l ON l.account = a.id",
    "arm": "SELECT branch, sum(balance) AS s FROM account GROUP BY branch",
    "other_arm": "SELECT branch, sum(balance) AS s, count(*) AS n FROM account GROUP BY branch HAVING count(*) > 0",
    "diamond": "SELECT arm.branch, arm.s - other_arm.s AS gap FROM arm JOIN other_arm USING (branch)",
}
WRONG = """
    SELECT 'total' FROM total WHERE (s, n) <> (400, 4)
    UNION ALL SELECT 'gaps' FROM gaps WHERE gap <> 0
    UNION ALL SELECT 'diamond' FROM diamond WHERE gap <> 0
"""
REFRESH = f"SELECT pgtrickle.refresh_stream_table(n) FROM unnest(ARRAY{[*STREAMS]}) AS n;"
# Within the transaction that refreshed: the moment it refreshed to.
VERIFY = f"""DO $$ BEGIN
    ASSERT (SELECT bool_and(v.ok) FROM unnest(ARRAY{[*STREAMS]}) AS n, pgtrickle.verify_stream_table(n) AS v), 'wrong';
    ASSERT NOT EXISTS ({WRONG}), 'a law is broken';
END $$;"""
CLEAN = "SELECT pgtrickle_changes.worker_housekeeping()"


def debit(account: int) -> str:
    return (
        f"UPDATE account SET balance = balance - 5 WHERE id = {account};"
        f" INSERT INTO entry (account, amount) VALUES ({account}, -5);"
    )


def credit(account: int) -> str:
    return (
        f"UPDATE account SET balance = balance + 5, branch = 1 - branch WHERE id = {account};"
        f" INSERT INTO entry (account, amount) VALUES ({account}, 5);"
    )


def begin(level: str) -> str:
    return f"BEGIN ISOLATION LEVEL {level};"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Sessions and their steps; who may be told to try again."""

    name: str
    steps: dict[str, tuple[str, ...]]
    may_give_up: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name


RC, RR, SER = "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"
WRITER = (begin(RC) + debit(1), credit(2) + "COMMIT")
OTHER = (begin(RC) + debit(3), credit(4) + "COMMIT")
AT_ONCE = (begin(RC) + debit(3) + credit(4) + "COMMIT",)


def snapshot_refresher(level: str) -> tuple[str, ...]:
    return begin(level) + "SELECT count(*) FROM account", REFRESH + VERIFY, "COMMIT"


SCENARIOS = [
    Scenario("refreshed by itself", {"one": WRITER, "two": OTHER, "refresher": (REFRESH, REFRESH)}),
    *(
        Scenario(
            f"refreshed in a {level.lower()} snapshot",
            {
                "one": (begin(level) + debit(1), credit(2) + "COMMIT"),
                "two": AT_ONCE,
                "refresher": snapshot_refresher(level),
            },
            frozenset({"one", "refresher"} if level == SER else {"refresher"}),
        )
        for level in (RR, SER)
    ),
    Scenario(
        "cleaned up meanwhile",
        {
            "one": WRITER,
            "refresher": (begin(RR) + "SELECT count(*) FROM entry", REFRESH + VERIFY + "COMMIT"),
            "cleaner": (CLEAN,),
        },
        frozenset({"refresher"}),
    ),
    Scenario(
        "a prepared transaction",
        {
            "one": (begin(RC) + debit(1) + credit(2) + "PREPARE TRANSACTION 'later'", "COMMIT PREPARED 'later'"),
            "two": AT_ONCE,
            "refresher": (REFRESH, REFRESH),
        },
    ),
    Scenario(
        "savepoints rolled back",
        {
            "one": (
                begin(RC) + debit(1) + "SAVEPOINT s;" + debit(2) + "UPDATE account SET branch = 7",
                "ROLLBACK TO s;" + credit(2),
                "COMMIT",
            ),
            "two": ("INSERT INTO entry (account, amount) VALUES (3, 1), (3, -1)",),
            "refresher": (REFRESH, REFRESH),
        },
    ),
    Scenario(
        "two refreshers",
        {
            "writer": WRITER,
            "first": snapshot_refresher(RR),
            "second": (begin(RC) + REFRESH + VERIFY + "COMMIT",),
        },
        frozenset({"first"}),
    ),
    *(
        Scenario(
            f"a {level.lower()} writer who refreshes",
            {
                "one": (
                    begin(level) + debit(1) + credit(2),
                    REFRESH + VERIFY,
                    debit(2) + credit(1),
                    REFRESH + VERIFY + "COMMIT",
                ),
                "two": AT_ONCE,
                "refresher": (REFRESH,),
            },
            frozenset() if level == RC else frozenset({"one"}),
        )
        for level in (RC, RR)
    ),
]


@pytest.fixture
def bank(db: Connection) -> Connection:
    db.execute("CREATE TABLE account (id int PRIMARY KEY, branch int NOT NULL, balance numeric(12, 2) NOT NULL)")
    db.execute(
        "CREATE TABLE entry (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int, amount numeric(12, 2))"
    )
    db.execute("INSERT INTO account SELECT n, n % 2, 100 FROM generate_series(1, 4) AS n")
    db.execute("INSERT INTO entry (account, amount) SELECT id, balance FROM account")
    for name, query in STREAMS.items():
        pg_trickle.create_stream_table(db, name, query, schedule=None)
    return db


@pytest.fixture
def stage(bank: Connection, database: Any, scenario: Scenario) -> Iterator[Stage]:
    made = Stage(bank, {name: database.connect() for name in scenario.steps})
    yield made
    made.close()


def play_all(bank: Connection, stage: Stage, scenario: Scenario) -> None:
    gave_up, plays = 0, 0
    for schedule in interleavings({name: len(own) for name, own in scenario.steps.items()}):
        for _ in stage.play(schedule, scenario.steps):
            assert bank.execute(WRONG).fetchall() == [], schedule
        for name in scenario.steps:
            assert name in scenario.may_give_up or not stage.gave_up(name), f"{name} was to try again in {schedule}"
            gave_up += stage.gave_up(name)
        plays += 1
        bank.execute(REFRESH)
        bank.execute(VERIFY)
    assert gave_up < plays, "hardly anything was carried out to its end"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_in_every_order(bank: Connection, stage: Stage, assert_fresh: Any, scenario: Scenario) -> None:
    play_all(bank, stage, scenario)
    for name in STREAMS:
        assert_fresh(bank, name)
        check_states(bank, name)


@pytest.mark.parametrize("scenario", SCENARIOS[:1], ids=str)
def test_a_frontier_that_is_just_the_last_transaction_would_be_noticed(
    bank: Connection, stage: Stage, scenario: Scenario
) -> None:
    """Whoever began before the last refresh and commits after it is overlooked."""
    bank.execute("""
        CREATE OR REPLACE FUNCTION pgtrickle_changes.new_rows(
                p_source oid, p_frontier text, p_xid text, p_seqs text,
                p_running text DEFAULT NULL, p_xmax text DEFAULT NULL)
            RETURNS text LANGUAGE sql AS $$ SELECT format('c.xid > %s', p_xid) $$""")
    assert bank.execute("SELECT count(*) FROM pg_proc WHERE proname = 'new_rows'").fetchone() == (1,)
    with pytest.raises((AssertionError, psycopg.errors.AssertFailure)):
        play_all(bank, stage, scenario)
