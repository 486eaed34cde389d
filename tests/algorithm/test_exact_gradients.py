"""What GRPO's gradient estimates, against brute force."""

from __future__ import annotations

import itertools

import pytest
import torch
from tabular_world import TabularPolicy, World, flat, gradients
from torch import Tensor

from swirl_lightning.algorithm.objectives.grpo import GrpoConfig, group_advantages, grpo_loss

torch.set_num_threads(1)

CENTRED = GrpoConfig(beta=0.0, aggregation="constant", max_tokens=1)


@pytest.mark.parametrize("members", [2, 3, 4])
def test_a_groups_own_mean_shrinks_the_gradient_by_one_over_g(members):
    """E[sum_k A_k grad log pi_k] / G = (1 - 1/G) grad E[r]: only the member's own share of its baseline survives."""
    generator = torch.Generator().manual_seed(members)
    policy = TabularPolicy.random(1, 2, 2, 1.0, generator).trainable()
    rewards = torch.randn(policy.size, generator=generator, dtype=torch.float64)
    groups = torch.tensor(list(itertools.product(range(policy.size), repeat=members)))  # [S^G, G], all there are
    advantages, _ = group_advantages(rewards[groups], normalise="none")
    token_logprobs = policy.token_logprobs()[0]  # [S, L]
    rows = groups.flatten()
    probability = policy.logprobs()[0].detach()[groups].sum(1).exp()  # [S^G]
    logprobs = token_logprobs[rows]
    weights = probability.repeat_interleave(members)[:, None].expand_as(logprobs)
    terms = grpo_loss(
        logprobs,
        logprobs.detach(),
        advantages.flatten(),
        policy.mask[rows],
        CENTRED,
        ref_logprobs=None,
        normaliser=members,
        weights=weights,
    )
    expected = gradients((policy.logprobs()[0].exp() * rewards).sum(), policy)
    torch.testing.assert_close(flat(gradients(-terms.loss, policy)), (members - 1) / members * flat(expected))


def _agrees(chunks: Tensor, exact: Tensor, members: int) -> None:
    """The mean over chunks [K, params] is (G-1)/G of the exact gradient within 5 standard errors."""
    mean, error = chunks.mean(0), chunks.std(0) / len(chunks) ** 0.5
    moved = error > 0
    shrunk = (members - 1) / members * exact
    assert ((mean - shrunk)[moved].abs() / error[moved]).max() < 5
    assert (mean - shrunk)[~moved].abs().max() < 1e-9 if (~moved).any() else True
    assert error.norm() < 0.1 * exact.norm()  # sharp enough to mean something:
    assert ((mean - exact)[moved].abs() / error[moved]).max() > 5  # the factor is seen


