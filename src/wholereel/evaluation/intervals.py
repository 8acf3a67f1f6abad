"""How sure a measured accuracy is: intervals for proportions and for means over seeds. Plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["mean_interval", "wilson_interval"]

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution
# two-sided 95 % of Student's distribution by degrees of freedom; above 30 the normal one is off by less than 4 %
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def wilson_interval(right: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; sensible also at 0 and 1, where the usual +- interval has no width.

    Args:
        right: number of successes, 0 <= right <= total.
        total: number of trials, > 0.
        z: quantile; the default gives 95 %.
    Returns: low and high, in [0, 1].
    Raises: ValueError: numbers outside their ranges.
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(f"wilson_interval needs 0 <= right <= total and total > 0; got {right} of {total}")
    share, correction = right / total, z * z / total
    centre = share + correction / 2
    half = z * math.sqrt(share * (1 - share) / total + correction / (4 * total))
    # rounding may leave the ends at 1e-17 beside 0 and 1
    low, high = (centre - half) / (1 + correction), (centre + half) / (1 + correction)
    return (0.0 if right == 0 else low), (1.0 if right == total else high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of repeated runs (Student's t).

    Args:
        values: at least two results, such as accuracies of runs with different seeds.
    Raises: ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval of a mean needs at least two values; got {len(values)}")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    quantile = T95[len(values) - 2] if len(values) - 2 < len(T95) else Z95
    half = quantile * math.sqrt(variance / len(values))
    return mean - half, mean + half
