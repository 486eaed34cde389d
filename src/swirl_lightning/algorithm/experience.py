"""What a GRPO phase knows of one batch: its rollouts, and what the frozen opposite model thinks of them.

B pairs, G members of a group, T sampled tokens at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from swirl_lightning.types import Role, ScoredRow, State, Trajectory, UnlabelledPair


@dataclass(frozen=True, slots=True)
class LatentActions:
    """What the frozen IDM infers in Phase I, an action a pair."""

    actions: tuple[str, ...]  # B
    logprob: Tensor  # float32 [B], log Q(z | x, y) of the actions as they were drawn, nats
    tokens: int  # sampled for them


@dataclass(frozen=True, slots=True)
class Importance:
    """How the policy differs from another engine that drew for it."""

    weights: Tensor  # float32 [B, G, T], p / q of each token, capped
    mismatch: float  # sum over tokens of |log p - log q|, nats


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Groups of completions of the policy."""

    role: Role  # the policy
    pairs: tuple[UnlabelledPair, ...]  # B
    latent: LatentActions | None  # in Phase I; in Phase II actions are what is rolled out
    samples: tuple[tuple[State, ...], ...]  # B x G decoded completions: states in Phase I, actions in Phase II
    trajectory: Trajectory  # their token ids and log-probabilities
    rows: tuple[tuple[ScoredRow, ...], ...]  # B x G, prompt and completion
    importance: Importance | None  # where another engine drew
    cut_tokens: int  # that prompts lost to the length limit
    anchored: bool = False  # whether the last member of each group is the observed next state, which nobody drew

    @property
    def drawn(self) -> int:
        """Members of a group that the policy drew; they come first."""
        return len(self.samples[0]) - self.anchored if self.samples else 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the frozen opposite model thinks of the members."""

    rewards: Tensor  # float32 [B, G]; not finite for a member that is left out for it
    parts: dict[str, Tensor]  # float32 [B, G], each part of the reward by name, unweighted
    logprob: Tensor | None  # float32 [B, G], of the judge's whole sequence, nats; None where no reward asks the judge
    clamped: Tensor  # bool [B, G], True where the reward hit its lower clamp
    skipped: Tensor  # bool [B, G], members left out: their reward is not finite, or they were cut and count for nothing


@dataclass(frozen=True, slots=True)
class Experience:
    """One batch of a GRPO phase."""

    rollouts: Rollouts
    judgement: Judgement
    advantages: Tensor  # float32 [B, G], 0 for members left out
    zero_spread: Tensor  # bool [B], True where all members of a group were rewarded alike
    seconds: dict[str, float] = field(default_factory=dict)  # wall time per part

    def forgetting(self) -> Experience:
        """The same without what the policy has computed of its prompts, which its step makes outdated."""
        return replace(self, rollouts=replace(self.rollouts, trajectory=replace(self.rollouts.trajectory, prefixes=None)))

    @property
    def trained(self) -> Tensor:
        """Tokens that the loss is about, bool [B, G, T]."""
        return self.rollouts.trajectory.mask & ~self.judgement.skipped[..., None]
