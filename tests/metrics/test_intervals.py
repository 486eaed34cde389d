"""Student-t intervals against tables."""

import math

import pytest

from swirl_lightning.metrics import mean_interval, relative_gain, student_t_quantile


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (120, 1.97993)])
def test_quantiles_of_the_table(degrees, quantile):
    assert student_t_quantile(0.95, degrees) == pytest.approx(quantile, rel=1e-5)


def test_mean_interval_by_hand():
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.77645 * math.sqrt(2.5) / math.sqrt(5)
    assert (mean, low, high) == pytest.approx((3.0, 3 - half, 3 + half), rel=1e-5)
    assert math.isnan(mean_interval([0.5])[1])


def test_relative_gain_pairs_seeds():
    gain, low, high = relative_gain([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])  # always 0.1 better: no spread at all
    assert (gain, low, high) == pytest.approx((1 / 6, 1 / 6, 1 / 6))
    with pytest.raises(ValueError, match="2 and 1"):
        relative_gain([0.6, 0.7], [0.5])
    with pytest.raises(ValueError, match="mean is 0"):
        relative_gain([0.6], [0.0])
