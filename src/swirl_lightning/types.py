"""Small frozen containers that travel between the rooms of swirl-lightning: one line and one shape per field."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

State: TypeAlias = str | bytes
"""A world state: text, or an encoded image (PNG bytes) in a visual world. A codec turns it into token ids."""


class Role(enum.StrEnum):
    """Which of the two models (arXiv:2602.06130, Section 3)."""

    FWM = "fwm"  # forward world model P_theta(y | x, z)
    IDM = "idm"  # inverse dynamics model Q_phi(z | x, y)

    @property
    def opposite(self) -> Role:
        """The model that judges this role's rollouts."""
        return Role.IDM if self is Role.FWM else Role.FWM


class Phase(enum.StrEnum):
    """What an epoch trains (arXiv:2602.06130, Algorithm 1)."""

    WARMUP = "warmup"  # supervised training of both roles on the labelled half
    FWM = "fwm"  # Phase I: IDM frozen, GRPO on the FWM
    IDM = "idm"  # Phase II: FWM frozen, GRPO on the IDM
    PSEUDO = "pseudo"  # baseline: supervised training of the FWM on IDM pseudo-labels (arXiv:2506.06006)


@dataclass(frozen=True, slots=True)
class UnlabelledPair:
    """A state-only transition: there is no field that could hold an action."""

    state: State  # x
    next_state: State  # y
    context: str = ""  # what both models may know besides the states (task, API document, ...)
    episode: str = ""  # episode id; splits never cut through an episode
    step: int = 0  # position inside the episode

    def with_action(self, action: str) -> Transition:
        """The same pair with an action that a model gave it."""
        return Transition(self.state, self.next_state, action, self.context, self.episode, self.step)


@dataclass(frozen=True, slots=True)
class Transition:
    """A labelled transition."""

    state: State  # x
    next_state: State  # y
    action: str  # z
    context: str = ""
    episode: str = ""
    step: int = 0

    def without_action(self) -> UnlabelledPair:
        """The same pair with its action physically gone."""
        return UnlabelledPair(self.state, self.next_state, self.context, self.episode, self.step)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training step receives. A SWIRL phase reads ``unlabelled`` only, plus ``labelled`` where replay is on."""

    labelled: tuple[Transition, ...] = ()  # warm-up batches, or replay of them inside another phase
    unlabelled: tuple[UnlabelledPair, ...] = ()  # state-only pairs, no action anywhere; in a warm-up where it asks for them
    upcoming: tuple[UnlabelledPair, ...] = ()  # those of the next batch, where they are drawn for ahead


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """What an epoch reads: the run knows it, and hands it to the data."""

    phase: Phase
    number: int  # epochs of its kind (warm-up, or SWIRL) that came before
    state_only: bool = False  # whether a warm-up epoch reads state-only pairs beside its labelled transitions
    group_size: int = 1  # completions that are drawn for each pair: the dearer long states are, the more they tell ranks apart
    ahead: bool = False  # whether a batch names the pairs of the next one, which an engine draws for meanwhile


class Run(Protocol):
    """What data must know of the run that reads them."""

    @property
    def phases(self) -> frozenset[Phase]:
        """Every phase that the run has."""

    def plan(self, epoch: int) -> EpochPlan:
        """What an epoch reads."""


@dataclass(frozen=True, slots=True)
class Splits:
    """What a run may look at before and beside its batches."""

    labelled: Sequence[Transition] = ()
    unlabelled: Sequence[UnlabelledPair] = ()
    val: Sequence[Transition] = ()
    test: Sequence[Transition] = ()
    replay_batch_size: int = 0  # labelled transitions beside every SWIRL batch


@runtime_checkable
class RunData(Protocol):
    """A datamodule that asks the run for its plan, and gives it the splits."""

    def connect(self, run: Run) -> Splits:
        """Called once, after ``setup`` of the data and before their first batch.

        Args:
            run: says what each epoch reads.

        Returns:
            The splits.

        Raises:
            ValueError: if a split that the run reads is empty.
        """


@dataclass(frozen=True)
class SamplingParams:
    """How completions are drawn.

    ``temperature=0`` is greedy. Log-probabilities of samples are those of the distribution at ``temperature`` inside
    the role's constraint; the top-k / top-p / min-p cut is not renormalised, so that sampled and recomputed
    log-probabilities are the same quantity (as in TRL).

    Attributes:
        max_new_tokens: Longest completion.
        temperature: 0 is greedy.
        top_k: Draw from so many most likely tokens; 0 is off.
        top_p: Draw from the most likely tokens that have this share of the probability; 1 is off.
        min_p: Leave out tokens below this share of the likeliest one's probability; 0 is off.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that no sampler can use.

        Raises:
            ValueError: naming the field, its value and the range it must lie in.
        """
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be >= 0 (0 is greedy), got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0 (0 turns it off), got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must lie in [0, 1), got {self.min_p}")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What a model has computed of B prompts, for passes over what follows them. P tokens in the longest."""

    prompts: tuple[tuple[int, ...], ...]  # B token-id tuples
    values: Mapping[int, tuple[Tensor, Tensor]]  # per layer keys and values, [B, kv_heads, P, head_dim]

    def take(self, chosen: Sequence[int]) -> Prefixes:
        """Those of some prompts, in the order given."""
        if list(chosen) == list(range(len(self.prompts))):
            return self
        index = torch.tensor(list(chosen), device=next(iter(self.values.values()))[0].device)
        values = {layer: (k.index_select(0, index), v.index_select(0, index)) for layer, (k, v) in self.values.items()}
        return Prefixes(tuple(self.prompts[i] for i in chosen), values)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A group of completions for every prompt of a batch. B prompts, G members, T sampled tokens at most."""

    prompts: tuple[tuple[int, ...], ...]  # B token-id tuples, unpadded
    completions: Tensor  # int64 [B, G, T], right-padded
    mask: Tensor  # bool [B, G, T], True on sampled tokens, the stop token included
    logprobs: Tensor  # float32 [B, G, T], of the sampled tokens, 0 where mask is False
    finished: Tensor  # bool [B, G], True where a stop token ended the member
    prefixes: Prefixes | None = None  # of the prompts, where they were to be kept
    current: bool = True  # whether the policy is still the one that drew; False where it drew ahead of a step

    @property
    def lengths(self) -> Tensor:
        """Sampled tokens per member, int64 [B, G]."""
        return self.mask.sum(-1)

    def completion_ids(self, prompt: int, member: int) -> list[int]:
        """Unpadded token ids of one member, the stop token included."""
        row = self.completions[prompt, member]
        kept: list[int] = row[self.mask[prompt, member]].tolist()
        return kept


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One sequence of which the tail is scored."""

    ids: tuple[int, ...]  # prompt and completion
    start: int  # index of the first scored token; 1 <= start <= len(ids)


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Per-token log-probabilities of the scored tails of N rows, T tokens at most."""

    logprobs: Tensor  # float32 [N, T], 0 where mask is False
    mask: Tensor  # bool [N, T]
    entropy: Tensor  # float32 [N, T], of the (temperature, constraint) distribution; no gradient


def seeded_generator(*parts: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends only on ``parts`` (seed, epoch, batch, rank): resuming needs no saved RNG state.

    Args:
        *parts: non-negative integers that identify the position in the run.
        device: where the generator draws.

    Returns:
        A freshly seeded generator.
    """
    state = 0x9E3779B97F4A7C15
    for part in parts:  # splitmix64 over the parts
        state = (state + int(part) + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator(device=device).manual_seed(state & 0x7FFFFFFFFFFFFFFF)
