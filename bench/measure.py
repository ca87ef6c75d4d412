"""Stop watches: time on the wall, and the processor time of the connection's server process.

Neighbours on the machine disturb the wall clock; the processor time hardly.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

NANOSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took, in milliseconds."""

    wall: float
    cpu: float

    def __truediv__(self, other: Cost) -> Cost:
        """How many times as much as the other."""
        return Cost(self.wall / other.wall, self.cpu / other.cpu)


def cost_of(conn: psycopg.Connection[Any], action: Callable[[], object]) -> Cost:
    """What an action on this connection takes."""
    cpu = _cpu_ms(conn.info.backend_pid)
    began = time.perf_counter_ns()
    action()
    wall = (time.perf_counter_ns() - began) / NANOSECONDS
    return Cost(wall, _cpu_ms(conn.info.backend_pid) - cpu)


def _cpu_ms(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / NANOSECONDS


def median(costs: Sequence[Cost]) -> Cost:
    """The medians of both clocks."""
    return Cost(statistics.median(one.wall for one in costs), statistics.median(one.cpu for one in costs))


def alternating(
    repetitions: int, before: Callable[[], object], contenders: dict[str, Callable[[], Cost]]
) -> dict[str, Cost]:
    """The median cost of each contender; they take turns, and who begins changes."""
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(repetitions):
        before()
        for name in order:
            costs[name].append(contenders[name]())
        order.append(order.pop(0))
    return {name: median(of) for name, of in costs.items()}


@dataclass(frozen=True, slots=True)
class Spread:
    """A sample of waiting times, in milliseconds."""

    median: float
    p95: float
    longest: float
    samples: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Spread:
        ordered = sorted(milliseconds)
        return cls(
            statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1], samples=len(ordered)
        )
