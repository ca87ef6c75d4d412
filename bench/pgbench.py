"""PostgreSQL's own pgbench: many clients at once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from pg_trickle.testing.server import EmbeddedServer

STATEMENTS = 3


def transactions_a_second(server: EmbeddedServer, dbname: str, script: Path, clients: int, seconds: int) -> float:
    """How many of a script's statements, each a transaction, the clients get done together."""
    program = server.binaries.bin / "pgbench"
    answer = subprocess.run(
        [
            program if program.exists() else shutil.which("pgbench") or "pgbench",
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={clients}",
            f"--jobs={min(clients, 2)}",
            f"--time={seconds}",
            f"--file={script}",
            server.dsn(dbname),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        print(answer.stderr[-500:], file=sys.stderr)
    found = re.search(r"^tps = ([0-9.]+)", answer.stdout, re.MULTILINE)
    if found is None:
        raise ValueError(f"pgbench said: {answer.stdout}{answer.stderr}")
    return STATEMENTS * float(found[1])
