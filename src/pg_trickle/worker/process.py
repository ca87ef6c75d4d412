"""The worker as a process: ``pgtrickle worker``."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from pg_trickle.worker import log
from pg_trickle.worker.loop import Worker


def run(dsn: str, *, schedule: bool = True) -> None:
    """Work until SIGTERM or SIGINT.  Call it from the main thread."""
    log.configure()
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    worker = Worker(dsn, schedule=schedule)
    worker.start()
    stopping.wait()
    worker.stop()
