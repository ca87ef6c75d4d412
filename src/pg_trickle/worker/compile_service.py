"""The compiler as a service for SQL callers: takes their requests from the bridge and answers them.

Requests are compiled, nothing else: no text that comes in here is ever sent to the server by the worker.
"""

from __future__ import annotations

import threading

import psycopg

from pg_trickle.errors import PgTrickleError, QueryTooComplex
from pg_trickle.worker import retry
from pg_trickle.worker.compiler import failure
from pg_trickle.worker.compiler_process import CompilerProcess, shared
from pg_trickle.worker.gateway import Connection, Gateway, connect
from pg_trickle.worker.log import logger

LONGEST_REQUEST_BYTES = 4_000_000
REQUESTS_AT_ONCE = 16
# Between notifications, in case one was missed.
LOOK_EVERY_SECONDS = 0.25

log = logger("pg_trickle.worker.compile")


class CompileService:
    """A thread with a connection of its own that answers requests until it is told to stop."""

    def __init__(self, dsn: str, compiler: CompilerProcess | None = None) -> None:
        self._dsn = dsn
        self._compiler = compiler or shared()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pg_trickle compile", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        """Serve, and after any accident serve again: the one place where no error may get through."""
        self._compiler.start()
        failures = 0
        while not self._stopping.is_set():
            try:
                with connect(self._dsn) as connection:
                    failures = 0
                    self._serve(connection)
            except Exception as exc:
                failures += 1
                log.warning("compile service interrupted", error=type(exc).__name__, failures=failures)
                self._stopping.wait(retry.delay(failures, jitter=0.0))

    def _serve(self, connection: Connection) -> None:
        gateway = Gateway(connection)
        connection.execute("LISTEN pgtrickle_bridge")
        while not self._stopping.is_set():
            taken = gateway.take_requests(most=REQUESTS_AT_ONCE, longest=LONGEST_REQUEST_BYTES)
            for request, text in taken:
                self._answer(gateway, request, text)
            if not taken:
                # A flood of notifications is one reason to look, however many there are.
                for _ in connection.notifies(timeout=LOOK_EVERY_SECONDS, stop_after=1):
                    pass

    def _answer(self, gateway: Gateway, request: int, text: str | None) -> None:
        if text is None:
            detail = f"Requests of more than {LONGEST_REQUEST_BYTES} bytes are refused."
            found = failure(QueryTooComplex("query is too complex", detail=detail, hint="Split it into several."))
        else:
            found = self._compiler.answer(text, give_up=self._stopping.is_set)
        try:
            gateway.answer(request, plan=found["plan"], error=found["error"])
        except psycopg.DataError:
            # Such as a plan or a message with a NUL character, which jsonb can't hold.
            unusable = PgTrickleError("the compiler's answer can't be stored", hint="Use plainer names and literals.")
            gateway.answer(request, plan=None, error=unusable.to_json())
        log.info("request answered", request=request, sqlstate=found["error"] and found["error"]["sqlstate"])
