"""Under whose name the server runs.

PostgreSQL refuses to run as root.  Started by root, as in most containers, the server
gets an unprivileged account that exists already; files it has to reach are put where it
can reach them, and nobody's directories are opened for it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pg_trickle.errors import NotInstalled

# The first that exists.  "nobody" does everywhere.
ACCOUNTS = ("postgres", "nobody")
SHARED_CACHE = Path("/var/cache/pgtrickle")
SHARED_STATE = Path("/var/lib/pgtrickle")
# A file system in memory, and what has to be free there: a few servers, each with some hundred megabytes of WAL.
MEMORY = Path("/dev/shm")
MEMORY_FREE = 4 << 30


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system's user that owns the server's processes and files."""

    name: str
    uid: int
    gid: int

    @property
    def is_self(self) -> bool:
        return self.uid == os.geteuid()

    def popen_options(self) -> dict[str, Any]:
        """What makes ``subprocess`` run something under this account."""
        return {} if self.is_self else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, from the root directory, as this account."""
        return subprocess.run(
            command,
            check=False,
            cwd="/",
            env=server_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **self.popen_options(),
        )

    def can_read(self, path: Path) -> bool:
        """Whether this account gets to a file or directory, every directory on the way included."""
        if self.is_self:
            return os.access(path, os.R_OK)
        kind = "-x" if path.is_dir() else "-r"
        return self.run(["test", "-r", path, "-a", kind, path]).returncode == 0

    def make_directory(self, path: Path) -> Path:
        """Make a directory that belongs to this account alone, unless it is there."""
        if not path.exists():
            path.mkdir(mode=0o700)
            if not self.is_self:
                os.chown(path, self.uid, self.gid)
        return path

    def let_read(self, path: Path) -> None:
        """Make what we wrote readable to this account, whatever our umask is."""
        if self.is_self:
            return
        for each in (path, *path.rglob("*")):
            if not each.is_symlink():
                each.chmod(each.stat().st_mode | (0o555 if each.is_dir() else 0o444))

    def temporary_directory(self, *, shared: bool = False) -> Path:
        """A new directory with a name short enough to hold a unix socket: the account's own, or ours for it to read."""
        for base in (Path("/tmp"), Path(tempfile.gettempdir())):
            if self._may_use(base):
                path = Path(tempfile.mkdtemp(prefix="pgtrickle-", dir=base))
                if shared:
                    self.let_read(path)
                elif not self.is_self:
                    os.chown(path, self.uid, self.gid)
                return path
        raise NotInstalled(
            f'no temporary directory that the user "{self.name}" can reach',
            hint="Set TMPDIR to a directory that everybody may enter.",
        )

    def memory_directory(self) -> Path | None:
        """A new directory of the account's own in memory, where the system has such a place and there is room."""
        if not self._may_use(MEMORY) or shutil.disk_usage(MEMORY).free < MEMORY_FREE:
            return None
        path = Path(tempfile.mkdtemp(prefix="pgtrickle-", dir=MEMORY))
        if not self.is_self:
            os.chown(path, self.uid, self.gid)
        return path

    def _may_use(self, base: Path) -> bool:
        return base.is_dir() and os.access(base, os.W_OK) and self.can_read(base)


def server_account() -> Account:
    """Ourselves; for root, who may not run PostgreSQL, an unprivileged account."""
    if os.geteuid() != 0:
        return Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise NotInstalled(
        "PostgreSQL can't run as root, and there is no unprivileged account to run it",
        hint="Create one: useradd --system postgres",
    )


def server_environment() -> dict[str, str]:
    """The environment of the server's processes: nothing of the caller's PG* settings gets in."""
    kept = {name: os.environ[name] for name in ("PATH", "TZ", "TZDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def reachable_copy(source: Path, name: str, account: Account) -> Path:
    """A copy of the directory ``source`` that the account can read, made once.

    The copy is complete or absent: it gets its name when the last file is there.
    """
    target = SHARED_CACHE / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        shutil.copytree(source, unfinished / "tree", ignore=shutil.ignore_patterns("include", "doc", "*.a", "pgxs"))
        for path in (SHARED_CACHE, target.parent, unfinished / "tree"):
            account.let_read(path)
        (unfinished / "tree").rename(target)
    except OSError:
        if not target.exists():  # otherwise somebody else was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target
