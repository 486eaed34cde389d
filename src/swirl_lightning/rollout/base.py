"""The small protocol behind which rollout engines stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.types import SamplingParams, Trajectory

Keep = Literal["nothing", "values", "gradients"]
"""Of prompts: nothing, their keys and values, or those with the graph that leads back to the weights."""


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """What is to be drawn: a group of completions for each of B prompts."""

    prompts: Sequence[Sequence[int]]  # B token-id sequences, unpadded
    seeds: Sequence[int]  # B; what is drawn for a prompt depends on its own seed only
    group_size: int  # G, completions of each prompt
    sampling: SamplingParams  # temperature 0 is greedy
    stop_ids: Sequence[int]  # tokens that end a completion; they are part of it
    pad_id: int  # fills the right of finished completions
    keep: Keep = "nothing"  # of what is computed of the prompts, for later passes; an engine need not
    constraint: TokenConstraint | None = None  # which tokens may follow; log-probabilities are renormalised inside it
    progress: Callable[[int], None] | None = None  # called with the number of newly finished members


class RolloutEngine(ABC):
    """Draws a group of completions for every prompt.

    Attributes:
        importance_cap: None where log-probabilities are those of the model itself; otherwise the largest importance weight of a
            token, since what another program drew is scored again by the model.
    """

    importance_cap: float | None = None

    @abstractmethod
    def generate(self, model: PreTrainedModel, request: RolloutRequest) -> Trajectory:
        """Draw what is asked for.

        Args:
            model: a causal LM, in eval mode, the right adapter active.
            request: prompts, seeds, group size, sampling settings and constraint.

        Returns:
            The trajectory, prompts in the order given.
        """
