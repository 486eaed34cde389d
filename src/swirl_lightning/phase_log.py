"""Scalars of a step, named for TensorBoard, and the samples that broke one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from swirl_lightning.objectives.bounds import elbo_estimate, mutual_information_bound
from swirl_lightning.types import Batch, Experience, Role, Transition, UnlabelledPair


def experience_values(experience: Experience, reference: Tensor | None) -> dict[str, float]:
    """Rewards, advantages, lengths, shares and the phase's variational bound (arXiv:2602.06130, Theorems 3.1, 3.2).

    Args:
        experience: the step's rollouts.
        reference: log-probabilities under the reference policy, [B, G, T], or None.

    Returns:
        Means over the batch; bounds in nats per transition.
    """
    rewards, trajectory = experience.rewards, experience.trajectory
    distinct = sum(len({row.ids for row in group}) for group in experience.groups)
    values = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(dim=1).mean()),
        "advantage_spread": float((experience.advantages.amax(1) - experience.advantages.amin(1)).mean()),
        "length": float(trajectory.lengths.float().mean()),
        "truncated_share": float((~trajectory.finished).float().mean()),
        "zero_spread_share": float(experience.zero_spread.float().mean()),
        "clamped_share": float(experience.clamped.float().mean()),
        "distinct_share": distinct / rewards.numel(),
        "cut_tokens": float(experience.cut_tokens),
    }
    assert experience.judged is not None
    assert experience.skipped is not None
    values["skipped"] = float(experience.skipped.sum())
    judged = experience.judged[~experience.skipped]  # [n]
    if experience.role is Role.FWM:
        assert experience.latent_logprob is not None
        values["latent_entropy"] = -float(experience.latent_logprob.mean())
        values["information_bound"] = float(mutual_information_bound(judged, experience.latent_logprob))
    elif reference is not None:
        sampled = trajectory.logprobs.sum(-1)[~experience.skipped]
        prior = reference.sum(-1)[~experience.skipped]
        values["elbo"] = float(elbo_estimate(judged, sampled, prior))
    return values


def loss_values(sums: Mapping[str, float]) -> dict[str, float]:
    """Means out of a step's additive statistics."""
    tokens = max(1.0, sums.get("tokens", 0.0))
    per_token = ("kl", "clip_low", "clip_high", "ratio", "entropy", "mismatch")
    values = {name: sums[name] / tokens for name in per_token if name in sums}
    if "loss" in sums:
        values["loss"] = sums["loss"]
    return values


def write_sample(path: Path, sample: Mapping[str, object], batch: Batch) -> Path:
    """Writes what gave a number that is not finite; without a sample of its own, the whole batch's transitions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if "episode" not in sample:
        items: list[Transition | UnlabelledPair] = [*batch.labelled, *batch.unlabelled]
        sample = {**sample, "transitions": [asdict(item) for item in items]}
    path.write_text(json.dumps(sample, indent=2, default=str), encoding="utf-8")
    return path
