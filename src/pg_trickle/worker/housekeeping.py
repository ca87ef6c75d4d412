"""Tidying up every few seconds, apart from the refreshes so that neither waits for the other."""

from __future__ import annotations

import threading

import psycopg

from pg_trickle.worker.gateway import Gateway, connect
from pg_trickle.worker.log import logger

log = logger("pg_trickle.worker.housekeeping")


class Housekeeper:
    """A thread with a connection of its own that calls ``worker_housekeeping`` until it is told to stop."""

    def __init__(self, dsn: str, *, every_seconds: float) -> None:
        self._dsn = dsn
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pg_trickle housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            try:
                with connect(self._dsn) as connection:
                    gateway = Gateway(connection)
                    while not self._stopping.is_set():
                        for place, sqlstate in gateway.housekeeping():
                            log.warning("housekeeping left something undone", place=place, sqlstate=sqlstate)
                        self._stopping.wait(self._every_seconds)
            except psycopg.Error as exc:
                log.warning("housekeeping interrupted", sqlstate=exc.sqlstate)
