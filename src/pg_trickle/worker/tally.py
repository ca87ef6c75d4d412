"""What this worker's refreshes came to, counted since it began, as Prometheus likes its counters."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from pg_trickle.worker.exposition import Family, Labels, Sample
from pg_trickle.worker.gateway import Result
from pg_trickle.worker.scheduler import Outcome

BUCKETS_SECONDS = (0.01, 0.1, 1.0, 10.0, 60.0, float("inf"))

LabelsOf = Callable[[int], Labels | None]


@dataclass(slots=True)
class Timing:
    """How long refreshes took: how many at most as long as each bucket says, and all of it."""

    buckets: list[int] = field(default_factory=lambda: [0] * len(BUCKETS_SECONDS))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.seconds += seconds
        for place, limit in enumerate(BUCKETS_SECONDS):
            self.buckets[place] += seconds <= limit

    def samples(self, labels: Labels) -> list[Sample]:
        """A histogram's samples."""
        limits = ("+Inf" if limit == float("inf") else str(limit) for limit in BUCKETS_SECONDS)
        counts = zip(limits, self.buckets, strict=True)
        found = [Sample(count, (*labels, ("le", limit)), "_bucket") for limit, count in counts]
        return [*found, Sample(self.seconds, labels, "_sum"), Sample(self.buckets[-1], labels, "_count")]


@dataclass(slots=True)
class Tally:
    """Counts by stream table, refresh mode and outcome.  Safe to use from several threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _outcomes: dict[tuple[int, str, str], int] = field(default_factory=lambda: defaultdict(int))
    _timings: dict[tuple[int, str], Timing] = field(default_factory=lambda: defaultdict(Timing))
    _rows_in: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _rows_out: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, result: Result, outcome: Outcome) -> None:
        """Count a refresh that did not fail."""
        mode = (result.mode or "none").lower()
        with self._lock:
            self._outcomes[result.id, mode, outcome.value] += 1
            if outcome is Outcome.REFRESHED:
                self._timings[result.id, mode].add((result.milliseconds or 0.0) / 1000)
                self._rows_in[result.id] += result.rows_in or 0
                self._rows_out[result.id] += result.rows_out or 0

    def note_failure(self, table: int, outcome: Outcome) -> None:
        """Count one whose refresh failed, in whatever mode that would have been."""
        with self._lock:
            self._outcomes[table, "none", outcome.value] += 1

    def families(self, labels_of: LabelsOf) -> list[Family]:
        """All counters, of those stream tables that ``labels_of`` knows."""
        with self._lock:
            outcomes = [
                Sample(count, (*labels, ("mode", mode), ("outcome", outcome)))
                for (table, mode, outcome), count in self._outcomes.items()
                if (labels := labels_of(table)) is not None
            ]
            timings = [
                sample
                for (table, mode), timing in self._timings.items()
                if (labels := labels_of(table)) is not None
                for sample in timing.samples((*labels, ("mode", mode)))
            ]
            rows_in, rows_out = (_sums(counts, labels_of) for counts in (self._rows_in, self._rows_out))
        return [
            Family("pgtrickle_refreshes_total", "counter", "Refreshes by this worker.", tuple(outcomes)),
            Family("pgtrickle_refresh_duration_seconds", "histogram", "How long they took.", tuple(timings)),
            Family("pgtrickle_refresh_rows_in_total", "counter", "Change rows that they read.", rows_in),
            Family("pgtrickle_refresh_rows_out_total", "counter", "Rows of stream tables that they wrote.", rows_out),
        ]


def _sums(counts: dict[int, int], labels_of: LabelsOf) -> tuple[Sample, ...]:
    return tuple(Sample(n, labels) for table, n in counts.items() if (labels := labels_of(table)) is not None)
