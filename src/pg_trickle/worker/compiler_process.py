"""The worker's end of the compiler's process: started when first needed, and anew when it had to be killed."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

from pg_trickle.errors import PgTrickleError, QueryTooComplex
from pg_trickle.worker.compiler import LIMIT_SECONDS, Answer, failure
from pg_trickle.worker.log import logger

# It keeps its time limit itself, unless it is stuck where it can't look at the clock.
PATIENCE_SECONDS = LIMIT_SECONDS + 5
LOOK_UP_EVERY_SECONDS = 0.1

log = logger("pg_trickle.worker.compiler")


def never() -> bool:
    return False


class CompilerProcess:
    """Answers compile requests, one at a time.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin now with what the first request would have to wait for."""
        with self._lock:
            self._running()

    def answer(self, text: str, *, give_up: Callable[[], bool] = never) -> Answer:
        """The answer to a request (JSON text); an error if the compiler can't give one, or if told to give up."""
        # A line is a request: JSON text needs no line breaks, but may have them.
        line = text.replace("\n", " ").replace("\r", " ").encode() + b"\n"
        with self._lock:
            try:
                found: Answer = json.loads(self._ask(line, give_up))
                return found
            except TimeoutError:
                self._kill()
                detail = f"Compiling it takes more than {LIMIT_SECONDS} seconds."
                return failure(QueryTooComplex("query is too complex", detail=detail, hint="Split it into several."))
            except (OSError, EOFError, ValueError) as exc:
                log.error("compiler crashed", error=type(exc).__name__)
                self._kill()
                hint = "This is a bug in pg_trickle. A simpler query may get around it."
                return failure(PgTrickleError("the compiler crashed on this query", hint=hint))

    def close(self) -> None:
        with self._lock:
            self._kill()

    def _ask(self, line: bytes, give_up: Callable[[], bool]) -> bytes:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        deadline = time.monotonic() + PATIENCE_SECONDS
        received = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if give_up() or time.monotonic() > deadline:
                    raise TimeoutError
                if selector.select(LOOK_UP_EVERY_SECONDS):
                    piece = os.read(process.stdout.fileno(), 1_000_000)
                    if not piece:
                        raise EOFError
                    received += piece
        return bytes(received)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._kill()
            # What libpq finds in the environment may be a password, and is nothing to the compiler.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pg_trickle.worker.compiler"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._process

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:  # closes the pipes and waits
                self._process = None


@cache
def shared() -> CompilerProcess:
    """The compiler of this program, however many workers it has."""
    made = CompilerProcess()
    atexit.register(made.close)
    return made
