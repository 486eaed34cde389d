"""The variational bounds against brute force (arXiv:2602.06130, Theorems 3.1 and 3.2)."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tabular_world import TabularPolicy, World, sequences

from swirl_lightning.algorithm.objectives.bounds import elbo_estimate, mutual_information_bound

torch.set_num_threads(1)

SIZES = st.sampled_from([((2, 1), (3, 1)), ((2, 2), (3, 1)), ((3, 1), (2, 2)), ((2, 2), (2, 2))])
SLACK = 1e-9  # rounding


@st.composite
def worlds(draw: st.DrawFn) -> World:
    y, z = draw(SIZES)
    scale = draw(st.floats(0.01, 6.0))
    return World.random(draw(st.integers(0, 2**32)), x=draw(st.integers(1, 3)), y=y, z=z, scale=scale)


def test_sequences_stop_at_the_end_token_and_every_policy_sums_to_one():
    tokens, mask = sequences(3, 2)
    assert tokens.tolist() == [[0, 0], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]
    assert mask.sum(1).tolist() == [1, 2, 2, 2, 2, 2, 2]
    policy = TabularPolicy.random(4, 3, 2, 2.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(policy.logprobs().exp().sum(1), torch.ones(4, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_barber_agakov_never_exceeds_the_mutual_information(world):
    assert world.latent_entropy() + world.recovery() <= world.mutual_information() + SLACK


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_barber_agakov_is_tight_where_the_judge_is_the_posterior(world):
    joint = world.belief().log()[:, :, None] + world.log_p()  # [X, Z, Y]
    posterior = torch.log_softmax(joint, dim=1).transpose(1, 2)  # [X, Y, Z]
    bound = world.latent_entropy() + world.recovery(posterior)
    torch.testing.assert_close(bound, world.mutual_information(), rtol=1e-9, atol=1e-9)
    assert world.recovery() <= world.recovery(posterior) + SLACK  # no judge does better


@settings(max_examples=25, deadline=None)
@given(worlds())
def test_estimated_information_bound_never_exceeds_the_mutual_information(world):
    log_q, log_p = world.log_q(), world.log_p()
    n_x, n_y, n_z = world.shape
    expected = torch.zeros((), dtype=torch.float64)
    for x, y, z, y2 in itertools.product(range(n_x), range(n_y), range(n_z), range(n_y)):
        weight = world.states[x] * world.transitions[x, y] * (log_q[x, y, z] + log_p[x, z, y2]).exp()
        expected += weight * mutual_information_bound(log_q[x, y2, z][None], log_q[x, y, z][None])
    assert expected <= world.mutual_information() + SLACK
    latent = (world.states[:, None] * world.transitions)[:, :, None] * log_q.exp()
    looser_by = world.latent_entropy() + (latent * log_q).sum()  # I(Z; Y|X), documented
    torch.testing.assert_close(expected + looser_by, world.latent_entropy() + world.recovery())
    assert looser_by >= -SLACK


@settings(max_examples=40, deadline=None)
@given(worlds(), st.integers(0, 2**32))
def test_elbo_never_exceeds_the_log_likelihood_and_is_tight_at_the_posterior(world, seed):
    n_x, n_y, n_z = world.shape
    noise = torch.randn(n_x, n_z, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    prior = torch.softmax(2 * noise, 1)
    log_q, log_p = world.log_q(), world.log_p()
    expected = torch.zeros((), dtype=torch.float64)
    for x, y, z in itertools.product(range(n_x), range(n_y), range(n_z)):
        weight = world.states[x] * world.transitions[x, y] * log_q[x, y, z].exp()
        expected += weight * elbo_estimate(log_p[x, z, y][None], log_q[x, y, z][None], prior[x, z].log()[None])
    torch.testing.assert_close(expected, world.elbo(prior), rtol=1e-9, atol=1e-9)
    assert expected <= world.log_likelihood(prior) + SLACK

    posterior = torch.log_softmax(prior.log()[:, :, None] + log_p, dim=1)  # [X, Z, Y]
    if len(world.idm.logits) == 1:  # a table over single tokens can hold any posterior
        tight = world.with_idm(TabularPolicy([posterior.transpose(1, 2).reshape(n_x * n_y, 1, n_z)]))
        torch.testing.assert_close(tight.elbo(prior), world.log_likelihood(prior), rtol=1e-9, atol=1e-9)


def test_sampled_bounds_agree_with_their_exact_values():
    world = World.random(3, x=2, y=(2, 2), z=(3, 1), scale=1.5)
    n, generator = 40_000, torch.Generator().manual_seed(7)

    def draw(probabilities: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    log_q, log_p, prior = world.log_q(), world.log_p(), world.belief()
    x = draw(world.states.expand(n, -1))
    y = draw(world.transitions[x])
    z = draw(log_q[x, y].exp())
    y2 = draw(log_p[x, z].exp())
    judged, latent = log_q[x, y2, z], log_q[x, y, z]
    entropy = -((world.states[:, None] * world.transitions)[:, :, None] * log_q.exp() * log_q).sum()
    exact = entropy + world.recovery()
    error = (judged - latent).std() / n**0.5
    assert abs(mutual_information_bound(judged, latent) - exact) < 4 * error
    assert mutual_information_bound(judged, latent) < world.mutual_information()

    likelihood, reference = log_p[x, z, y], prior[x, z].log()
    error = (likelihood - latent + reference).std() / n**0.5
    assert abs(elbo_estimate(likelihood, latent, reference) - world.elbo(prior)) < 4 * error


def test_elbo_refuses_samples_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"one value a sample, got shapes \(3,\), \(2,\), \(3,\)"):
        elbo_estimate(torch.zeros(3), torch.zeros(2), torch.zeros(3))
