from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from datetime import datetime

import pytest
from rich.console import Console

from pg_trickle.demo import screen
from pg_trickle.demo.measure import Figures, Late
from pg_trickle.demo.proof import Verdict
from pg_trickle.demo.replay import Written
from pg_trickle.demo.tables import STREAM_TABLES

NOW = datetime(2013, 10, 1, 23, 5)


def state() -> screen.State:
    figures = [
        Figures(table.name, table.shows, 345_678, 12_345, 12.3, 1234.5, 987.6, 123.4, 45.6, 1234.5)
        for table in STREAM_TABLES
    ]
    late = [Late(NOW, "ExpressJet Airlines Inc.", "EV", 4326, "EWR", "CLT", 155)] * 8
    counts = Counter(INSERT=123_456, UPDATE=234_567, DELETE=12_345)
    written = Written(rows=counts, transactions=123_456, clock=NOW)
    return screen.State(
        figures, written, 1234.0, 3599.0, 3600.0, "host=127.0.0.1 port=54321 dbname=flights user=x", late
    )


def lines(what: object, width: int, height: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (116, 34), (120, 40), (200, 50)])
@pytest.mark.parametrize("seconds", [3600.0, None])
def test_the_picture_fits_the_terminal_and_nothing_is_cut_off(width: int, height: int, seconds: float | None):
    drawn = lines(screen.picture(replace(state(), seconds=seconds), width, height), width, height)
    assert len(drawn) <= height
    assert max(map(len, drawn)) <= width
    text = "\n".join(drawn)
    assert "…" not in text.replace("SELECT …", "")
    for table in STREAM_TABLES:
        assert f" {table.name} " in text
    for figure in ("345,678", "12", "988", "46", "1,234", "27×", "New York, Tue 1 Oct 2013 23:05"):
        assert figure in text


def test_a_picture_can_be_drawn_before_anything_is_known():
    figures = [Figures(table.name, table.shows, 0, 0) for table in STREAM_TABLES]
    empty = screen.State(figures, Written(), 0.0, 0.0, 20.0, "dbname=flights")
    assert "–" in "\n".join(lines(screen.picture(empty, 80, 24), 80))
    assert "no lag measured yet" in screen.line(empty)


def test_a_line_says_it_all():
    assert screen.line(state()) == (
        "3599 s · Tue 1 Oct 2013 23:05 · 370,368 rows written (1,234/s) · lag 12 ms"
        " · refreshes 27 to 27 times cheaper than recomputing"
    )


def test_the_proof_shows_what_differs():
    drawn = lines(screen.verdicts([Verdict("good", 5, 0, 0), Verdict("bad", 6, 1, 2)]), 80)
    assert next(line for line in drawn if "good" in line).split()[-1] == "equal"
    assert next(line for line in drawn if "bad" in line).split() == ["bad", "6", "1", "2", "✘", "DIFFERENT"]
