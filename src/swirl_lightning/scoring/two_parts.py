"""Attention of group members in two parts, on their prefix and on themselves, joined by their log-sum-exps.

The prefix's keys and values are read where they lie (never copied for the members) and without a mask of who sees whom: every
member sees the whole prefix, and itself causally. The backward pass gives each part the joint output and log-sum-exp, from
which the kernels recompute the joint softmax (as ring attention does, arXiv:2310.01889).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swirl_lightning.internals import cpu_attention, cpu_attention_backward, flash_attention, flash_attention_backward
from swirl_lightning.scoring.causal_blocks import causal_backward, causal_forward


class Rows(NamedTuple):
    """Queries and what they see. H heads where members see themselves, the keys' own heads where they see the prefix."""

    query: Tensor  # [B, heads, Q, head_dim]
    key: Tensor  # [B, heads, T, head_dim]
    value: Tensor  # as the key
    scale: float  # factor of the scores


class Kernel(Protocol):
    """Attention that tells its log-sum-exps: forward gives output, log-sum-exp [B, heads, Q], and what backward needs."""

    def prefix(self, rows: Rows, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Any]:
        """Every query sees the first ``lengths[b]`` keys."""
        ...

    def prefix_backward(
        self, grad: Tensor, rows: Rows, out: Tensor, lse: Tensor, lengths: Sequence[int], state: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value."""
        ...

    def own(self, rows: Rows) -> tuple[Tensor, Tensor, Any]:
        """Every query sees the keys up to its own."""
        ...

    def own_backward(self, grad: Tensor, rows: Rows, out: Tensor, lse: Tensor, state: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value."""
        ...


class _Cpu:
    """torch's flash kernel for CPUs, which takes a mask for padded prefixes."""

    def prefix(self, rows: Rows, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Any]:
        out, lse = cpu_attention(*rows[:3], attn_mask=self._padding(rows, lengths), scale=rows.scale)
        return out, lse, None

    def prefix_backward(
        self, grad: Tensor, rows: Rows, out: Tensor, lse: Tensor, lengths: Sequence[int], state: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        mask = self._padding(rows, lengths)
        found: tuple[Tensor, Tensor, Tensor] = cpu_attention_backward(
            grad, *rows[:3], out, lse, 0.0, False, attn_mask=mask, scale=rows.scale
        )
        return found

    def own(self, rows: Rows) -> tuple[Tensor, Tensor, Any]:
        return *causal_forward(*rows), None

    def own_backward(self, grad: Tensor, rows: Rows, out: Tensor, lse: Tensor, state: Any) -> tuple[Tensor, Tensor, Tensor]:
        return causal_backward(grad, *rows[:3], out, lse, rows.scale)

    @staticmethod
    def _padding(rows: Rows, lengths: Sequence[int]) -> Tensor | None:
        """Additive mask [B, 1, Q, P] that hides padded prefix slots, not copied for the queries; None where there are none."""
        size = rows.key.shape[2]
        if min(lengths) == size:
            return None
        mask = torch.zeros(len(lengths), 1, 1, size, dtype=rows.query.dtype)
        for row, length in zip(mask, lengths, strict=True):
            row[..., length:] = -torch.inf
        return mask.expand(-1, -1, rows.query.shape[2], -1)


class _Flash:
    """The flash kernel of GPUs, which takes no mask: groups with prefixes of unequal lengths go through it one by one."""

    def prefix(self, rows: Rows, lengths: Sequence[int]) -> tuple[Tensor, Tensor, Any]:
        parts = [self._forward(part, causal=False) for part in self._apart(rows, lengths)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), [p[2] for p in parts]

    def prefix_backward(
        self, grad: Tensor, rows: Rows, out: Tensor, lse: Tensor, lengths: Sequence[int], state: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        parts = list(self._apart(rows, lengths))
        sizes = [len(part.query) for part in parts]
        joint = zip(grad.split(sizes), parts, out.split(sizes), lse.split(sizes), state, strict=True)
        dqs, dks, dvs = zip(*(self._backward(*args, causal=False) for args in joint), strict=True)
        size = rows.key.shape[2]
        dk, dv = (torch.cat([torch.nn.functional.pad(x, (0, 0, 0, size - x.shape[2])) for x in found]) for found in (dks, dvs))
        return torch.cat(dqs), dk, dv

    def own(self, rows: Rows) -> tuple[Tensor, Tensor, Any]:
        return self._forward(rows, causal=True)

    def own_backward(self, grad: Tensor, rows: Rows, out: Tensor, lse: Tensor, state: Any) -> tuple[Tensor, Tensor, Tensor]:
        return self._backward(grad, rows, out, lse, state, causal=True)

    @staticmethod
    def _apart(rows: Rows, lengths: Sequence[int]) -> Iterator[Rows]:
        """Runs of groups whose prefixes are equally long, padding left out."""
        start = 0
        for end in range(1, len(lengths) + 1):
            if end == len(lengths) or lengths[end] != lengths[start]:
                key, value = (x[start:end, :, : lengths[start]] for x in (rows.key, rows.value))
                yield Rows(rows.query[start:end], key, value, rows.scale)
                start = end

    @staticmethod
    def _forward(rows: Rows, causal: bool) -> tuple[Tensor, Tensor, Any]:
        out, lse, *state, _ = flash_attention(*rows[:3], 0.0, causal, False, scale=rows.scale)
        return out, lse, state

    @staticmethod
    def _backward(
        grad: Tensor, rows: Rows, out: Tensor, lse: Tensor, state: Any, causal: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        *sizes, seed, offset = state  # cumulated and largest numbers of queries and keys; of dropout, which there is none of
        found: tuple[Tensor, Tensor, Tensor] = flash_attention_backward(
            grad, *rows[:3], out, lse, *sizes, 0.0, causal, seed, offset, scale=rows.scale
        )
        return found


def two_parts_kernel(query: Tensor, value: Tensor) -> Kernel | None:
    """The kernel for queries and values [..., head_dim] of this device, type and size, or None where there is none."""
    size = query.shape[-1]
    if size != value.shape[-1]:
        return None
    if query.device.type == "cpu":
        return _Cpu()
    half = query.dtype in (torch.float16, torch.bfloat16) and size <= 256 and size % 8 == 0
    if query.device.type == "cuda" and half and torch.cuda.get_device_capability(query.device) >= (8, 0):
        return _Flash()
    return None


def attend_in_two_parts(
    query: Tensor, prefix_key: Tensor, prefix_value: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float
) -> Tensor:
    """Attention of B groups of G members of T tokens, where there is a ``two_parts_kernel``.

    Args:
        query: [B, G, T, heads, head_dim].
        prefix_key: [B, kv_heads, P, head_dim].
        prefix_value: as the key.
        key: [B, G, T, kv_heads, head_dim].
        value: as the key.
        lengths: of the B prefixes, at most P; what lies behind them is not seen.
        scale: factor of the scores.

    Returns:
        [B, G, T, heads, head_dim].
    """
    out: Tensor = _TwoParts.apply(query, prefix_key, prefix_value, key, value, tuple(lengths), scale)  # type: ignore[no-untyped-call]
    return out


class _TwoParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, pk: Tensor, pv: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float
    ) -> Tensor:
        kernel, kv = two_parts_kernel(query, value), pk.shape[1]
        assert kernel is not None
        out1, lse1, of_prefix = kernel.prefix(Rows(_to_prefix(query, kv), pk, pv, scale), lengths)
        out2, lse2, of_own = kernel.own(Rows(*_to_own(query, key, value), scale))
        out1, out2 = _from_prefix(out1, query, kv), _from_own(out2, query)  # [B, G, T, H, d]
        lse1, lse2 = _from_prefix(lse1[..., None], query, kv), _from_own(lse2[..., None], query)  # [B, G, T, H, 1]
        lse = torch.logaddexp(lse1, lse2)
        out = out1.mul_((lse1 - lse).exp_()).add_(out2.mul_((lse2 - lse).exp_()))
        ctx.save_for_backward(query, pk, pv, key, value, out, lse)
        ctx.kernel, ctx.states, ctx.lengths, ctx.scale = kernel, (of_prefix, of_own), lengths, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, pk, pv, key, value, out, lse = ctx.saved_tensors
        kv, (of_prefix, of_own) = pk.shape[1], ctx.states
        rows = Rows(_to_prefix(query, kv), pk, pv, ctx.scale)
        joint = (_to_prefix(out, kv), _to_prefix(lse, kv)[..., 0].contiguous())
        dq1, dpk, dpv = ctx.kernel.prefix_backward(_to_prefix(grad, kv), rows, *joint, ctx.lengths, of_prefix)
        g2, out2, lse2 = (_rows(x) for x in (grad, out, lse))
        own = Rows(*_to_own(query, key, value), ctx.scale)
        dq2, dk2, dv2 = ctx.kernel.own_backward(g2, own, out2, lse2[..., 0].contiguous(), of_own)
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
