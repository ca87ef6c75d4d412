"""Processes that outlive the one that started them: telling them apart, ending them, never leaving any behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02

# Ends the server when the other end of the pipe goes away: with our process, whatever it dies of.  $1 data directory,
# $2 pid, then directories to remove.  The pid file proves that the pid is still the one of the server.
_WATCHDOG = """
read -r word
[ "$word" = done ] && exit 0
alive() { [ "$(head -n 1 "$1/postmaster.pid" 2>/dev/null)" = "$2" ] && kill -0 "$2" 2>/dev/null; }
alive "$1" "$2" && kill -INT "$2"
tries=0
while alive "$1" "$2" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
alive "$1" "$2" && kill -QUIT "$2"
shift 2
rm -rf -- "$@"
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its id and its start, since ids are given out again."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this id now."""
        started = _start_of(pid)
        return None if started is None else cls(pid, started)

    @property
    def is_alive(self) -> bool:
        return _start_of(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it is gone."""
        if self.is_alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def end(self, *signals: signal.Signals, seconds_each: float) -> bool:
        """Try the signals in turn until it is gone; say whether it is."""
        for number in signals:
            self.send(number)
            if wait_until(lambda: not self.is_alive, seconds_each):
                return True
        return not self.is_alive


def _start_of(pid: int) -> str | None:
    """When a process started, in whatever unit the system tells; None for one that is dead or a zombie."""
    if Path("/proc/self/stat").exists():
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else fields[19]
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], check=False, capture_output=True, text=True)
    return answer.stdout.strip() or None


def _stat(pid: int) -> list[str] | None:
    """What Linux says of a process: state, parent's id … (proc(5), from the third field on)."""
    try:
        # The second field, the program's name in brackets, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def children(pid: int) -> list[Process]:
    """The direct children of a process."""
    if Path("/proc/self/stat").exists():
        every = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        pids = [each for each in every if (fields := _stat(each)) and int(fields[1]) == pid]
    else:
        answer = subprocess.run(["pgrep", "-P", str(pid)], check=False, capture_output=True, text=True)
        pids = [int(line) for line in answer.stdout.split()]
    return [process for each in pids if (process := Process.of(each))]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; say whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class Watchdog:
    """A helper process that stops a server, and removes directories, when this process ends without doing so."""

    def __init__(self, data: Path, pid: int, remove: Iterable[Path]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "pgtrickle-watchdog", data, str(pid), *remove],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Its work is done."""
        try:
            self._process.communicate(b"done\n", timeout=5)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
