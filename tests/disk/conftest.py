"""A small disk: where nobody may mount one, the tests that need it aren't collected."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PIECE = 4096


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system of this size in a directory, gone at the end, whatever happens."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)


@dataclass
class Disk:
    """A tablespace that can be filled up by a file beside it."""

    directory: Path

    @property
    def ballast(self) -> Path:
        return self.directory / "ballast"

    def fill(self) -> None:
        """Take all the space there is."""
        with self.ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(PIECE)):
                    continue
            except OSError:
                assert os.statvfs(self.directory).f_bavail == 0

    def clear(self) -> None:
        self.ballast.unlink(missing_ok=True)


def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        try:
            with small_disk(Path(directory), 1):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


collect_ignore = [] if may_mount() else ["test_full_disk.py", "test_full_server.py"]
