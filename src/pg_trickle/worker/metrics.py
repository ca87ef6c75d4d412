"""What the worker tells Prometheus: how the database's stream tables are, and what it has done.

Names of schemas, tables, roles and checks, and numbers: no value of a row, no text of a query or an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import psycopg

from pg_trickle.worker.exposition import Family, Labels, Sample, text
from pg_trickle.worker.gateway import Gateway, connect
from pg_trickle.worker.log import logger
from pg_trickle.worker.tally import Tally

STATEMENT_SECONDS = 5
SEVERITIES = {"OK": 0, "WARN": 1, "ERROR": 2}

Item = Mapping[str, Any]

log = logger("pg_trickle.worker.metrics")

# name, what it is, and the key of a stream table's facts that holds it.
OF_STREAM_TABLES = (
    ("pgtrickle_stream_table_active", "Whether its status is ACTIVE.", "active"),
    ("pgtrickle_stream_table_populated", "Whether it was ever filled.", "populated"),
    ("pgtrickle_stream_table_needs_reinit", "Whether its next refresh computes it afresh.", "needs_reinit"),
    ("pgtrickle_stream_table_behind_schedule", "Whether it is staler than its schedule allows.", "stale"),
    ("pgtrickle_stream_table_fuse_blown", "Whether its fuse has blown.", "fuse_blown"),
    ("pgtrickle_staleness_seconds", "The age of the moment that it reflects.", "staleness"),
    ("pgtrickle_last_refresh_timestamp_seconds", "When it was last refreshed (Unix time).", "last_refresh"),
    ("pgtrickle_consecutive_errors", "How many of its refreshes have failed in a row.", "errors"),
)
OF_CAPTURES = (
    ("pgtrickle_buffer_bytes", "The size on disk of a source's change buffer.", "bytes"),
    ("pgtrickle_buffer_rows", "About how many rows it holds, consumed ones included.", "rows"),
    ("pgtrickle_capture_intact", "Whether triggers, functions and buffer are as they were made.", "intact"),
)


@dataclass(slots=True)
class Metrics:
    """The metrics of one worker, read from the database at each call of ``page``."""

    dsn: str
    tally: Tally
    is_active: Callable[[], bool]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _gateway: Gateway | None = None

    def page(self) -> str:
        """Everything in Prometheus' text format.  One caller at a time; that the server doesn't answer is a value."""
        with self._lock:
            found = self._ask()
        families = [
            _gauge("pgtrickle_up", "Whether the server answered just now.", [Sample(found is not None)]),
            _gauge("pgtrickle_info", "Versions.", [Sample(1, (("version", metadata.version("pg_trickle")),))]),
            _gauge("pgtrickle_worker_active", "Whether this is the worker at work.", [Sample(self.is_active())]),
        ]
        return text(families if found is None else [*families, *_families(found, self.tally)])

    def close(self) -> None:
        """Give up the connection."""
        with self._lock:
            self._disconnect()

    def _ask(self) -> Item | None:
        try:
            if self._gateway is None:
                self._gateway = Gateway(connect(self.dsn, statement_seconds=STATEMENT_SECONDS))
            found: Item = self._gateway.metrics()
            return found
        except psycopg.Error as exc:
            log.warning("metrics not read", sqlstate=exc.sqlstate)
            self._disconnect()
            return None

    def _disconnect(self) -> None:
        if self._gateway is not None:
            self._gateway.connection.close()
            self._gateway = None


def _families(found: Item, tally: Tally) -> Iterable[Family]:
    tables: dict[int, Labels] = {one["id"]: _labels(one, "schema", "name") for one in found["stream_tables"]}
    for name, words, key in OF_STREAM_TABLES:
        known = [one for one in found["stream_tables"] if one[key] is not None]
        yield _gauge(name, words, [Sample(float(one[key]), tables[one["id"]]) for one in known])
    for name, words, key in OF_CAPTURES:
        samples = [Sample(float(one[key]), _labels(one, "schema", "name", "owner")) for one in found["captures"]]
        yield _gauge(name, words, samples)
    checks = [Sample(SEVERITIES[one["severity"]], _labels(one, "check")) for one in found["health"]]
    yield _gauge("pgtrickle_health_severity", "health_check(): 0 OK, 1 WARN, 2 ERROR.", checks)
    yield from tally.families(tables.get)


def _labels(one: Item, *names: str) -> Labels:
    return tuple((name, str(one[name])) for name in names)


def _gauge(name: str, words: str, samples: Iterable[Sample]) -> Family:
    return Family(name, "gauge", words, tuple(samples))
