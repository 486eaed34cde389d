"""Scalars of a step, named for TensorBoard, and the samples that broke one."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from swirl_lightning.algorithm.experience import Experience
from swirl_lightning.algorithm.objectives.bounds import elbo_estimate, mutual_information_bound
from swirl_lightning.algorithm.objectives.grpo import group_moments
from swirl_lightning.algorithm.objectives.posterior import Posterior
from swirl_lightning.types import Batch, Transition, UnlabelledPair

_MISMATCH = 0.1  # nats a token between rollout and training pass; bfloat16 makes a few hundredths
COUNT = "/count"  # beside the sum of a mean: what to divide by


def experience_values(experience: Experience, reference: Tensor | None) -> dict[str, float]:
    """Rewards, advantages, lengths, shares and what the variational bounds need (arXiv:2602.06130, Theorems 3.1, 3.2).

    Args:
        experience: the step's rollouts; a rank's share may be empty.
        reference: log-probabilities under the reference policy, [B, G, T], or None.

    Returns:
        Sums that add up over ranks, those of means with their counts: see :func:`summary`.
    """
    rollouts, judgement = experience.rollouts, experience.judgement
    trajectory, latent, drawn = rollouts.trajectory, rollouts.latent, slice(rollouts.drawn)
    rewards, mask, counted = judgement.rewards[:, drawn], trajectory.mask[:, drawn], ~judgement.skipped[:, drawn]
    sums: dict[str, float] = {}

    def mean(name: str, values: Tensor) -> None:
        sums.update(mean_of(name, values))

    mean("reward", rewards[counted])
    mean("reward_std", group_moments(rewards, counted)[1])
    for name, values in judgement.parts.items():
        mean(f"reward/{name}", values[:, drawn][values[:, drawn].isfinite()])
    if rollouts.anchored:
        mean("anchor_reward", judgement.rewards[:, -1][judgement.rewards[:, -1].isfinite()])
    mean("advantage_spread", experience.advantages.amax(1) - experience.advantages.amin(1))
    mean("length", mask.sum(-1))
    mean("truncated_share", ~trajectory.finished[:, drawn])
    mean("zero_spread_share", experience.zero_spread)
    mean("clamped_share", judgement.clamped[:, drawn])
    if rollouts.importance is not None:
        mean("importance", rollouts.importance.weights[:, drawn][mask])
        sums |= {"engine_mismatch": rollouts.importance.mismatch, "engine_mismatch" + COUNT: float(mask.sum())}
    distinct = float(
        sum(len(set(members[drawn])) for members in rollouts.samples)
    )  # as texts: one may be spelt in several ways
    sums |= {"distinct_share": distinct, "distinct_share" + COUNT: float(rewards.numel())}
    sums["cut_tokens"] = float(rollouts.cut_tokens)
    sums["generated_tokens"] = float(mask.sum()) + (0 if latent is None else latent.tokens)
    broken = ~rewards.isfinite()
    sums |= {"skipped": float(broken.sum()), "masked": float((~counted & ~broken).sum())}
    if judgement.logprob is None:
        return sums
    judged = judgement.logprob[:, drawn][counted]  # [n]
    if latent is not None:
        mean("latent_entropy", -latent.logprob)
        mean("judged", judged)
    elif reference is not None:
        sampled, prior = (values.sum(-1)[:, drawn][counted] for values in (trajectory.logprobs, reference))
        elbo = float(elbo_estimate(judged, sampled, prior)) if len(judged) else 0.0
        sums |= {"elbo": elbo * len(judged), "elbo" + COUNT: float(len(judged))}
    return sums


def posterior_values(posterior: Posterior, rewards: Tensor) -> dict[str, float]:
    """How sure a closed form is, and whether the models agree: sums as :func:`summary` takes them.

    Args:
        posterior: over the candidates of B pairs.
        rewards: [B, N].
    """
    weights = posterior.weights
    return (
        mean_of("posterior_reward", (weights * rewards.where(weights > 0, 0.0)).sum(-1))
        | mean_of("posterior_entropy", posterior.entropy)
        | mean_of("effective_candidates", posterior.effective)
        | mean_of("agreement", posterior.agreement)
    )


def mean_of(name: str, values: Tensor) -> dict[str, float]:
    """A sum with its count."""
    return {name: float(values.double().sum()), name + COUNT: float(values.numel())}


def times(seconds: Mapping[str, float]) -> dict[str, float]:
    """Wall time of the parts of a step."""
    return {
        key: value for part, spent in seconds.items() for key, value in mean_of(f"time/{part}", torch.tensor(spent)).items()
    }


def loss_values(sums: Mapping[str, float]) -> dict[str, float]:
    """A step's additive statistics, per token where that is meant, as :func:`summary` takes them."""
    per_token = ("kl", "clip_low", "clip_high", "ratio", "entropy", "mismatch")
    values: dict[str, float] = {}
    for name in per_token:
        if name in sums:
            values |= {name: sums[name], name + COUNT: sums.get("tokens", 0.0)}
    if "loss" in sums:
        values["loss"] = sums["loss"]
    return values


def summary(sums: Mapping[str, float]) -> dict[str, float]:
    """Values to log, out of sums over all ranks.

    A sum with a count becomes a mean; the bounds are in nats per transition.
    """
    values = {
        name: total / max(1.0, sums[name + COUNT]) if name + COUNT in sums else total
        for name, total in sums.items()
        if not name.endswith(COUNT)
    }
    if values.get("mismatch", 0.0) > _MISMATCH:
        warnings.warn(
            f"the training pass gives sampled tokens other log-probabilities than the rollout, by more than {_MISMATCH} nats a "
            "token (logged as mismatch), so the gradient is not that of the policy that sampled: dropout in the model, or set "
            "world_model.compute_dtype to float32",
            stacklevel=2,
        )
    if "judged" in values:
        judged, latent = torch.tensor(values.pop("judged")), torch.tensor(-values["latent_entropy"])
        values["information_bound"] = float(mutual_information_bound(judged, latent))
    return values


def write_sample(path: Path, sample: Mapping[str, object], batch: Batch) -> None:
    """Writes what gave a number that is not finite, and says where; without a sample of its own, the batch's transitions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if "episode" not in sample:
        items: list[Transition | UnlabelledPair] = [*batch.labelled, *batch.unlabelled]
        sample = {**sample, "transitions": [asdict(item) for item in items]}
    path.write_text(json.dumps(sample, indent=2, default=str), encoding="utf-8")
    print(f"the offending sample is in {path}", file=sys.stderr, flush=True)


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Notes the wall time of what happens within it."""
    started = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - started
