"""A reward of your own: copying the old state is worth less than any honest try. Modules are found on PYTHONPATH.

model:
  fwm:
    rewards:
      - reward: { class_path: JudgeLogprob } # the paper's
      - reward: { class_path: own_reward.Moved } # this one
        weight: 0.5
"""

from __future__ import annotations

import torch
from torch import Tensor

from swirl_lightning.algorithm.rewards import Member, Members, Reward


class Moved(Reward):
    """1 where the predicted state differs from the old one just where the observed one does, else 0."""

    def __call__(self, members: Members) -> Tensor:
        """What each member is worth, float [N]."""
        return torch.tensor([float(moved(member)) for member in members])


def moved(member: Member) -> bool:
    """Whether prediction and observation both changed, or both stayed."""
    before = member.pair.state
    return (member.next_state == before) == (member.pair.next_state == before)
