"""Phases in closed form, against brute force on a world small enough to enumerate."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tabular_world import TabularPolicy, World, flat, gradients
from torch import Tensor

from swirl_lightning.algorithm.objectives.posterior import Candidates, Posterior, solve

torch.set_num_threads(1)

ROUNDING = 1e-9


def given_all(prior: Tensor) -> Candidates:
    """Every sequence is a candidate, none is drawn."""
    return Candidates(prior, torch.ones_like(prior, dtype=torch.bool), torch.zeros_like(prior, dtype=torch.int64), prior, 0)


def regularised_value(weights: Tensor, prior: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """``E_q[r] - beta KL(q || pi_ref)`` of any distribution over the candidates, [B]."""
    divergence = torch.special.xlogy(weights, weights) - weights * prior
    return (weights * rewards - beta * divergence).sum(-1)


def drawn(prior: Tensor, proposal: Tensor, draws: int, given: Tensor, generator: torch.Generator) -> Candidates:
    """Draws from a proposal [B, N], merged, beside given candidates (bool [B, N])."""
    picked = torch.multinomial(proposal.exp(), draws, replacement=True, generator=generator)  # [B, K]
    counts = torch.zeros(prior.shape, dtype=torch.int64).scatter_add(1, picked, torch.ones_like(picked))
    return Candidates(prior, (counts > 0) | given, counts.masked_fill(given, 0), proposal, draws)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 5.0), st.floats(0.1, 4.0))
def test_the_closed_form_is_the_optimum_of_the_regularised_objective(seed, beta, scale):
    prior, rewards = torch.log_softmax(scale * noise(3, 6, seed=seed), -1), scale * noise(3, 6, seed=seed + 1)
    best = solve(given_all(prior), rewards, beta)
    torch.testing.assert_close(best.weights.sum(-1), torch.ones(3, dtype=torch.float64))
    value = regularised_value(best.weights, prior, rewards, beta)
    torch.testing.assert_close(value, beta * torch.logsumexp(prior + rewards / beta, -1))  # the log-partition function
    for other in (prior.exp(), torch.softmax(noise(3, 6, seed=seed + 2), -1), 0.99 * best.weights + 0.01 / 6):
        assert (regularised_value(other, prior, rewards, beta) <= value + ROUNDING).all()
    logits = best.weights.clamp(min=1e-300).log().requires_grad_()
    (slope,) = torch.autograd.grad(regularised_value(torch.softmax(logits, -1), prior, rewards, beta).sum(), logits)
    assert slope.abs().max() < 1e-7  # nothing to climb any more


def test_at_beta_one_with_log_likelihoods_it_is_bayes_rule():
    world = World.random(0, x=2, y=(2, 2), z=(3, 1), scale=1.5)
    prior, (n_x, n_y, n_z) = world.belief(), world.shape
    log_p = world.log_p().transpose(1, 2)  # [X, Y, Z]
    reference = prior.log()[:, None].expand(n_x, n_y, n_z).reshape(-1, n_z)
    posterior = solve(given_all(reference), log_p.reshape(-1, n_z), 1.0).weights.view(n_x, n_y, n_z)
    joint = prior[:, None] * log_p.exp()
    torch.testing.assert_close(posterior, joint / joint.sum(-1, keepdim=True))


def e_step(world: World, prior: Tensor) -> World:
    """Phase II with beta 1, to its end: the IDM becomes the posterior under a prior over actions [X, Z]."""
    n_x, n_y, n_z = world.shape
    reference = prior.log()[:, None].expand(n_x, n_y, n_z).reshape(-1, n_z)
    best = solve(given_all(reference), world.log_p().transpose(1, 2).reshape(-1, n_z), 1.0)
    return world.with_idm(world.idm.holding(best.weights))


def m_step(world: World) -> World:
    """The FWM becomes what maximises the likelihood of the observed next states, weighted by the posterior."""
    joint = (world.transitions[:, :, None] * world.log_q().exp()).transpose(1, 2)  # [X, Z, Y]
    target = joint / joint.sum(-1, keepdim=True)
    return world.with_fwm(world.fwm.holding(target.flatten(0, 1)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 2.0), st.sampled_from([((2, 2), (3, 1)), ((3, 1), (2, 2))]))
def test_the_elbo_never_falls_under_exact_steps_and_is_tight_after_each_e_step(seed, scale, sizes):
    world = World.random(seed, x=2, y=sizes[0], z=sizes[1], scale=scale)
    prior = world.belief()
    before, evidence = world.elbo(prior), world.log_likelihood(prior)
    for _ in range(4):
        world = e_step(world, prior)
        assert world.elbo(prior) >= before - ROUNDING
        torch.testing.assert_close(world.elbo(prior), world.log_likelihood(prior), rtol=0, atol=1e-8)
        before = world.elbo(prior)
        world = m_step(world)
        assert world.elbo(prior) >= before - ROUNDING
        assert world.log_likelihood(prior) >= evidence - ROUNDING
        before, evidence = world.elbo(prior), world.log_likelihood(prior)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 2.0), st.floats(0.1, 2.0))
def test_phase_one_in_closed_form_never_lowers_the_information_objective(seed, scale, beta):
    world = World.random(seed, x=2, y=(2, 2), z=(3, 1), scale=scale)
    entropy = world.latent_entropy()
    for _ in range(3):
        start = world.recovery()
        rewards = world.log_q().transpose(1, 2).flatten(0, 1)  # log Q(z|x,y'), [X*Z, Y]
        best = solve(given_all(world.fwm.logprobs()), rewards, beta)
        world = world.with_fwm(world.fwm.holding(best.weights))
        assert world.recovery() >= start - ROUNDING
        assert world.latent_entropy() == entropy
        assert entropy + world.recovery() <= world.mutual_information() + ROUNDING


def weighted_gradient(policy: TabularPolicy, posterior: Posterior) -> Tensor:
    """Gradient of the weighted likelihood ``sum_n w_n log pi(n)``, summed over contexts."""
    return flat(gradients((posterior.weights * policy.logprobs()).sum(), policy))


@pytest.mark.parametrize("given", [False, True], ids=["all drawn", "two given"])
def test_the_estimate_converges_to_the_exact_gradient_with_the_number_of_draws(given):
    generator = torch.Generator().manual_seed(1)
    policy = TabularPolicy.random(2, 3, 2, 1.0, generator).trainable()
    prior, rewards, beta = policy.logprobs().detach(), noise(2, policy.size, seed=5), 0.7
    exact = weighted_gradient(policy, solve(given_all(prior), rewards, beta))
    stand = torch.zeros(2, policy.size, dtype=torch.bool)
    if given:
        stand[:, [0, 3]] = True
    proposal = torch.log_softmax(prior / 1.5, -1)  # tempered: not the reference
    errors = []
    for draws in (8, 64, 512, 4096):
        sampled = [
            weighted_gradient(policy, solve(drawn(prior, proposal, draws, stand, generator), rewards, beta)) for _ in range(20)
        ]
        errors.append(float(torch.stack([(estimate - exact).norm() for estimate in sampled]).mean() / exact.norm()))
    assert all(later < earlier / 2 for earlier, later in itertools.pairwise(errors))  # about one over root eight
    assert errors[-1] < 0.05


def test_given_candidates_make_the_estimate_sharper():
    generator = torch.Generator().manual_seed(2)
    prior, rewards = torch.log_softmax(noise(64, 12, seed=3), -1), 2 * noise(64, 12, seed=4)
    exact = solve(given_all(prior), rewards, 1.0).weights
    stand = exact >= exact.topk(3, dim=-1).values[:, -1:]

    def error(given):
        tried = [solve(drawn(prior, prior, 8, given, generator), rewards, 1.0).weights for _ in range(20)]
        return float(torch.stack([(weights - exact).abs().sum(-1).mean() for weights in tried]).mean())

    assert error(stand) < 0.6 * error(torch.zeros_like(stand))


def test_gradients_of_the_weighted_likelihood_pass_finite_differences():
    policy = TabularPolicy.random(2, 2, 2, 1.0, torch.Generator().manual_seed(3))
    posterior = solve(given_all(policy.logprobs()), noise(2, policy.size, seed=1), 0.5)

    def likelihood(*tables):
        return (posterior.weights * TabularPolicy(list(tables)).logprobs()).sum()

    assert torch.autograd.gradcheck(likelihood, tuple(table.requires_grad_() for table in policy.logits))


def test_entropy_effective_number_and_agreement_by_hand():
    prior = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [0.1, 0.2, 0.7]]).log()
    mask = torch.tensor([[True, True, False], [True, True, False], [True, True, True]])
    rewards = torch.tensor([[0.0, 0.0, 9.0], [3.0, 0.0, 9.0], [0.0, 0.0, 1000.0]])
    counts = torch.zeros(3, 3, dtype=torch.int64)
    found = solve(Candidates(prior, mask, counts, prior, 0), rewards, 1.0)
    assert found.weights[0].tolist() == [0.5, 0.5, 0.0]  # what is under the mask counts for nothing
    torch.testing.assert_close(found.entropy[0], torch.tensor(math.log(2)))
    torch.testing.assert_close(found.effective, torch.tensor([2.0, 1 / found.weights[1].square().sum().item(), 1.0]))
    assert found.agreement.tolist() == [True, False, True]
    assert found.best.tolist() == [0, 0, 2]
    belief = torch.tensor([[0.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])  # the second is four nats commoner
    believed = solve(Candidates(prior, mask, counts, prior, 0), rewards, 1.0, belief=belief)
    assert believed.agreement.tolist() == [True, True, True]
    assert torch.equal(believed.weights, found.weights)
    ratio = 0.25 * math.exp(3.0) / 0.75
    torch.testing.assert_close(found.weights[1, 0], torch.tensor(ratio / (1 + ratio)))
    assert found.entropy[2] == 0


def test_a_reference_at_a_temperature_leaves_the_rest_to_what_was_believed_before():
    prior, belief = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.25, 0.75]]).log()
    rewards, given = torch.tensor([[0.0, 1.0]]), Candidates(prior, prior < 1, torch.zeros(1, 2, dtype=torch.int64), prior, 0)
    by_hand = torch.tensor([[0.9**0.25 * 0.25**0.75, 0.1**0.25 * 0.75**0.75 * math.exp(1 / 0.5)]])
    found = solve(given, rewards, 0.5, belief=belief, temperature=4.0)
    torch.testing.assert_close(found.weights, by_hand / by_hand.sum())
    bayes = torch.softmax(rewards + belief, -1)  # what the judge alone says
    torch.testing.assert_close(solve(given, rewards, 1.0, belief=belief, temperature=1e9).weights, bayes)
    with pytest.raises(ValueError, match="temperature must be positive"):
        solve(given, rewards, 1.0, temperature=0.0)


def test_a_ruled_out_candidate_gets_nothing_and_a_pair_of_them_keeps_its_reference():
    prior = torch.tensor([[0.2, 0.8], [0.2, 0.8]]).log()
    rewards = torch.tensor([[-math.inf, -1.0], [-math.inf, -math.inf]])
    found = solve(given_all(prior), rewards, 0.1)
    assert found.weights[0].tolist() == [0.0, 1.0]
    torch.testing.assert_close(found.weights[1], prior[1].exp())
    assert torch.isfinite(found.entropy).all()


@pytest.mark.parametrize(
    ("change", "rewards", "beta", "message"),
    [
        ({}, [[0.0, 0.0]], 0.0, "beta must be positive, got 0.0"),
        ({}, [[math.nan, 0.0]], 1.0, r"not finite at \(pair, candidate\) \[\[0, 0\]\]"),
        ({"mask": torch.zeros(1, 2, dtype=torch.bool)}, [[0.0, 0.0]], 1.0, r"pairs \[0\] have no candidate"),
        ({"counts": torch.tensor([[2, 3]])}, [[0.0, 0.0]], 1.0, "drawn more often than 4 times a pair"),
        ({"proposal": torch.zeros(2)}, [[0.0, 0.0]], 1.0, r"proposal has shape \(2,\), but prior has \(1, 2\)"),
    ],
)
def test_input_that_does_not_fit_is_named(change, rewards, beta, message):
    fields = {"prior": torch.zeros(1, 2), "mask": torch.ones(1, 2, dtype=torch.bool), "proposal": torch.zeros(1, 2)}
    fields |= {"counts": torch.zeros(1, 2, dtype=torch.int64), "draws": 4} | change
    with pytest.raises(ValueError, match=message):
        solve(Candidates(**fields), torch.tensor(rewards), beta)
