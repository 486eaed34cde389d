"""A step's loss and gradient do not depend on how its groups were divided into passes."""

import pytest
import torch

from swirl_lightning.algorithm.experience import Experience, Judgement, Rollouts
from swirl_lightning.algorithm.objectives.grpo import GrpoConfig, normaliser
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.algorithm.steps import policy_parts
from swirl_lightning.scoring.scorer import CausalScorer
from swirl_lightning.types import Role, SamplingParams, Trajectory
from tests.models import build, random_groups


def _experience(groups, seed=3):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([[len(row.ids) - row.start for row in group] for group in groups])  # [B, G]
    longest = int(lengths.max())
    mask = torch.arange(longest) < lengths[..., None]  # [B, G, T]
    completions = torch.zeros(mask.shape, dtype=torch.int64)
    for b, group in enumerate(groups):
        for k, row in enumerate(group):
            completions[b, k, : lengths[b, k]] = torch.tensor(row.ids[row.start :])
    logprobs = -5.0 * torch.rand(mask.shape, generator=generator) * mask
    prompts = tuple(group[0].ids[: group[0].start] for group in groups)
    flat = torch.zeros(lengths.shape, dtype=torch.bool)
    skipped = flat.clone()
    skipped[0, 1] = True
    rollouts = Rollouts(
        role=Role.IDM,
        pairs=(),
        latent=None,
        samples=(),
        trajectory=Trajectory(prompts, completions, mask, logprobs, mask.any(-1)),
        rows=tuple(tuple(group) for group in groups),
        importance=None,
        cut_tokens=0,
    )
    zeros = torch.zeros(lengths.shape)
    judgement = Judgement(rewards=zeros, parts={}, logprob=zeros, clamped=flat, skipped=skipped)
    return Experience(rollouts, judgement, torch.randn(lengths.shape, generator=generator), flat[:, 0])


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("budget", [45, 20, 1])
def test_loss_and_gradient_do_not_depend_on_the_token_budget(budget, level):
    model = build("llama")
    experience = _experience(random_groups(3, 5, 12, 8))
    reference = experience.rollouts.trajectory.logprobs - 0.1
    settings = RoleSettings(sampling=SamplingParams(temperature=0.8), group_size=5, grpo=GrpoConfig(beta=0.1, ratio=level))
    denominator = normaliser(experience.rollouts.trajectory.mask.flatten(0, 1), settings.grpo)

    def step(tokens):
        model.zero_grad()
        total, sums, parts = 0.0, {}, 0
        for part in policy_parts(
            CausalScorer(tokens),
            model,
            experience,
            settings,
            reference=reference,
            normaliser=denominator,
            on_policy=False,
        ):
            part.loss.backward()
            total, parts = total + float(part.loss.detach()), parts + 1
            sums = {name: sums.get(name, 0.0) + value for name, value in part.sums.items()}
        return total, sums, parts, [p.grad.clone() for p in model.parameters()]

    whole, parted = step(10_000), step(budget)
    assert whole[2] == 1
    assert parted[2] > 2
    assert parted[0] == pytest.approx(whole[0], abs=1e-5)
    assert parted[1] == pytest.approx(whole[1], rel=1e-4, abs=1e-4)
    for mine, wanted in zip(parted[3], whole[3], strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-4)
    assert any(float(g.abs().max()) > 1e-3 for g in whole[3])
