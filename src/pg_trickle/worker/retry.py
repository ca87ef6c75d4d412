"""Which errors pass by themselves, and how long to wait for that.  Pure."""

from __future__ import annotations

TRANSIENT_CLASSES = ("08", "40", "53", "57P")
TRANSIENT_CODES = frozenset({"55P03"})

# A table may be altered for hours: that is no error of who waits for it.
PATIENT_CODES = frozenset({"55P03"})

RETRIES = 5
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 10.0


def is_transient(sqlstate: str) -> bool:
    """Connection trouble, conflicts, lack of resources, shutdown, and a lock not to be had."""
    return sqlstate.startswith(TRANSIENT_CLASSES) or sqlstate in TRANSIENT_CODES


def may_be_retried(sqlstate: str, failures: int) -> bool:
    """Whether to try again, after that many failures in a row, before it counts as an error."""
    return sqlstate in PATIENT_CODES or (is_transient(sqlstate) and failures < RETRIES)


def delay(failures: int, jitter: float) -> float:
    """Seconds to wait after that many failures in a row (1, 2, …): doubling, up to a limit.

    ``jitter``, between 0 and 1, takes off up to a half, so that those who failed together don't meet again.
    """
    # The exponent is bounded because 2.0 ** 1024 overflows.
    whole = min(FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 30), LONGEST_DELAY_SECONDS)
    return whole * (1 - jitter / 2)
