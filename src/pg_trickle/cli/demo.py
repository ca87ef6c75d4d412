"""``pgtrickle demo``: hand over to the demonstration."""

from __future__ import annotations


def demo() -> None:
    """Stream tables on real data, live.

    Example: pgtrickle demo --seconds 20
    """
