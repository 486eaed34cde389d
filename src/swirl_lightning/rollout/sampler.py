"""Rollouts inside the training process: every prompt is prefilled once, its group decodes on top of the shared cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel
from typing_extensions import override

from swirl_lightning.rollout.base import RolloutEngine, RolloutRequest
from swirl_lightning.rollout.drawing import draw
from swirl_lightning.rollout.self_check import rollout_path
from swirl_lightning.scoring.positions import positions_of
from swirl_lightning.types import SamplingParams, Trajectory


@dataclass(frozen=True)
class TransformersEngine(RolloutEngine):
    """Samples with the training model itself, so that log-probabilities are those of the policy.

    Attributes:
        cache_tokens: Key/value slots that may exist at once; more prompts than fit are sampled in turns.
    """

    cache_tokens: int = 1 << 18

    @override
    def generate(self, model: PreTrainedModel, request: RolloutRequest) -> Trajectory:
        """Draw what is asked for; see ``RolloutEngine``.

        Raises:
            ValueError: if a prompt is empty or the model has too few positions for it.
        """
        _check_room(model, request.prompts, request.sampling)
        return draw(model, request, rollout_path(model), self.cache_tokens)


def _check_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
    limit = positions_of(model)
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {i} is empty: a completion needs at least one token to continue")
        if limit is not None and len(prompt) + params.max_new_tokens > limit:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens and max_new_tokens is {params.max_new_tokens}, but the model has "
                f"{limit} positions: lower max_prompt_tokens or max_new_tokens"
            )
