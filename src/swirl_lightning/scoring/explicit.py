"""How a layer scores its keys, and attention with what no kernel has: soft caps and sinks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class KeyScores:
    """From dot products of queries and keys to attention weights.

    Attributes:
        scaling: factor of the dot products; None is ``1/sqrt(head_dim)``.
        window: sliding-window size, None for full attention.
        softcap: ``c`` of ``c tanh(score / c)`` (Gemma 2), None without.
        sinks: one learned score a head that takes part in the softmax without a value (GPT-OSS), [heads]; None without.
    """

    scaling: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def in_kernels(self) -> bool:
        """Whether torch's attention kernels compute them."""
        return self.softcap is None and self.sinks is None

    def capped(self, scores: Tensor) -> Tensor:
        """Scaled dot products with the soft cap."""
        return scores if self.softcap is None else torch.tanh(scores / self.softcap) * self.softcap

    def weights(self, scores: Tensor, sinks: Tensor | None) -> Tensor:
        """Attention weights of capped and masked scores [..., keys], with ``sinks`` [..., 1] in the denominator."""
        if sinks is None:
            return scores.float().softmax(-1).to(scores.dtype)
        return torch.cat([scores, sinks], dim=-1).float().softmax(-1)[..., :-1].to(scores.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scores: KeyScores) -> Tensor:
    """Attention under a mask.

    Args:
        query: [B, heads, Q, head_dim].
        key: [B, heads, T, head_dim].
        value: [B, heads, T, value_dim].
        mask: broadcastable to [B, heads, Q, T], bool (who may be seen) or additive; None is plain causality, the queries last.
        scores: how keys are scored (the window is the mask's business).

    Returns:
        [B, heads, Q, value_dim].
    """
    if scores.in_kernels:
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, scale=scores.scaling)
    factor = query.shape[-1] ** -0.5 if scores.scaling is None else scores.scaling
    found = scores.capped((query * factor) @ key.transpose(-1, -2))  # [B, heads, Q, T]
    if mask is None:
        mask = torch.ones(found.shape[-2:], dtype=torch.bool, device=found.device).tril(found.shape[-1] - found.shape[-2])
    found = found.masked_fill(~mask, torch.finfo(found.dtype).min) if mask.dtype == torch.bool else found + mask
    sinks = None if scores.sinks is None else scores.sinks.to(found.dtype)[:, None, None].expand(*found.shape[:-1], 1)
    return scores.weights(found, sinks) @ value
