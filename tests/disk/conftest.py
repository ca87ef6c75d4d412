"""A small disk: where nobody may mount one, the tests that need it aren't collected."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system of this size in a directory, gone at the end, whatever happens."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)


def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        try:
            with small_disk(Path(directory), 1):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


collect_ignore = [] if may_mount() else ["test_full_disk.py"]
