"""How sure an IDM may be: its temperature, fitted on held-out labels (temperature scaling, arXiv:1706.04599).

An IDM that knows few labels by heart gives its answer a probability of one, right or wrong. One number mends that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swirl_lightning.algorithm.objectives.posterior import Candidates, solve

GRID = tuple(2 ** (k / 2) for k in range(13))
"""Temperatures that are tried: 1 to 64, two to an octave. Below 1 an IDM would be surer than it says."""


def fit_temperature(candidates: Candidates, belief: Tensor, truth: Tensor) -> float:
    """The temperature of ``GRID`` under which the true candidates are likeliest; 1 where there is no pair.

    Args:
        candidates: of V held-out pairs, V x N.
        belief: [V, N], see :func:`solve`.
        truth: int64 [V], the true candidate.
    """

    def likelihood(temperature: float) -> float:
        found = solve(candidates, torch.zeros_like(belief), 1.0, belief=belief, temperature=temperature)
        right = found.weights.double().gather(-1, truth[:, None])  # [V, 1]
        return float(right.clamp(min=torch.finfo(torch.float32).tiny).log().sum())

    return max(GRID, key=likelihood)
