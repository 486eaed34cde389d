"""How sure both models may be: temperatures fitted on held-out labels (temperature scaling, arXiv:1706.04599).

A model that knows few labels by heart gives its answers a probability of one, right or wrong. Two numbers mend that: the
temperature of the IDM as reference, and ``beta``, the temperature of the FWM's reward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swirl_lightning.algorithm.objectives.posterior import Candidates, Posterior, solve

GRID = tuple(2 ** (k / 2) for k in range(-6, 13))
"""Factors that are tried: an eighth to 64, two to an octave."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a closed form is solved with."""

    beta: float
    temperature: float = 1.0


def fit(candidates: Candidates, rewards: Tensor, belief: Tensor, truth: Tensor, start: Calibration) -> Calibration:
    """The temperature and beta under which the true candidates are likeliest.

    Every pair of factors of ``GRID`` is tried, so the optimum is global up to the grid; temperatures below 1, which make a
    reference surer than it is, are not.

    Args:
        candidates: of V held-out pairs, V x N.
        rewards: [V, N].
        belief: [V, N], see :func:`solve`.
        truth: int64 [V], the true candidate.
        start: beta is varied from here.

    Returns:
        The best of the grid; ``start`` where there is no pair.
    """
    if not len(truth):
        return start

    def likelihood(tried: Calibration) -> float:
        found: Posterior = solve(candidates, rewards, tried.beta, belief=belief, temperature=tried.temperature)
        right = found.weights.double().gather(-1, truth[:, None])  # [V, 1]
        return float(right.clamp(min=torch.finfo(torch.float32).tiny).log().mean())

    grid = [Calibration(start.beta * factor, temperature) for factor in GRID for temperature in GRID if temperature >= 1]
    return max(grid, key=likelihood)
