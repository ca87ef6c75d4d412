"""S45: the monitoring tutorial's alerts are about metrics that a running worker really exports."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pg_trickle
from pg_trickle.worker.exporter import Exporter

Connection = psycopg.Connection[tuple[Any, ...]]

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "monitoring.md"
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
METRIC = re.compile(r"\bpgtrickle_\w+")


def rules() -> dict[str, str]:
    """The alerts and their expressions; each on a line of its own, so that it takes no YAML parser to find them."""
    text = "".join(YAML.findall(TUTORIAL.read_text()))
    found = dict(re.findall(r"^ +- alert: (\w+)\n +expr: (.+)$", text, re.MULTILINE))
    assert len(found) == text.count("alert:") == text.count("expr:"), "a rule that is written in another way"
    return found


def exported(port: int) -> set[str]:
    """The names of the samples on a worker's page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    return set(re.findall(r"^(pgtrickle_\w+)(?=[{ ])", page, re.MULTILINE))


def unknown(names: set[str]) -> dict[str, set[str]]:
    """The rules that name something else, and what."""
    wrong = {alert: set(METRIC.findall(expression)) - names for alert, expression in rules().items()}
    return {alert: missing for alert, missing in wrong.items() if missing}


@pytest.fixture
def port(db: Connection, worker: Any) -> Iterator[int]:
    """Where a worker, with a stream table and a failing one, serves its metrics."""
    db.execute("CREATE TABLE t (a int PRIMARY KEY, b int)")
    pg_trickle.create_stream_table(db, "st", "SELECT a, b FROM t")
    pg_trickle.create_stream_table(db, "bad", "SELECT a, 1 / b AS c FROM t")
    db.execute("INSERT INTO t VALUES (1, 0)")
    worker.wait_for(lambda: db.execute("TABLE st").fetchall() == [(1, 0)])
    failed = "SELECT FROM pgtrickle.pgt_refresh_history WHERE NOT success"
    worker.wait_for(lambda: db.execute(failed).rowcount > 0)
    exporter = Exporter(worker.metrics, 0)
    exporter.start()
    yield exporter.port
    exporter.stop()


def test_s45_every_alert_is_about_metrics_that_the_worker_exports(port: int) -> None:
    names = exported(port)
    assert len(rules()) >= 9
    assert unknown(names) == {}
    for name in set().union(*map(METRIC.findall, rules().values())):
        assert unknown(names - {name}), f"nobody would notice that {name} was renamed"


def test_s45_what_the_tutorial_lists_is_what_there_is(port: int) -> None:
    table = [line for line in TUTORIAL.read_text().splitlines() if line.startswith("| `pgtrickle_")]
    listed = set(METRIC.findall("\n".join(line.split("|")[1] for line in table)))
    histogram = re.compile(r"(_bucket|_sum|_count)$")
    assert {histogram.sub("", name) for name in exported(port)} == listed
