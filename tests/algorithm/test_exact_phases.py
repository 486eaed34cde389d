"""Phases with exact gradients never lower their own objective (arXiv:2602.06130, Theorems 3.1 and 3.2).

The gradient comes from ``grpo_loss`` itself: every sequence is a row, weighted with its exact probability.
"""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tabular_world import TabularPolicy, World, flat, gradients
from torch import Tensor

from swirl_lightning.algorithm.objectives.grpo import GrpoConfig, grpo_loss

torch.set_num_threads(1)

CONFIG = GrpoConfig(beta=0.0, aggregation="constant", max_tokens=1)
STEPS, RATE, ROUNDING = 12, 0.1, 1e-12


def exact_gradient(policy: TabularPolicy, rewards: Tensor, probability: Tensor) -> list[Tensor]:
    """Gradient of the expected reward; rewards and the probability of each context and sequence are [C, S]."""
    logprobs = policy.token_logprobs().flatten(0, 1)  # [C*S, L]
    rows = policy.mask.repeat(rewards.shape[0], 1)
    weights = probability.flatten()[:, None].expand_as(logprobs)
    terms = grpo_loss(
        logprobs, logprobs.detach(), rewards.flatten(), rows, CONFIG, ref_logprobs=None, normaliser=1.0, weights=weights
    )
    return gradients(-terms.loss, policy)


def fwm_gradient(world: World) -> list[Tensor]:
    """Phase I: reward log Q(z|x,y')."""
    x, y, z = world.shape
    weight = world.states[:, None, None] * world.belief()[:, :, None] * world.log_p().exp()  # [X, Z, Y]
    rewards = world.log_q().transpose(1, 2)
    return exact_gradient(world.fwm, rewards.reshape(x * z, y), weight.reshape(x * z, y).detach())


def idm_gradient(world: World, prior: Tensor) -> list[Tensor]:
    """Phase II with beta 1: reward log P(y|x,z) - log Q(z|x,y) + log prior(z|x)."""
    x, y, z = world.shape
    log_q = world.log_q().detach()
    weight = (world.states[:, None] * world.transitions)[:, :, None] * log_q.exp()  # [X, Y, Z]
    rewards = world.log_p().transpose(1, 2) - log_q + prior.log()[:, None, :]
    return exact_gradient(world.idm, rewards.reshape(x * y, z), weight.reshape(x * y, z))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_enumerated_grpo_gradient_is_the_gradient_of_the_objective(seed):
    world = World.random(seed, x=2, y=(2, 2), z=(3, 1), scale=1.5)
    prior = world.belief()
    first = world.with_fwm(world.fwm.trainable())
    torch.testing.assert_close(flat(fwm_gradient(first)), flat(gradients(first.recovery(), first.fwm)))
    second = world.with_idm(world.idm.trainable())
    torch.testing.assert_close(flat(idm_gradient(second, prior)), flat(gradients(second.elbo(prior), second.idm)))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.2, 2.0))
def test_alternating_phases_never_decrease_their_own_objective(seed, scale):
    world = World.random(seed, x=2, y=(2, 2), z=(3, 1), scale=scale)
    for _ in range(2):
        entropy, start = world.latent_entropy(), world.recovery()
        for _ in range(STEPS):  # Phase I: IDM frozen
            before = world.recovery()
            frozen = world.with_fwm(world.fwm.trainable())
            world = world.with_fwm(frozen.fwm.step(fwm_gradient(frozen), RATE))
            assert world.recovery() >= before - ROUNDING
            assert world.latent_entropy() == entropy  # it does not depend on theta
            assert entropy + world.recovery() <= world.mutual_information() + 1e-9
        assert world.recovery() > start
        prior = world.belief()  # the reference: the belief as this iteration's Phase II began
        evidence, start = world.log_likelihood(prior), world.elbo(prior)
        for _ in range(STEPS):  # Phase II: FWM frozen
            before = world.elbo(prior)
            frozen = world.with_idm(world.idm.trainable())
            world = world.with_idm(frozen.idm.step(idm_gradient(frozen, prior), RATE))
            assert world.elbo(prior) >= before - ROUNDING
            assert world.log_likelihood(prior) == evidence  # it does not depend on phi
            assert world.elbo(prior) <= evidence + 1e-9
        assert world.elbo(prior) > start
