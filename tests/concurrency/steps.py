"""Sessions that take turns: every order in which their steps can follow one another.

A step that waits for a lock is left waiting while the others go on.  Before the next turn everybody has come to
rest, done or waiting, so that a schedule always plays the same way.  A session whose step fails with an error that
a client has to expect (a serialization failure, a deadlock) rolls back and is done; any other error fails the test.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]
Schedule = tuple[str, ...]

TO_BE_EXPECTED = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
GLANCE_SECONDS = 0.005
PATIENCE_SECONDS = 60


def interleavings(sessions: Mapping[str, int]) -> Iterator[Schedule]:
    """All orders of the steps of sessions, given how many each has: whose turn it is."""
    if not any(sessions.values()):
        yield ()
    for name, left in sessions.items():
        if left:
            for rest in interleavings({**sessions, name: left - 1}):
                yield (name, *rest)


class Session:
    """A connection with a thread of its own, so that a step may wait."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.pid = conn.info.backend_pid
        self.gave_up = False
        self.error: BaseException | None = None
        self._steps: queue.Queue[str | None] = queue.Queue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, step: str) -> None:
        self._idle.clear()
        self._steps.put(step)

    def is_idle(self, timeout: float) -> bool:
        return self._idle.wait(timeout)

    def close(self) -> None:
        self._steps.put(None)
        self._thread.join(PATIENCE_SECONDS)

    def _work(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                if not self.gave_up:
                    self.conn.execute(step.encode())
            except TO_BE_EXPECTED:
                self.gave_up = True
                self.conn.execute("ROLLBACK")
            except psycopg.Error as exc:
                self.error = exc
            finally:
                if self._steps.empty():
                    self._idle.set()


class Stage:
    """Plays schedules: ``watch`` is a connection that sees who waits."""

    def __init__(self, watch: Connection, sessions: Mapping[str, Connection]) -> None:
        self.watch = watch
        self.sessions = {name: Session(conn) for name, conn in sessions.items()}

    def play(self, schedule: Schedule, steps: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
        """Carry out a schedule, yielding after every turn whose it was."""
        left = {name: iter(own) for name, own in steps.items()}
        for session in self.sessions.values():
            session.gave_up = False
        for name in schedule:
            self.sessions[name].submit(next(left[name]))
            self._settle()
            yield name
        for session in self.sessions.values():
            assert session.is_idle(PATIENCE_SECONDS), "a session waits although all the others are done"

    def gave_up(self, name: str) -> bool:
        return self.sessions[name].gave_up

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()

    def _settle(self) -> None:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not self._is_at_rest():
            assert time.monotonic() < give_up_at, "a session neither waits nor comes to an end"
        for session in self.sessions.values():
            if session.error is not None:
                raise session.error

    def _is_at_rest(self) -> bool:
        """Who is done is known before the others are asked: a lock that he had until then is in nobody's way."""
        busy = [one for one in self.sessions.values() if not one.is_idle(GLANCE_SECONDS)]
        return all(self._waits(one) for one in busy)

    def _waits(self, session: Session) -> bool:
        row = self.watch.execute("SELECT pg_blocking_pids(%s) <> '{}'", (session.pid,)).fetchone()
        return row == (True,)
