"""Reading the WAL as it is written, apart from the refreshes: what it puts into the change buffers wakes them."""

from __future__ import annotations

import threading

import psycopg

from pg_trickle.worker.gateway import Gateway, connect
from pg_trickle.worker.log import logger

# How long to wait between two looks: while changes are captured from the WAL, and while none are, or none can be.
PACE_SECONDS = 0.02
IDLE_SECONDS = 1.0

log = logger("pg_trickle.worker.drain")


class Drainer:
    """A thread with a connection of its own that calls ``worker_drain_wal`` until it is told to stop."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._trouble: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pg_trickle drain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with connect(self._dsn) as connection:
                    self._drain(Gateway(connection))
            except psycopg.Error as exc:
                log.warning("reading the WAL interrupted", sqlstate=exc.sqlstate)
            self._stopping.wait(IDLE_SECONDS)

    def _drain(self, gateway: Gateway) -> None:
        known: str | None = None
        while not self._stopping.is_set():
            drained = gateway.drain_wal(known)
            if drained and drained.lsn != known:
                gateway.restore()
            trouble = drained.trouble if drained else None
            if trouble and trouble != self._trouble:
                log.warning("nothing can be captured from the WAL", trouble=trouble)
            self._trouble = trouble
            known = drained.lsn if drained and not trouble else None
            self._stopping.wait(PACE_SECONDS if known else IDLE_SECONDS)
