"""Draws of another program than the policy itself: scored again, and weighted by how likely the policy finds them."""

from __future__ import annotations

from dataclasses import replace

from swirl_lightning.algorithm.experience import Importance, Rollouts
from swirl_lightning.world_model.inference import Inference

_OTHER_MODEL = 0.5  # nats a token between engine and policy; bfloat16 against float32 makes a few hundredths


def scored_again(inference: Inference, rollouts: Rollouts) -> Rollouts:
    """What another engine drew, with the policy's own log-probabilities and capped importance weights.

    Raises:
        ValueError: if the engine's probabilities are so far off that it cannot run this model.
    """
    cap, trajectory = inference.engine.importance_cap, rollouts.trajectory
    if cap is None:
        return rollouts
    with inference.world_model.use(rollouts.role) as model:
        temperature = inference.sampling[rollouts.role].temperature or 1.0
        constraint = inference.constraints.get(rollouts.role)
        scores = inference.scorer.score(model, rollouts.rows, temperature=temperature, constraint=constraint)
    own = scores.logprobs.view_as(trajectory.logprobs).to(trajectory.logprobs.device)
    difference = (own - trajectory.logprobs).masked_fill(~trajectory.mask, 0.0)
    mismatch, tokens = float(difference.abs().sum()), int(trajectory.mask.sum())
    if mismatch > _OTHER_MODEL * tokens:
        raise ValueError(
            f"the engine's log-probabilities are off by {mismatch / tokens:.2f} a token: it runs another base model than "
            f"{inference.world_model.config.base_name!r}, or does not report them at the sampling temperature"
        )
    importance = Importance(difference.exp().clamp(max=cap), mismatch)
    return replace(rollouts, trajectory=replace(trajectory, logprobs=own, current=True), importance=importance)
