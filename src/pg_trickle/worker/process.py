"""The worker as a process: ``pgtrickle worker``."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from types import FrameType

from pg_trickle.worker import log
from pg_trickle.worker.exporter import LOOPBACK, Exporter
from pg_trickle.worker.loop import Worker


def run(dsn: str, *, schedule: bool = True, metrics_port: int | None = None, metrics_address: str = LOOPBACK) -> None:
    """Work until SIGTERM or SIGINT, and serve metrics if there is a port for them.  Call it from the main thread."""
    log.configure()
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    worker = Worker(dsn, schedule=schedule, heeds_metrics_port=metrics_port is None)
    with ExitStack() as stack:
        if metrics_port is not None:
            exporter = Exporter(worker.metrics, metrics_port, metrics_address)
            exporter.start()
            stack.callback(exporter.stop)
        worker.start()
        stack.callback(worker.stop)
        stopping.wait()
