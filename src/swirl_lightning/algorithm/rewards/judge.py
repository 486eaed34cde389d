"""The paper's reward."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from swirl_lightning.algorithm.objectives.rewards import sequence_reward
from swirl_lightning.algorithm.rewards.base import Members, Reward


class JudgeLogprob(Reward):
    """Log-probability that the frozen opposite model gives the member (arXiv:2602.06130, Algorithm 1).

    Args:
        reduce: ``mean`` over tokens (the paper) or their ``sum``.
        floor: Per-token means are clamped here, as in the released code; None for no clamp.
    """

    def __init__(self, reduce: Literal["mean", "sum"] = "mean", floor: float | None = -10.0) -> None:
        self.reduce: Literal["mean", "sum"] = reduce
        self.floor = floor

    @override
    def __call__(self, members: Members) -> Tensor:
        rewards, clamped = sequence_reward(members.judged, reduce=self.reduce, clamp_min=self.floor)
        members.clamped = members.clamped.to(clamped.device) | clamped
        return rewards

    @override
    def least(self, members: Members) -> Tensor:
        lengths = members.judged.mask.sum(-1) if self.reduce == "sum" else torch.ones(len(members))
        return lengths * (self.floor or 0.0)
