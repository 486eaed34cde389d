"""Means over seeds with Student-t intervals, ratios of means with Fieller's, shares with Wilson's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist


@lru_cache(maxsize=64)
def student_t_quantile(level: float, degrees: int) -> float:
    """Half-width of a two-sided Student-t interval, in standard errors.

    Args:
        level: confidence in (0, 1), e.g. 0.95.
        degrees: degrees of freedom, at least 1.

    Returns:
        ``t`` with ``P(|T| <= t) = level``, to about 1e-6.

    Raises:
        ValueError: if an argument is out of range.
    """
    if not 0 < level < 1 or degrees < 1:
        raise ValueError(f"student_t_quantile needs 0 < level < 1 and degrees >= 1, got {level} and {degrees}")
    # T = sqrt(n) tan(a) turns the integral of the density into one of cos(a)^(n-1) over a finite range
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)

    def mass(angle: float, steps: int = 400) -> float:  # P(|T| <= sqrt(n) tan(angle)), Simpson's rule
        width = angle / steps
        inner = sum((4 if i % 2 else 2) * math.cos(i * width) ** (degrees - 1) for i in range(1, steps))
        return 2 * scale * (1 + inner + math.cos(angle) ** (degrees - 1)) * width / 3

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle) < level else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its Student-t interval.

    Args:
        values: one a seed.
        level: confidence.

    Returns:
        ``(mean, low, high)``; a single value has no interval, and both ends are nan.

    Raises:
        ValueError: if there is no value.
    """
    if not values:
        raise ValueError("mean_interval of no values")
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan, math.nan
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = student_t_quantile(level, len(values) - 1) * spread / math.sqrt(len(values))
    return mean, mean - half, mean + half


def relative_gain(ours: Sequence[float], base: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Gain over a baseline, relative to the baseline's mean: ``mean(ours) / mean(base) - 1``, paired by seed.

    Both means are uncertain, so the interval is Fieller's (E. C. Fieller, JRSS B 16 (1954) 175-185): the ratios ``r`` for
    which the mean of ``ours - r base`` is not significantly different from 0.

    Args:
        ours: one value a seed.
        base: the baseline's values of the same seeds, in the same order.
        level: confidence.

    Returns:
        ``(gain, low, high)``, 0.14 for 14 %. A single seed has no interval, and both ends are nan; where the baseline's mean
        is not significantly different from 0, any ratio may be, and they are infinite.

    Raises:
        ValueError: if the lists do not pair up or the baseline's mean is 0.
    """
    n = len(ours)
    if n != len(base):
        raise ValueError(f"relative_gain pairs seeds: got {n} and {len(base)} values")
    x, y = sum(base) / max(1, n), sum(ours) / max(1, n)
    if x == 0:
        raise ValueError("relative_gain: the baseline's mean is 0, a relative gain does not exist")
    if n == 1:
        return y / x - 1, math.nan, math.nan
    # (y - r x)^2 <= t^2 var(y - r x) is a quadratic in r: a r^2 - 2 b r + c <= 0
    scale = student_t_quantile(level, n - 1) ** 2 / (n * (n - 1))
    a = x * x - scale * sum((p - x) ** 2 for p in base)
    b = x * y - scale * sum((p - x) * (q - y) for p, q in zip(base, ours, strict=True))
    c = y * y - scale * sum((q - y) ** 2 for q in ours)
    if a <= 0:
        return y / x - 1, -math.inf, math.inf
    half = math.sqrt(max(0.0, b * b - a * c)) / a
    return y / x - 1, b / a - half - 1, b / a + half - 1


def wilson_interval(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share (E. B. Wilson, JASA 22 (1927) 209-212): within 0 and 1, and none of width 0 at either end.

    Args:
        share: of n independent trials.
        n: at least 1.
        level: confidence.

    Returns:
        ``(low, high)``.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half
