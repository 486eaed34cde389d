"""The small protocol behind which rollout engines stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.types import SamplingParams, Trajectory


class RolloutEngine(ABC):
    """Draws a group of completions for every prompt.

    Attributes:
        importance_cap: None where log-probabilities are those of the model itself; otherwise the largest importance weight of a
            token, since what another program drew is scored again by the model.
    """

    importance_cap: float | None = None

    @abstractmethod
    def generate(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        group_size: int,
        params: SamplingParams,
        *,
        seeds: Sequence[int],
        stop_ids: Sequence[int],
        pad_id: int,
        constraint: TokenConstraint | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Trajectory:
        """Sample ``group_size`` completions of each prompt.

        Args:
            model: a causal LM, in eval mode, the right adapter active.
            prompts: B token-id sequences, unpadded.
            group_size: G.
            params: sampling settings; temperature 0 is greedy.
            seeds: B integers; what is drawn for a prompt depends on its own seed only.
            stop_ids: tokens that end a completion (they are part of it).
            pad_id: fills the right of finished completions.
            constraint: which tokens may follow; log-probabilities are renormalised inside it.
            progress: called with the number of newly finished members.

        Returns:
            The trajectory, prompts in the order given.
        """
