"""The small protocol behind which rollout engines stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
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
        looks_ahead: whether the next batch can be drawn beside the training on this one.
    """

    importance_cap: float | None = None
    looks_ahead: bool = False

    @abstractmethod
    def generate(self, model: PreTrainedModel, request: RolloutRequest) -> Trajectory:
        """Draw what is asked for.

        Args:
            model: a causal LM, in eval mode, the right adapter active.
            request: prompts, seeds, group size, sampling settings and constraint.

        Returns:
            The trajectory, prompts in the order given.
        """

    def check(self, model: PreTrainedModel) -> None:
        """Called before training starts.

        Args:
            model: a policy.

        Raises:
            ValueError: if the engine cannot draw for such a model.
        """
        return

    def close(self) -> None:
        """Ends what the engine has started, if anything; it starts anew when it is asked again."""
        return

    def begin(self, model: PreTrainedModel, request: RolloutRequest) -> None:
        """Starts to draw what ``generate`` is going to be asked for next; only where the engine ``looks_ahead``.

        Args:
            model: the policy as it is now: what it draws is a step old by the time it is asked for.
            request: what will be asked for. Where another thing is asked for then, this is forgotten.

        Raises:
            NotImplementedError: if the engine draws nothing ahead.
        """
        raise NotImplementedError(f"{type(self).__name__} draws nothing ahead")


@dataclass(frozen=True, slots=True)
class Begun:
    """A rollout under way."""

    asked: tuple[object, ...]
    drawn: Future[Trajectory]

    @classmethod
    def of(cls, request: RolloutRequest, drawn: Future[Trajectory]) -> Begun:
        """What was asked for, and what is going to come of it."""
        return cls(_asked(request), drawn)

    def answers(self, request: RolloutRequest) -> bool:
        """Whether it is what ``request`` asks for."""
        return self.asked == _asked(request)


def _asked(request: RolloutRequest) -> tuple[object, ...]:
    """What tells one rollout of a policy from another: its prompts and their seeds, how many, and how they are drawn."""
    prompts = tuple(tuple(prompt) for prompt in request.prompts)
    return prompts, tuple(request.seeds), request.group_size, request.sampling
