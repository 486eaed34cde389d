"""Causal attention on the CPU without the work in vain.

The CPU's kernel looks at 512 keys at a time, those after the query too: short rows do twice the work. Here queries go through
it in blocks, each with the keys up to its own end. Beyond ``_LONGEST`` tokens the kernel alone is as fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swirl_lightning.internals import cpu_attention, cpu_attention_backward

_BLOCK = 64  # queries that go through the kernel together
_LONGEST = 1536


def attend_causally(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Causal attention with gradients; CPU only.

    Args:
        query: [B, heads, Q, head_dim], of the last Q tokens.
        key: [B, heads, T, head_dim].
        value: as the key.
        scale: factor of the scores; None is ``1/sqrt(head_dim)``.

    Returns:
        [B, heads, Q, head_dim].
    """
    out: Tensor = _Causal.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
    return out


def causal_forward(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Output [B, heads, Q, head_dim] and log-sum-exp of the scores [B, heads, Q]; see ``attend_causally``."""
    parts = [
        cpu_attention(query[:, :, rows], key[:, :, :n], value[:, :, :n], is_causal=mask is None, attn_mask=mask, scale=scale)
        for rows, n, mask in _blocks(query, key.shape[2])
    ]
    if len(parts) == 1:
        return parts[0]  # type: ignore[no-any-return]
    return torch.cat([out for out, _ in parts], dim=2), torch.cat([lse for _, lse in parts], dim=2)


def causal_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value from that of the output, with ``causal_forward``'s results (or joint ones)."""
    dqs: list[Tensor] = []
    dk = dv = key  # replaced by the last block, which sees all keys
    for rows, seen, mask in reversed(list(_blocks(query, key.shape[2]))):
        of_rows = (x[:, :, rows] for x in (out, lse))
        args = (grad[:, :, rows], query[:, :, rows], key[:, :, :seen], value[:, :, :seen], *of_rows, 0.0, mask is None)
        dq, dk_, dv_ = cpu_attention_backward(*args, attn_mask=mask, scale=scale)
        if dqs:
            dk[:, :, :seen] += dk_
            dv[:, :, :seen] += dv_
        else:
            dk, dv = dk_, dv_
        dqs.insert(0, dq)
    return torch.cat(dqs, dim=2) if len(dqs) > 1 else dqs[0], dk, dv


def _blocks(query: Tensor, length: int) -> Iterator[tuple[slice, int, Tensor | None]]:
    """Rows of ``query`` [B, heads, Q, head_dim] in blocks: the rows, how many of the ``length`` keys they see, who sees which.

    The last is an additive mask [1, 1, rows, keys seen], or None for plain causality.
    """
    first = length - query.shape[2]  # position of the first query
    if not first and not _BLOCK < length <= _LONGEST:
        yield slice(0, length), length, None
        return
    hidden = torch.full((_BLOCK, length + _BLOCK), -torch.inf, dtype=query.dtype).triu_(length + 1)  # key after query + length
    for at in range(first, length, _BLOCK):
        seen = min(at + _BLOCK, length)
        yield slice(at - first, seen - first), seen, hidden[None, None, : seen - at, length - at : length - at + seen]


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        out, lse = causal_forward(query, key, value, scale)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        return *causal_backward(grad, query, key, value, out, lse, ctx.scale), None
