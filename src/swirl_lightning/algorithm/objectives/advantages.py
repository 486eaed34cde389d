"""Group-relative advantages (arXiv:2602.06130, Section 3; GRPO, arXiv:2402.03300)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, *, normalise: Literal["std", "none"] = "std", eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    """How much better each member of a group is than its group: ``(r - mean) / (std + eps)``.

    The deviation is the sample one (divided by G - 1, as in TRL). Centring on the group's own mean shrinks the expected
    policy gradient by (G - 1) / G, because a member's reward is part of its own baseline; with ``none`` that is the
    only difference to the gradient of the expected reward.

    Args:
        rewards: [B, G].
        normalise: ``std`` divides by the group's standard deviation, ``none`` only centres.
        eps: added to the standard deviation.

    Returns:
        Advantages [B, G], exactly 0 in groups whose members were all rewarded alike, and bool [B] that is True there.

    Raises:
        ValueError: for a group of one, a wrong shape, an unknown ``normalise``, or rewards that are not finite.
    """
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be [B, G], got shape {tuple(rewards.shape)}")
    if rewards.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 members to be compared, got rewards of shape {tuple(rewards.shape)}")
    if normalise not in ("std", "none"):
        raise ValueError(f"normalise must be 'std' or 'none', got {normalise!r}")
    finite = torch.isfinite(rewards)
    if not bool(finite.all()):
        at = [tuple(index) for index in (~finite).nonzero().tolist()]
        raise ValueError(f"rewards are not finite at (group, member) {at[:10]}{' ...' if len(at) > 10 else ''}")
    zero_spread = rewards.amax(1) == rewards.amin(1)  # [B]
    advantages = rewards - rewards.mean(1, keepdim=True)  # [B, G]
    if normalise == "std":
        advantages = advantages / (rewards.std(1, keepdim=True) + eps)
    return advantages.masked_fill(zero_spread[:, None], 0.0), zero_spread
