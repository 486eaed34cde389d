"""What YAML says about a role as policy: typed, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from swirl_lightning.algorithm.objectives.grpo import GrpoConfig
from swirl_lightning.codecs.constraints import ConstraintSpec
from swirl_lightning.types import SamplingParams


@dataclass(frozen=True)
class RoleSettings:
    """How a role is trained when it is the policy, and how it is sampled.

    Attributes:
        sampling: how completions are drawn.
        group_size: G, completions per prompt.
        grpo: clipping, KL and aggregation.
        advantage: divide by the group's standard deviation (``std``) or only centre (``none``).
        reward: mean or sum of the judge's per-token log-probabilities.
        reward_floor: per-token-mean rewards are clamped here, as in the released code; None for no clamp.
        truncated: what a completion is worth that was cut at ``max_new_tokens``. ``mask``: nothing is learned from it, and its
            group is compared without it (overlong filtering, DAPO, arXiv:2503.14476), as long as two members ended; a weak
            pair, of which hardly any do, is compared by what there is. ``floor``: its reward is ``reward_floor``.
            ``reward``: that of what there is, as if it had ended (the released code).
        inner_epochs: optimisation passes over one rollout.
        nll_weight: weight of ``-log P(y|x,z)`` per token on the pairs' own next states (FWM only): maximising the ELBO over
            theta is exactly this likelihood. 0 is the paper.
        replay_weight: weight of the supervised loss on labelled warm-up transitions; the data's ``replay_batch_size`` says
            how many a step. 0 is the paper.
        constraint: which tokens the role may emit; None for all.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    group_size: int = 16
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    advantage: Literal["std", "none"] = "std"
    reward: Literal["mean", "sum"] = "mean"
    reward_floor: float | None = -10.0
    truncated: Literal["reward", "mask", "floor"] = "mask"
    inner_epochs: int = 1
    nll_weight: float = 0.0
    replay_weight: float = 0.0
    constraint: ConstraintSpec | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the field, its value and what it may be.
        """
        if self.group_size < 2:
            raise ValueError(f"group_size must be at least 2, got {self.group_size}: advantages compare a group's members")
        if self.truncated not in ("reward", "mask", "floor"):
            raise ValueError(f"truncated must be 'reward', 'mask' or 'floor', got {self.truncated!r}")
        if self.truncated == "floor" and self.reward_floor is None:
            raise ValueError("truncated: floor needs a reward_floor, which is None")
        if self.inner_epochs < 1:
            raise ValueError(f"inner_epochs must be at least 1, got {self.inner_epochs}")
        if self.nll_weight < 0 or self.replay_weight < 0:
            raise ValueError("nll_weight and replay_weight must be >= 0")
