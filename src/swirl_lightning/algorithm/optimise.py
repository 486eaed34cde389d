"""Losses of one step as micro-batches: parts whose gradients add up to those of the whole batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.algorithm.objectives.grpo import grpo_loss
from swirl_lightning.algorithm.settings import RoleSettings
from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.distributed.sharding import in_step
from swirl_lightning.scoring.scorer import IDLE, CausalScorer
from swirl_lightning.types import Experience, ScoredRow


@dataclass(frozen=True, slots=True)
class LossPart:
    """One micro-batch: a loss to send backward, and sums to log."""

    loss: Tensor  # scalar; parts add up to the step's loss
    sums: dict[str, float]  # additive statistics


def supervised_parts(
    scorer: CausalScorer, model: PreTrainedModel, groups: Sequence[Sequence[ScoredRow]], weights: Sequence[float]
) -> Iterator[LossPart]:
    """Negative log-likelihood ``-sum_n weights[n] * sum_t log p_nt``, part by part.

    Args:
        scorer: computes log-probabilities.
        model: the policy, in train mode.
        groups: rows, those with a common prefix together; N in all.
        weights: N factors in the flattened order, e.g. one over the number of scored tokens.

    Yields:
        Parts with the sum ``nll`` (weighted).
    """
    rows = [row for group in groups for row in group]
    for batch in in_step(scorer.micro_batches(groups), model):
        if batch is None:
            yield _idle(scorer, model)
            continue
        scores = scorer(model, [[rows[n] for n in part] for part in batch])
        index = [n for part in batch for n in part]
        factor = torch.tensor([weights[n] for n in index], device=scores.logprobs.device)  # [n]
        loss = -(scores.logprobs.sum(-1) * factor).sum()
        yield LossPart(loss, {"nll": float(loss.detach())})


def trained_groups(experience: Experience, settings: RoleSettings) -> list[int]:
    """Groups that can move the policy: without a KL term, a group without spread has no gradient and costs nothing."""
    if settings.grpo.beta > 0:
        return list(range(len(experience.groups)))
    return [b for b, flat in enumerate(experience.zero_spread.tolist()) if not flat]


def policy_parts(
    scorer: CausalScorer,
    model: PreTrainedModel,
    experience: Experience,
    settings: RoleSettings,
    *,
    reference: Tensor | None,
    normaliser: float,
    on_policy: bool,
    constraint: TokenConstraint | None = None,
) -> Iterator[LossPart]:
    """GRPO loss of an experience, part by part (arXiv:2602.06130, Section 3).

    While the policy is still the one that sampled, the ratio is formed with its own log-probabilities, so that its value is
    exactly one and no second forward pass is needed; later passes use the log-probabilities recorded while sampling.

    Args:
        scorer: computes log-probabilities.
        model: the policy, in train mode.
        experience: the rollouts, B x G.
        settings: the policy's settings.
        reference: log-probabilities under the reference policy, [B, G, T], or None without a KL term.
        normaliser: denominator of the whole batch, over all ranks.
        on_policy: whether the policy is unchanged since the rollout.
        constraint: the policy's constraint, as in sampling.

    Yields:
        Parts with the additive statistics of ``grpo_loss`` and ``entropy``, ``tokens``, ``mismatch``.
    """
    chosen = trained_groups(experience, settings)
    groups = [experience.groups[b] for b in chosen]
    rows = [(b, k) for b in chosen for k in range(len(experience.groups[b]))]
    trajectory, temperature = experience.trajectory, settings.sampling.temperature or 1.0
    assert experience.skipped is not None
    for batch in in_step(scorer.micro_batches(groups), model):
        if batch is None:
            yield _idle(scorer, model)
            continue
        parts = [[experience.groups[b][k] for b, k in (rows[n] for n in part)] for part in batch]
        picked = torch.tensor([rows[n] for part in batch for n in part], device=trajectory.mask.device).unbind(1)  # b, k: [n]
        scores = scorer(model, parts, temperature=temperature, constraint=constraint, entropy=True)  # [n, t]
        t = scores.logprobs.shape[1]
        mask = (trajectory.mask & ~experience.skipped[..., None])[picked][:, :t]  # [n, t]
        sampled = trajectory.logprobs[picked][:, :t]
        old = scores.logprobs.detach() if on_policy else sampled
        result = grpo_loss(
            scores.logprobs,
            old,
            experience.advantages[picked],
            mask,
            settings.grpo,
            ref_logprobs=None if reference is None else reference[picked][:, :t],
            normaliser=normaliser,
            weights=None if experience.importance is None else experience.importance[picked][:, :t],
        )
        sums = {
            **result.sums,
            "entropy": float((scores.entropy * mask).sum()),
            "tokens": float(mask.sum()),
            "mismatch": float(((scores.logprobs.detach() - sampled).abs() * mask).sum()),
        }
        yield LossPart(result.loss, sums)


def _idle(scorer: CausalScorer, model: PreTrainedModel) -> LossPart:
    """The part of a rank that has no rows left while others go on with a sharded model: its gradients are zero."""
    return LossPart(scorer(model, [IDLE]).logprobs.sum() * 0.0, {})
