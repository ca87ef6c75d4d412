"""A worker as a child process that ends with its parent, whatever that dies of.

The parent holds the other end of the child's standard input.  A process of its own, since Python's threads would
share one processor with the writer and the screen.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Self

from pg_trickle.errors import NotInstalled
from pg_trickle.worker import log
from pg_trickle.worker.loop import Worker

READY = "ready"
START_SECONDS = 30
STOP_SECONDS = 15


class BackgroundWorker:
    """``pgtrickle worker`` for as long as this object is entered."""

    def __init__(self, dsn: str, log: Path) -> None:
        self._dsn = dsn
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pg_trickle.demo.background", self._dsn],
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                # Ctrl-C is for the demonstration, which still needs its worker then.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != READY:
            self.__exit__()
            raise NotInstalled("the worker did not start", detail=self.last_words())
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])


def main(dsn: str) -> None:
    """Work until standard input ends."""
    log.configure()
    worker = Worker(dsn)
    worker.start()
    try:
        worker.wait_for(lambda: worker.is_active, START_SECONDS)
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        worker.stop()


if __name__ == "__main__":
    main(sys.argv[1])
