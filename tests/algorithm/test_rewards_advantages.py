"""Rewards and group advantages."""

from __future__ import annotations

import math

import pytest
import torch

from swirl_lightning.algorithm.objectives.grpo import group_advantages, group_moments
from swirl_lightning.algorithm.objectives.rewards import sequence_reward
from swirl_lightning.types import TokenScores


def scores(rows: list[list[float]]) -> TokenScores:
    width = max(len(row) for row in rows)
    padded = torch.tensor([row + [math.nan] * (width - len(row)) for row in rows])  # what is under the padding is nothing
    mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows])
    return TokenScores(padded, mask, torch.zeros_like(padded))


def test_mean_and_sum_rewards_clamp_the_same_rows():
    given = scores([[-1.0, -3.0], [-0.5], [-30.0, -2.0, -4.0], [-9.0, -11.0]])
    mean, clamped = sequence_reward(given)
    assert mean.tolist() == [-2.0, -0.5, -10.0, -10.0]
    assert clamped.tolist() == [False, False, True, False]  # exactly at the floor is not below it
    total, clamped_sum = sequence_reward(given, reduce="sum")
    assert total.tolist() == [-4.0, -0.5, -30.0, -20.0]  # the floor is -10 a token
    assert torch.equal(clamped, clamped_sum)


def test_no_clamp_leaves_every_reward_alone():
    mean, clamped = sequence_reward(scores([[-30.0, -2.0, -4.0], [-50.0]]), clamp_min=None)
    assert mean.tolist() == [-12.0, -50.0]
    assert clamped.tolist() == [False, False]


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_impossible_sequences_are_clamped_but_nan_is_left_to_be_found(reduce):
    given = scores([[-math.inf, -1.0], [math.nan, -1.0]])
    reward, clamped = sequence_reward(given, reduce=reduce)
    assert reward[0] == (-10 if reduce == "mean" else -20)
    assert math.isnan(reward[1])
    assert clamped.tolist() == [True, False]


def test_rows_without_tokens_and_unknown_reductions_are_named():
    with pytest.raises(ValueError, match=r"rows \[1\] have no scored token"):
        sequence_reward(scores([[-1.0], []]))
    with pytest.raises(ValueError, match="'mean' or 'sum', got 'max'"):
        sequence_reward(scores([[-1.0]]), reduce="max")


def test_advantages_are_centred_and_scaled_by_the_sample_deviation():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]])
    centred, flat = group_advantages(rewards, normalise="none")
    assert centred.tolist() == [[-1.0, 0.0, 1.0], [-2.0, -2.0, 4.0]]
    assert flat.tolist() == [False, False]
    scaled, _ = group_advantages(rewards)
    torch.testing.assert_close(scaled[0], centred[0] / (1.0 + 1e-4))
    torch.testing.assert_close(scaled[1], centred[1] / (math.sqrt(12) + 1e-4))
    halved, _ = group_advantages(rewards, eps=1.0)
    torch.testing.assert_close(halved[0], centred[0] / 2)


@pytest.mark.parametrize("normalise", ["std", "none"])
def test_groups_without_spread_get_an_exact_zero_despite_rounding(normalise):
    rewards = torch.full((2, 7), -0.1)  # the mean of seven equal floats may be another float
    rewards[1, 3] = -0.2
    advantages, zero_spread = group_advantages(rewards, normalise=normalise)
    assert zero_spread.tolist() == [True, False]
    assert advantages[0].tolist() == [0.0] * 7
    assert advantages[1].abs().min() > 0


@pytest.mark.parametrize("normalise", ["std", "none"])
def test_members_that_do_not_count_have_no_part_in_their_group(normalise):
    rewards = torch.tensor([[1.0, math.nan, 2.0, 5.0], [3.0, 3.0, -math.inf, 9.0], [4.0, 1.0, 1.0, 1.0], [math.nan] * 4])
    counted = torch.tensor([[True, False, True, True], [True, True, False, False], [True, False, False, False], [False] * 4])
    advantages, flat = group_advantages(rewards, counted=counted, normalise=normalise)
    alone, _ = group_advantages(rewards[:1, [0, 2, 3]], normalise=normalise)
    torch.testing.assert_close(advantages[:1, [0, 2, 3]], alone)
    assert not advantages[~counted].any()
    assert flat.tolist() == [False, True, True, True]
    assert not advantages[1:].any()
    mean, deviation = group_moments(rewards, counted)
    torch.testing.assert_close(mean, torch.tensor([8 / 3, 3.0, 4.0, 0.0]))
    torch.testing.assert_close(deviation[0], torch.tensor([1.0, 2.0, 5.0]).std())


def test_bad_rewards_are_named():
    with pytest.raises(ValueError, match=r"at least 2 members .* \(3, 1\)"):
        group_advantages(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"must be \[B, G\], got shape \(3,\)"):
        group_advantages(torch.zeros(3))
    with pytest.raises(ValueError, match="'std' or 'none', got 'max'"):
        group_advantages(torch.zeros(1, 2), normalise="max")
    rewards = torch.zeros(2, 3)
    rewards[1, 2], rewards[0, 1] = math.nan, -math.inf
    with pytest.raises(ValueError, match=r"not finite at \(group, member\) \[\(0, 1\), \(1, 2\)\]"):
        group_advantages(rewards)
