"""Supervised loss of the warm-up, of replay and of pseudo-labels."""

from __future__ import annotations

from torch import Tensor


def nll_loss(logprobs: Tensor, mask: Tensor, normaliser: float) -> Tensor:
    """Negative log-likelihood per token.

    Args:
        logprobs: [N, T].
        mask: bool [N, T], True on scored tokens.
        normaliser: scored tokens of the *whole* batch, so that micro-batches (and ranks) add up to the batch's loss.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: if ``normaliser`` is not positive.
    """
    if normaliser <= 0:
        raise ValueError(f"normaliser must be the number of scored tokens of the whole batch, got {normaliser}")
    return -logprobs.masked_fill(~mask, 0.0).sum() / normaliser