def _estimate(policy: TabularPolicy, contexts: Tensor, rewards_of: Tensor, members: int, seed: int) -> Tensor:
    """GRPO's gradient for groups of contexts [K, B], rewards by (group, sequence) [K, B, S]: [K, params]."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for chosen, rewards in zip(contexts, rewards_of, strict=True):
        token_logprobs = policy.token_logprobs()  # [C, S, L]
        probability = policy.logprobs().detach().exp()[chosen]  # [B, S]
        drawn = torch.multinomial(probability, members, replacement=True, generator=generator)  # [B, G]
        advantages, _ = group_advantages(rewards.gather(1, drawn), normalise="none")
        logprobs = token_logprobs[chosen[:, None], drawn].flatten(0, 1)  # [B*G, L]
        mask = policy.mask[drawn].flatten(0, 1)
        terms = grpo_loss(
            logprobs, logprobs.detach(), advantages.flatten(), mask, CENTRED, ref_logprobs=None, normaliser=len(mask)
        )
        out.append(flat(gradients(-terms.loss, policy)))
    return torch.stack(out)


def test_sampled_phase_one_gradient_agrees_with_the_exact_one():
    world = World.random(11, x=2, y=(2, 2), z=(3, 1), scale=1.2)
    world = world.with_fwm(world.fwm.trainable())
    _, n_y, n_z = world.shape
    chunks, groups, members = 150, 128, 4
    generator = torch.Generator().manual_seed(0)
    draw = lambda p: torch.multinomial(p, 1, generator=generator)[:, 0]  # noqa: E731
    x = draw(world.states.expand(chunks * groups, -1))
    y = draw(world.transitions[x])
    z = draw(world.log_q().exp()[x, y])  # z ~ Q(.|x,y)
    rewards = world.log_q()[x, :, z]  # r(y') = log Q(z|x,y'), [N, Y]
    contexts = (x * n_z + z).view(chunks, groups)
    estimates = _estimate(world.fwm, contexts, rewards.view(chunks, groups, n_y), members, seed=1)
    _agrees(estimates, flat(gradients(world.recovery(), world.fwm)), members)


def test_sampled_phase_two_gradient_agrees_with_the_exact_one():
    world = World.random(12, x=2, y=(3, 1), z=(2, 2), scale=1.2)
    world = world.with_idm(world.idm.trainable())
    _, n_y, n_z = world.shape
    chunks, groups, members = 150, 128, 4
    generator = torch.Generator().manual_seed(0)
    draw = lambda p: torch.multinomial(p, 1, generator=generator)[:, 0]  # noqa: E731
    x = draw(world.states.expand(chunks * groups, -1))
    y = draw(world.transitions[x])
    rewards = world.log_p()[x, :, y]  # r(z) = log P(y|x,z), [N, Z]
    contexts = (x * n_y + y).view(chunks, groups)
    weight = (world.states[:, None] * world.transitions)[:, :, None] * world.log_q().exp()  # [X, Y, Z]
    exact = gradients((weight * world.log_p().transpose(1, 2)).sum(), world.idm)
    _agrees(_estimate(world.idm, contexts, rewards.view(chunks, groups, n_z), members, seed=2), flat(exact), members)


def _divergence(policy: TabularPolicy, reference: TabularPolicy, *, forward: bool) -> Tensor:
    """Sum over positions of the expected KL of next-token distributions, prefixes drawn from the policy, held fixed.

    ``forward`` is KL(reference || policy), otherwise KL(policy || reference).
    """
    total = torch.zeros((), dtype=torch.float64)
    reach = torch.ones(1, dtype=torch.float64)  # probability of each unfinished prefix, [V^t]
    for p, q in zip(policy.conditionals(), reference.conditionals(), strict=True):
        p, q = p[0], q[0]  # [V^t, V]
        kl = (q.exp() * (q - p)).sum(-1) if forward else (p.exp() * (p - q)).sum(-1)
        total = total + (reach * kl).sum()
        following = reach[:, None] * p.detach().exp()  # [V^t, V]
        following[:, 0] = 0.0  # the stop token ends a sequence
        reach = following.flatten()
    return total


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
@pytest.mark.parametrize("length", [1, 2])
def test_expected_on_policy_kl_gradients_are_what_the_documentation_says(kl, length):
    """k3 descends KL(ref || pi), k2 descends KL(pi || ref), k1 nothing; k1 and k3 have the value KL(pi || ref)."""
    generator = torch.Generator().manual_seed(length)
    policy = TabularPolicy.random(1, 3, length, 1.0, generator).trainable()
    reference = TabularPolicy.random(1, 3, length, 1.0, generator)
    config = GrpoConfig(beta=1.0, kl=kl, aggregation="constant", max_tokens=1)
    probability = policy.logprobs()[0].detach().exp()
    expected = torch.zeros_like(flat(policy.logits))
    value = 0.0
    for s in range(policy.size):  # every sequence, with its probability
        logprobs = policy.token_logprobs()[0, s : s + 1]
        terms = grpo_loss(
            logprobs,
            logprobs.detach(),
            torch.zeros(1, dtype=torch.float64),
            policy.mask[s : s + 1],
            config,
            ref_logprobs=reference.token_logprobs()[0, s : s + 1],
            normaliser=1.0,
        )
        expected = expected + probability[s] * flat(gradients(terms.loss, policy))
        value += float(probability[s]) * terms.sums["kl"]
    if kl == "k1":
        exact = torch.zeros_like(expected)
    else:
        exact = flat(gradients(_divergence(policy, reference, forward=kl == "k3"), policy))
    torch.testing.assert_close(expected, exact)
    if kl != "k2":
        whole = (probability * (policy.logprobs() - reference.logprobs())[0].detach()).sum()  # KL of whole sequences
        assert value == pytest.approx(float(whole))
        assert value == pytest.approx(float(_divergence(policy, reference, forward=False).detach()))
