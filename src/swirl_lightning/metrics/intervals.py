"""Means over seeds with Student-t intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache


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
    """Paired gain over a baseline, relative to the baseline's mean: ``mean(ours - base) / mean(base)``.

    Args:
        ours: one value a seed.
        base: the baseline's values of the same seeds, in the same order.
        level: confidence.

    Returns:
        ``(gain, low, high)``, 0.14 for 14 %.

    Raises:
        ValueError: if the lists do not pair up or the baseline's mean is 0.
    """
    if len(ours) != len(base):
        raise ValueError(f"relative_gain pairs seeds: got {len(ours)} and {len(base)} values")
    scale = sum(base) / max(1, len(base))
    if scale == 0:
        raise ValueError("relative_gain: the baseline's mean is 0, a relative gain does not exist")
    mean, low, high = mean_interval([a - b for a, b in zip(ours, base, strict=True)], level)
    ends = sorted((low / scale, high / scale))
    return mean / scale, ends[0], ends[1]
