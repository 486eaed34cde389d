"""Attention of group members in two parts, on their prefix and on themselves, joined by their log-sum-exps.

The prefix's keys and values are read where they lie (never copied for the members) and without a mask: every member
sees the whole prefix, and itself causally. The backward pass gives each part the joint output and log-sum-exp, from which
the kernels recompute the joint softmax (as ring attention does, arXiv:2310.01889).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swirl_lightning.internals import cpu_attention, cpu_attention_backward
from swirl_lightning.scoring.causal_blocks import causal_backward, causal_forward


def attend_in_two_parts(
    query: Tensor, prefix_key: Tensor, prefix_value: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, scale: float
) -> Tensor:
    """Attention of B groups of G members of T tokens; CPU only.

    Args:
        query: [B, G, T, heads, head_dim].
        prefix_key: [B, kv_heads, P, head_dim].
        prefix_value: as the key.
        key: [B, G, T, kv_heads, head_dim].
        value: as the key.
        padding: [B, 1, 1, P] in the dtype of the query, 0 where a prefix token is and -inf where padding is; None without.
        scale: factor of the scores.

    Returns:
        [B, G, T, heads, head_dim].
    """
    out: Tensor = _TwoParts.apply(query, prefix_key, prefix_value, key, value, padding, scale)  # type: ignore[no-untyped-call]
    return out


class _TwoParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, pk: Tensor, pv: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, scale: float
    ) -> Tensor:
        kv = pk.shape[1]
        q1, (q2, k2, v2) = _to_prefix(query, kv), _to_own(query, key, value)
        out1, lse1 = cpu_attention(q1, pk, pv, attn_mask=None if padding is None else _expand(padding, q1), scale=scale)
        out2, lse2 = causal_forward(q2, k2, v2, scale)
        out1, out2 = _from_prefix(out1, query, kv), _from_own(out2, query)  # [B, G, T, H, d]
        lse1, lse2 = _from_prefix(lse1[..., None], query, kv), _from_own(lse2[..., None], query)  # [B, G, T, H, 1]
        lse = torch.logaddexp(lse1, lse2)
        out = out1.mul_((lse1 - lse).exp_()).add_(out2.mul_((lse2 - lse).exp_()))
        ctx.save_for_backward(query, pk, pv, key, value, padding, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, pk, pv, key, value, padding, out, lse = ctx.saved_tensors
        kv, scale = pk.shape[1], ctx.scale
        q1, (q2, k2, v2) = _to_prefix(query, kv), _to_own(query, key, value)
        mask = None if padding is None else _expand(padding, q1)
        seen = (_to_prefix(grad, kv), q1, pk, pv, _to_prefix(out, kv), _to_prefix(lse, kv)[..., 0].contiguous())
        dq1, dpk, dpv = cpu_attention_backward(*seen, 0.0, False, attn_mask=mask, scale=scale)
        g2, out2, lse2 = (_rows(x) for x in (grad, out, lse))
        dq2, dk2, dv2 = causal_backward(g2, q2, k2, v2, out2, lse2[..., 0].contiguous(), scale)
        b, g, t, heads, d = query.shape
        dk, dv = (x.view(b, g, kv, heads // kv, t, d).sum(3).permute(0, 1, 3, 2, 4) for x in (dk2, dv2))  # [B, G, T, kv, d]
        return _from_prefix(dq1, query, kv) + _from_own(dq2, query), dpk, dpv, dk, dv, None, None


def _to_prefix(x: Tensor, kv: int) -> Tensor:
    """[B, G, T, H, d] -> [B, kv, H/kv * G * T, d]: heads that share a key become queries of it."""
    b, g, t, heads, d = x.shape
    return x.view(b, g, t, kv, heads // kv, d).permute(0, 3, 4, 1, 2, 5).reshape(b, kv, -1, d)


def _from_prefix(x: Tensor, query: Tensor, kv: int) -> Tensor:
    """[B, kv, H/kv * G * T, d] -> [B, G, T, H, d]."""
    b, g, t, heads, _ = query.shape
    return x.reshape(b, kv, heads // kv, g, t, -1).permute(0, 3, 4, 1, 2, 5).reshape(b, g, t, heads, -1)


def _rows(x: Tensor) -> Tensor:
    """[B, G, T, H, d] -> [B*G, H, T, d]."""
    return x.flatten(0, 1).transpose(1, 2)


def _to_own(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Members as rows, keys and values repeated for the heads that share them."""
    repeats = query.shape[3] // key.shape[3]
    own_key, own_value = (_rows(x.repeat_interleave(repeats, dim=3) if repeats > 1 else x) for x in (key, value))
    return _rows(query), own_key, own_value


def _from_own(x: Tensor, query: Tensor) -> Tensor:
    """[B*G, H, T, d] -> [B, G, T, H, d]."""
    b, g, t, heads, _ = query.shape
    return x.transpose(1, 2).reshape(b, g, t, heads, -1)


def _expand(padding: Tensor, query: Tensor) -> Tensor:
    """The padding mask as the kernel wants it: [B, 1, queries, P], not copied."""
    return padding.expand(-1, -1, query.shape[2], -1)
