"""A script that is wrong fails, and for the right reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.traps.runner import Runner
from tests.traps.script import Script

TABLE = "CREATE TABLE t (id int PRIMARY KEY, g int); INSERT INTO t VALUES (1, 1), (2, 1);"
STREAM = "STREAM st AS SELECT g, count(*) AS n FROM t GROUP BY g;"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("REFRESH;", "proves nothing"),
        (f"{TABLE} {STREAM} UPDATE st SET n = 7; REFRESH;", "differs from its query"),
        (f"{TABLE} {STREAM} TRUNCATE t; REFRESH;", "st was recomputed"),
        (f"{TABLE} {STREAM} CREATE TABLE s (LIKE st); FAILS '42P07' CREATE TABLE s2 (LIKE st);", "DID NOT RAISE"),
    ],
)
def test_what_is_wrong_is_seen(database: Any, text: str, complaint: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=complaint):
        Runner(database.connect).run(Script("test", ("A1",), "wrong", text))


def test_a_query_without_rules_is_no_stream_unless_it_says_so(database: Any) -> None:
    query = "AS SELECT g, n FROM (SELECT g, random() AS n FROM t) AS r WHERE n < 0;"
    text = f"{TABLE} FAILS '0A000' STREAM st {query} STREAM FULL st {query}"
    Runner(database.connect).run(Script("test", ("T18",), "refused, then recomputed", text))


def test_other_sessions_take_part(database: Any) -> None:
    text = f"{TABLE} {STREAM} ON b: BEGIN; ON b: INSERT INTO t VALUES (3, 2); REFRESH; ON b: COMMIT; REFRESH;"
    Runner(database.connect).run(Script("test", ("F1",), "other sessions", text))
