"""Beyond the paper: the observed next state as one more member of each of the FWM's groups."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from swirl_lightning.algorithm.experience import Rollouts
from swirl_lightning.types import ScoredRow
from swirl_lightning.world_model.inference import Inference


def with_anchor(inference: Inference, rollouts: Rollouts) -> Rollouts:
    """The observed next state as one more member of each group; its log-probabilities are the policy's, as if drawn."""
    builder, trajectory = inference.prompts, rollouts.trajectory
    answers = [builder.state_completion(pair.next_state) for pair in rollouts.pairs]
    rows = tuple(ScoredRow((*prompt, *ids), len(prompt)) for prompt, ids in zip(trajectory.prompts, answers, strict=True))
    with inference.world_model.use(rollouts.role) as model:
        temperature = inference.sampling[rollouts.role].temperature or 1.0
        constraint = inference.constraints.get(rollouts.role)
        scores = inference.scorer.score(model, [[row] for row in rows], temperature=temperature, constraint=constraint)
    width = max(trajectory.mask.shape[-1], scores.mask.shape[-1])
    ids = torch.full(scores.mask.shape, inference.codec.pad_id, dtype=torch.int64)
    for i, answer in enumerate(answers):
        ids[i, : len(answer)] = torch.tensor(answer)

    def joined(drawn: Tensor, anchor: Tensor, filler: int = 0) -> Tensor:
        """[B, G, T] and [B, T'] -> [B, G + 1, longest]."""
        both = (drawn, anchor.to(drawn.device)[:, None])
        return torch.cat([nn.functional.pad(part, (0, width - part.shape[-1]), value=filler) for part in both], dim=1)

    importance = rollouts.importance
    if importance is not None:
        importance = replace(importance, weights=joined(importance.weights, torch.ones_like(scores.logprobs)))
    return replace(
        rollouts,
        samples=tuple(
            (*drawn, inference.codec.canonical(p.next_state)) for drawn, p in zip(rollouts.samples, rollouts.pairs, strict=True)
        ),
        rows=tuple((*drawn, row) for drawn, row in zip(rollouts.rows, rows, strict=True)),
        trajectory=replace(
            trajectory,
            completions=joined(trajectory.completions, ids, inference.codec.pad_id),
            mask=joined(trajectory.mask, scores.mask),
            logprobs=joined(trajectory.logprobs, scores.logprobs),
            finished=nn.functional.pad(trajectory.finished, (0, 1), value=True),
        ),
        importance=importance,
        anchored=True,
    )
