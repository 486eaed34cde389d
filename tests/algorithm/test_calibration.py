"""Temperatures of both models, fitted on held-out labels: against draws from models whose temperatures are known."""

import pytest
import torch

from swirl_lightning.algorithm.calibration import Calibration, fit
from swirl_lightning.algorithm.objectives.posterior import Candidates, solve


@pytest.mark.parametrize(("temperature", "beta"), [(1.0, 1.0), (4.0, 1.0), (8.0, 2.0)])
def test_the_factors_that_made_the_labels_are_found(temperature, beta):
    generator = torch.Generator().manual_seed(0)
    prior = 8 * torch.randn(4000, 5, generator=generator)
    rewards, belief = 4 * torch.randn(4000, 5, generator=generator), torch.randn(1, 5, generator=generator).expand(4000, 5)
    given = Candidates(prior, torch.ones(4000, 5, dtype=torch.bool), torch.zeros(4000, 5, dtype=torch.int64), prior, 0)
    truth = torch.multinomial(
        solve(given, rewards, beta, belief=belief, temperature=temperature).weights, 1, generator=generator
    )
    found = fit(given, rewards, belief, truth[:, 0], Calibration(1.0))
    assert found == Calibration(pytest.approx(beta), pytest.approx(temperature))


def test_a_true_candidate_that_is_ruled_out_does_not_decide_alone():
    prior = torch.tensor([[0.0, -9.0]]).expand(10, 2)
    rewards = torch.zeros(10, 2)
    rewards[0, 1] = -torch.inf
    given = Candidates(prior, torch.ones(10, 2, dtype=torch.bool), torch.zeros(10, 2, dtype=torch.int64), prior, 0)
    truth = torch.tensor([1] + [0] * 9)  # the first can never be right; the others say that the reference is
    assert fit(given, rewards, torch.zeros(10, 2), truth, Calibration(0.1)).temperature == 1.0
