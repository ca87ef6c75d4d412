"""The server that is measured, and what it runs on."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path

from pg_trickle.testing.account import server_account
from pg_trickle.testing.server import EmbeddedServer

SETTINGS = {
    "shared_buffers": "1GB",
    # No checkpoint and no vacuum falls into one measurement and not into the other.
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    # A parallel worker's processor time is not that of the process which is watched.
    "max_parallel_workers_per_gather": "0",
    "fsync": "on",
    "jit": "off",
}
DATABASE = "bench"


@contextmanager
def measured_server(settings: dict[str, str]) -> Iterator[EmbeddedServer]:
    """A server that waits for the disk at every commit, on a cluster that goes away afterwards."""
    directory = server_account().temporary_directory(shared=True)
    server = EmbeddedServer(directory, settings=settings)
    try:
        server.start()
        server.create_database(DATABASE)
        with server.connect(DATABASE) as conn:
            conn.execute("CREATE EXTENSION pg_trickle")
        yield server
    finally:
        server.close()
        shutil.rmtree(directory, ignore_errors=True)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "date": date.today().isoformat(),
        "processor": f"{os.cpu_count()} × {_field('/proc/cpuinfo', 'model name')}",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) // 1_000_000} GB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "pg_trickle": version("pg_trickle"),
        "load before": f"{os.getloadavg()[1]:.1f} (five-minute average)",
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
