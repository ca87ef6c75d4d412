"""The compiler as a program of its own: a request a line in, an answer a line out.

Apart from the worker, because a query can be made to take very long, or all memory, or to crash a parser
written in C; and because it needs neither the worker's connections nor its time.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from pg_trickle.catalog.model import CompileRequest
from pg_trickle.compile import compile as compile_query
from pg_trickle.errors import InvalidDefinition, PgTrickleError, QueryTooComplex
from pg_trickle.worker import log

# An SQL caller waits for half a minute.
LIMIT_SECONDS = 20
LIMIT_BYTES = 2 * 1024**3

Answer = dict[str, Any]
Compile = Callable[[CompileRequest], dict[str, Any]]

_log = log.logger("pg_trickle.worker.compiler")


class TooSlow(BaseException):
    """Time is up.  Not an Exception, so that nothing in the compiler takes it for an error of its own."""


def compile_to_json(request: CompileRequest) -> dict[str, Any]:
    plan: dict[str, Any] = compile_query(request).to_json()
    return plan


def failure(error: PgTrickleError) -> Answer:
    return {"plan": None, "error": error.to_json()}


def answer(text: str | bytes, compile_request: Compile = compile_to_json) -> Answer:
    """``{plan, error}``, one of them null, whatever the request is: anything that goes wrong is an answer too."""
    try:
        request = json.loads(text)
        if not isinstance(request, dict):
            raise InvalidDefinition("malformed compile request", detail="A JSON object was expected.")
        return {"plan": compile_request(CompileRequest.from_json(request)), "error": None}
    except PgTrickleError as exc:
        return failure(exc)
    except json.JSONDecodeError:
        return failure(InvalidDefinition("malformed compile request", detail="It is not JSON."))
    except (RecursionError, MemoryError):
        return failure(QueryTooComplex("query is too complex", detail="It is nested too deeply.", hint="Split it."))
    except Exception as exc:
        _log.exception("compiler failed", error=type(exc).__name__)
        detail = f"{type(exc).__name__} in the compiler; the worker's log has more."
        hint = "This is a bug in pg_trickle. A simpler query may get around it."
        return failure(PgTrickleError("the compiler failed on this query", detail=detail, hint=hint))


def answer_in_time(text: str | bytes, seconds: float, compile_request: Compile = compile_to_json) -> Answer:
    """The answer, or the error that it takes too long.  In the main thread of a process only."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return answer(text, compile_request)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TooSlow:
        detail = f"Compiling it takes more than {seconds:g} seconds."
        return failure(QueryTooComplex("query is too complex", detail=detail, hint="Split it into several."))


def main() -> None:
    """Serve until standard input ends."""
    log.configure()
    # Ctrl-C is meant for the worker, which closes our input when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        # Whatever is printed goes to the log, and not between the answers.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for line in sys.stdin.buffer:
            answers.write(json.dumps(answer_in_time(line, LIMIT_SECONDS)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
