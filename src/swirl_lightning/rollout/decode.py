"""Attention of one decoding step: the prompt's keys are read once for its whole group, never copied for the members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from swirl_lightning.scoring.explicit import KeyScores


@dataclass
class DecodeLayout:
    """State of a running rollout: B prompts, G members each, ``step`` tokens generated so far.

    Attributes:
        prefix: per layer, keys and values of the prompts, [B, kv_heads, P, head_dim].
        prefix_lengths: int64 [B].
        between: the least and the most of them, known without asking the device.
        own: per layer, keys and values of generated tokens, [B, G, kv_heads, capacity, head_dim], filled up to ``step``.
        capacity: most tokens a member may generate.
        step: index of the token that is fed now.
        compiled: whether ``torch.compile`` fuses a step's attention.
    """

    prefix: Mapping[int, tuple[Tensor, Tensor]]
    prefix_lengths: Tensor
    between: tuple[int, int]
    group_size: int
    capacity: int
    own: dict[int, tuple[Tensor, Tensor]]
    step: int = 0
    compiled: bool = False
    _hidden: dict[int | None, Tensor | None] = field(default_factory=dict, repr=False)  # by window, of this step

    def start(self, step: int) -> None:
        """Makes ``step`` the index of the token that is fed now."""
        self.step = step
        self._hidden.clear()

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scores: KeyScores) -> Tensor:
        """Attention of the newest token of every member.

        Args:
            module: the attention module (names the layer).
            query: [B*G, heads, 1, head_dim].
            key: [B*G, kv_heads, 1, head_dim].
            value: [B*G, kv_heads, 1, head_dim].
            scores: how this layer scores keys.

        Returns:
            [B*G, 1, heads, head_dim].
        """
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        pk, pv = self.prefix[layer]
        (b, kv, p, d), g, t = pk.shape, self.group_size, self.step
        if layer not in self.own:
            room = (b, g, kv, self.capacity)
            self.own[layer] = (key.new_empty(*room, d), value.new_empty(*room, value.shape[-1]))
            if self.compiled:  # which looks at all of the room
                for empty in self.own[layer]:
                    empty.zero_()
        ok, ov = self.own[layer]
        ok[:, :, :, t] = key.view(b, g, kv, d)
        ov[:, :, :, t] = value.view(b, g, kv, -1)
        if not self.compiled:
            ok, ov = ok[:, :, :, : t + 1], ov[:, :, :, : t + 1]
        hidden = self._prefix_hidden(p, scores.window), self._own_hidden(ok.shape[3], scores.window)
        sinks = None if scores.sinks is None else scores.sinks.to(query.dtype)
        attention = compiled_attention() if self.compiled else attention_of_one
        out = attention(query.view(b, g, kv, -1, d), pk, pv, ok, ov, *hidden, sinks, scores)
        return out.reshape(b * g, 1, query.shape[1], -1)

    def _prefix_hidden(self, p: int, window: int | None) -> Tensor | None:
        """Prompt positions that may not be seen, bool [B, P], or None when all may; found once a step."""
        if window not in self._hidden:
            shortest, longest = self.between
            leaves = window is not None and longest + self.step >= window  # the window has left the first position
            hidden = None
            if shortest < p or leaves:
                at = torch.arange(p, device=self.prefix_lengths.device)
                hidden = at >= self.prefix_lengths[:, None]
                if window is not None:
                    hidden = hidden | (at <= (self.prefix_lengths + self.step)[:, None] - window)
            self._hidden[window] = hidden
        return self._hidden[window]

    def _own_hidden(self, s: int, window: int | None) -> Tensor | None:
        """Of S places for generated tokens those that may not be seen, bool [S], or None when all may."""
        first = 0 if window is None else max(self.step + 1 - window, 0)
        if first == 0 and s == self.step + 1 and not self.compiled:  # where it is, always a mask: one graph
            return None
        at = torch.arange(s, device=self.prefix_lengths.device)
        return (at < first) | (at > self.step)

    def keep(self, prompts: Tensor, members: Tensor) -> None:
        """Drops finished prompts and members.

        Args:
            prompts: int64 [B'], prompts that go on.
            members: int64 [B', G'], members of theirs that go on.
        """
        same = len(prompts) == len(self.prefix_lengths)
        if not same:
            self.prefix = {i: (k[prompts], v[prompts]) for i, (k, v) in self.prefix.items()}
            self.prefix_lengths = self.prefix_lengths[prompts]
        rows = prompts[:, None]
        self.own = {i: (k[rows, members], v[rows, members]) for i, (k, v) in self.own.items()}
        self.group_size = members.shape[1]
        self._hidden.clear()


def attention_of_one(
    query: Tensor,
    pk: Tensor,
    pv: Tensor,
    ok: Tensor,
    ov: Tensor,
    prefix_hidden: Tensor | None,
    own_hidden: Tensor | None,
    sinks: Tensor | None,
    scores: KeyScores,
) -> Tensor:
    """Attention of one new token a member to its prompt and to what it has generated.

    Args:
        query: [B, G, kv_heads, heads/kv_heads, head_dim].
        pk: keys of the prompts, [B, kv_heads, P, head_dim].
        pv: values of the prompts, [B, kv_heads, P, value_dim].
        ok: keys of generated tokens, [B, G, kv_heads, S, head_dim].
        ov: values of generated tokens, [B, G, kv_heads, S, value_dim].
        prefix_hidden: prompt positions that may not be seen, bool [B, P]; None when all may.
        own_hidden: generated tokens that may not be seen, bool [S]; None when all may.
        sinks: [heads] of the query's type, or None.
        scores: how keys are scored.

    Returns:
        [B, G, kv_heads, heads/kv_heads, value_dim].
    """
    (b, g, kv, rep, d), p = query.shape, pk.shape[2]
    q = query * (d**-0.5 if scores.scaling is None else scores.scaling)
    shared = q.transpose(1, 2).reshape(b, kv, g * rep, d)
    to_prefix = (shared @ pk.transpose(-1, -2)).view(b, kv, g, rep, p).transpose(1, 2)  # [B, G, kv, rep, P]
    to_own = q @ ok.transpose(-1, -2)  # [B, G, kv, rep, S]
    to_prefix, to_own = scores.capped(to_prefix), scores.capped(to_own)
    if prefix_hidden is not None:
        to_prefix = to_prefix.masked_fill(prefix_hidden[:, None, None, None], -torch.inf)
    if own_hidden is not None:
        to_own = to_own.masked_fill(own_hidden, -torch.inf)
    ends = None if sinks is None else sinks.view(kv, rep, 1).expand(b, g, kv, rep, 1)
    weights = scores.weights(torch.cat([to_prefix, to_own], dim=-1), ends)  # [B, G, kv, rep, P+S]
    on_prefix = weights[..., :p].transpose(1, 2).reshape(b, kv, g * rep, p)
    out = (on_prefix @ pv).view(b, kv, g, rep, -1).transpose(1, 2)
    return out + weights[..., p:] @ ov


@cache
def compiled_attention() -> Callable[..., Tensor]:
    """``attention_of_one`` fused, for any number of prompts, members and keys; compiled at its first use."""
    return torch.compile(attention_of_one, dynamic=True)
