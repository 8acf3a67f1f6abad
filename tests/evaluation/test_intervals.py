"""Intervals against published and closed-form values."""

from __future__ import annotations

import pytest

from wholereel.evaluation.intervals import mean_interval, wilson_interval


def test_wilson_matches_closed_forms():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 and 15 of 148
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    low, high = wilson_interval(0, 20)
    assert low == 0.0
    assert high == pytest.approx(0.1611, abs=5e-5)  # z^2 / (n + z^2)
    assert wilson_interval(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=5e-5)


def test_wilson_errors():
    for right, total in ((0, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match=f"got {right} of {total}"):
            wilson_interval(right, total)


def test_mean_interval_of_five_values():
    # mean 3, standard deviation sqrt(2.5), t = 2.776 with 4 degrees of freedom
    half = 2.776 * (2.5 / 5) ** 0.5
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - half, 3 + half))
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([1.0])
