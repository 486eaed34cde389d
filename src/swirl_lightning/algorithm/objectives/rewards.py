"""Rewards: how likely the frozen opposite model finds a sequence (arXiv:2602.06130, Section 3, Algorithm 1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from swirl_lightning.types import TokenScores


def sequence_reward(
    scores: TokenScores, *, reduce: Literal["mean", "sum"] = "mean", clamp_min: float | None = -10.0
) -> tuple[Tensor, Tensor]:
    """Log-probability of each row as a reward, in nats.

    The clamp acts on the mean over a row's tokens, as in the paper's released code; for ``sum`` that is a floor of
    ``clamp_min`` times the row's length, so both reductions clamp the same rows. ``-inf`` (a sequence outside the
    judge's constraint) is clamped like any other low value; NaN passes through, for the caller to find.

    Args:
        scores: the judge's log-probabilities of N rows.
        reduce: ``mean`` over a row's tokens (the paper) or their ``sum``.
        clamp_min: lowest mean log-probability per token; None for no clamp.

    Returns:
        Rewards [N] in the dtype of the scores, and bool [N], True where the clamp acted.

    Raises:
        ValueError: naming the rows that have no scored token, or an unknown ``reduce``.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce must be 'mean' or 'sum', got {reduce!r}")
    lengths = scores.mask.sum(-1)  # [N]
    if bool((lengths == 0).any()):
        raise ValueError(f"rows {(lengths == 0).nonzero()[:, 0].tolist()[:10]} have no scored token to be rewarded for")
    total = scores.logprobs.masked_fill(~scores.mask, 0.0).sum(-1)  # [N]
    mean = total / lengths
    if clamp_min is None:
        clamped = torch.zeros_like(mean, dtype=torch.bool)
    else:
        clamped = mean < clamp_min
        mean = mean.clamp(min=clamp_min)
        total = total.where(~clamped, clamp_min * lengths.to(total.dtype))
    return (mean if reduce == "mean" else total), clamped
