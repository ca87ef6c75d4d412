"""Schedules: what is one, what is none, and when it comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cronsim import CronSim, CronSimError

import pg_trickle
from tests.definition.conftest import Connection, Fails

SCHEDULES = [
    ("30s", 30),
    ("1h30m", 5400),
    ("1h 30m", 5400),
    ("2w", 1209600),
    ("90", 90),
    ("1.5", 1.5),
    (" 5m ", 300),
    ("calculated", None),
    ("CALCULATED", None),
    (None, None),
    ("*/5 * * * *", None),
    ("0 0 1,15 * MON-FRI", None),
    ("30 0 12 * * 0", None),
    ("0 12 L * *", None),
    ("0 12 * JAN-MAR 1#2", None),
    ("@hourly", None),
    ("@Daily", None),
]


def test_schedules(shop: Any, author: Connection) -> None:
    pg_trickle.create_stream_table(author, "st", "SELECT id FROM orders", initialize=False)
    for schedule, seconds in SCHEDULES:
        pg_trickle.create_or_replace_stream_table(author, "st", "SELECT id FROM orders", schedule=schedule)
        row = shop.catalog("st")
        assert row["schedule_seconds"] == seconds, schedule
        assert row["schedule"] == (schedule and (schedule.lower() if schedule[0] in "cC@" else schedule).strip())


BAD_SCHEDULES = [
    "", " ", "0", "0.5", "0s", "-5", "5x", "s", "1m30", "5 m", "1e3", "NaN", "infinity", "@sometimes", "@", "* * * *",
    "* * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 * ", "* * * * 8", "5-1 * * * *",
    "*/0 * * * *", "a b c d e", "1,,2 * * * *", "* * * * MONDAY", "' OR 1=1 --", "* * * * *;",
    "0 0 30 2 *", "0 0 31 4,FEB *", "0 0 0 31 9-11/2 */2",
]  # fmt: skip


def test_a_day_that_never_comes_is_told_as_the_worker_understands_it(db: Connection) -> None:
    expressions = [
        f"0 0 {day} {month} {weekday}"
        for day in ("1", "29", "30", "31", "30,31", "29-31", "30/1", "L", "31,L", "*")
        for month in ("2", "FEB", "4", "2,4", "1-2", "2-4", "9-11/2", "9/2", "2,12", "*/3", "*")
        for weekday in ("*", "*/2", "1", "MON-FRI")
    ]
    found = db.execute("SELECT e, pgtrickle_changes.is_cron(e) FROM unnest(%s::text[]) AS e", (expressions,)).fetchall()
    assert dict(found) == {text: _comes(text) for text in expressions}


def _comes(expression: str) -> bool:
    try:
        CronSim(expression, datetime.fromtimestamp(0, UTC))
    except CronSimError:
        return False
    return True


def test_bad_schedules(shop: Any, author: Connection, fails: Fails) -> None:
    for schedule in BAD_SCHEDULES:
        error = fails("22023", pg_trickle.create_stream_table, author, "st", "SELECT id FROM orders", schedule=schedule)
        assert error.diag.message_hint, schedule
    assert shop.traces() == []
