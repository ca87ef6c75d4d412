"""Which sources may have changes that nobody has looked at.  Pure.

A buffer's high-water mark moves when a row is written, before its writer commits.  So a source that
moved stays under suspicion until all who may have moved it have ended, and is looked at again only
when one of them has: a transaction that is open for an hour costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A pg_snapshot: all transactions below ``xmin`` have ended, none from ``xmax`` on."""

    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, running.split(","))) if running else frozenset())

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    def sees(self, xid: int) -> bool:
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def sees_more_than(self, earlier: Snapshot, *, below: int | None) -> bool:
        """Whether a transaction (with an xid below that) ended between the two snapshots."""
        limit = self.xmax if below is None else min(below, self.xmax)
        if any(xid < limit and self.sees(xid) for xid in earlier.running):
            return True
        begun = max(0, limit - earlier.xmax)
        still_running = sum(earlier.xmax <= xid < limit for xid in self.running)
        return begun > still_running


@dataclass(frozen=True, slots=True)
class Suspicion:
    """``checked``: the snapshot that was last looked at.  ``limit``: whoever moved the mark has an xid below it."""

    checked: Snapshot | None = None
    limit: int | None = None


@dataclass(slots=True)
class Marks:
    """The high-water marks seen so far, and the sources under suspicion."""

    seen: dict[int, int] = field(default_factory=dict)
    suspects: dict[int, Suspicion] = field(default_factory=dict)

    def observe(self, high_water: Mapping[int, int]) -> bool:
        """Note the marks; whether any has moved.  A source not seen before counts as moved."""
        moved = {source for source, mark in high_water.items() if self.seen.get(source) != mark}
        for source in moved:
            known = self.suspects.get(source, Suspicion())
            self.suspects[source] = replace(known, limit=None)
        self.seen = dict(high_water)
        for gone in self.suspects.keys() - self.seen.keys():
            del self.suspects[gone]
        return bool(moved)

    @property
    def settled(self) -> Set[int]:
        """The sources of which everything is known that was written until their marks were seen."""
        return self.seen.keys() - self.suspects.keys()

    def to_check(self, now: Snapshot) -> frozenset[int]:
        """The sources in which something may have become visible since they were looked at."""
        return frozenset(
            source
            for source, known in self.suspects.items()
            if known.checked is None or now.sees_more_than(known.checked, below=known.limit)
        )

    def checked(self, sources: Iterable[int], snapshot: Snapshot, *, next_xid: int) -> None:
        """Note that these were looked at in a snapshot.

        ``next_xid`` was read after the marks: whoever moved them has a smaller one.
        """
        for source in sources:
            limit = self.suspects[source].limit
            limit = next_xid if limit is None else limit
            if snapshot.xmin >= limit:
                del self.suspects[source]
            else:
                self.suspects[source] = Suspicion(snapshot, limit)


def full_xid(low_bits: int, *, at_least: int) -> int:
    """The 64-bit transaction id with these lower 32 bits, the next one from ``at_least`` on."""
    return at_least + (low_bits - at_least) % 2**32
