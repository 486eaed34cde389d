"""The IDM's temperature, fitted on held-out labels: against draws from one whose temperature is known."""

import pytest
import torch

from swirl_lightning.algorithm.calibration import fit_temperature
from swirl_lightning.algorithm.objectives.posterior import Candidates, solve


@pytest.mark.parametrize("temperature", [1.0, 4.0, 8.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    prior, belief = (torch.randn(rows, 5, generator=generator) for rows in (4000, 1))
    prior, belief = 16 * prior, belief.expand(4000, 5)
    given = Candidates(prior, torch.ones(4000, 5, dtype=torch.bool), torch.zeros(4000, 5, dtype=torch.int64), prior, 0)
    weights = solve(given, torch.zeros(4000, 5), 1.0, belief=belief, temperature=temperature).weights
    truth = torch.multinomial(weights, 1, generator=generator)[:, 0]
    assert fit_temperature(given, belief, truth) == pytest.approx(temperature)


def test_without_a_pair_nothing_is_changed():
    nothing = torch.zeros(0, 3)
    given = Candidates(nothing, nothing > 0, nothing.long(), nothing, 0)
    assert fit_temperature(given, nothing, torch.zeros(0, dtype=torch.int64)) == 1.0
