from __future__ import annotations

import pytest

from pg_trickle.worker import retry


@pytest.mark.parametrize("sqlstate", ["08006", "40001", "40P01", "53300", "57P01", "57P03", "55P03"])
def test_what_passes_by_itself_is_transient(sqlstate):
    assert retry.is_transient(sqlstate)


@pytest.mark.parametrize("sqlstate", ["22012", "42P01", "42501", "57014", "55000", "XX000", "P0001"])
def test_what_needs_somebody_is_not(sqlstate):
    assert not retry.is_transient(sqlstate)


def test_delays_double_up_to_a_limit_and_jitter_shortens_them():
    assert [retry.delay(n, 0.0) for n in (1, 2, 3, 4)] == [0.1, 0.2, 0.4, 0.8]
    assert retry.delay(100_000, 0.0) == retry.LONGEST_DELAY_SECONDS
    assert retry.delay(1, 1.0) == 0.05
