"""Attention over groups that share a prefix, as an attention function of ``transformers``.

A group of G rows that begin alike is computed as one prefix and G short members. Embeddings, MLPs and the output head see
each distinct token once (one flat, unpadded row); only attention knows about the sharing. Two layouts use it:

* ``PackedLayout``: scoring and training, whole rows at once, with gradients;
* ``DecodeLayout`` (``rollout/decode.py``): one new token a member on top of a cached prefix.

The layout travels to the attention function as the keyword argument ``shared_prefix`` of the model's ``forward``, and on the
mask where layers pass no keywords on; both also reach the recomputation of gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from swirl_lightning.scoring.causal_blocks import attend_causally
from swirl_lightning.scoring.explicit import KeyScores, attend
from swirl_lightning.scoring.two_parts import attend_in_two_parts, two_parts_kernel

ATTENTION_NAME = "swirl_shared_prefix"
_ON_MASK = "swirl_layout"
_UNDERSTOOD = frozenset({"s_aux", "position_ids", "cache_position"})  # tensors that choose no keys, or that are heeded
_COPY_COST = 32  # copying one key and value costs about as much as letting this many queries visit it


class AttentionLayout(Protocol):
    """How the flat tokens of one forward pass attend to each other."""

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scores: KeyScores) -> Tensor:
        """Attention output [batch, tokens, heads, head_dim] of [batch, heads, tokens, head_dim] inputs."""
        ...


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prefix: AttentionLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The registered function: the layout's attention where one is given, plain SDPA otherwise.

    Raises:
        NotImplementedError: if the architecture asks for more than causal attention, whether or not a short row shows it:
            sparse attention (DeepSeek-V3.2, GLM-5, MiniMax-M3) sees all keys up to a length and the chosen ones beyond.
    """
    for name, told in kwargs.items():
        if isinstance(told, Tensor) and name not in _UNDERSTOOD:
            raise NotImplementedError(f"attention that is told {name!r}, which only the architecture's own heeds")
    scores = KeyScores(scaling, kwargs.get("sliding_window"), kwargs.get("softcap"), kwargs.get("s_aux"))
    given = getattr(attention_mask, _ON_MASK, None)
    if shared_prefix is not None and attention_mask is not None and given is None:
        raise NotImplementedError("a mask that the architecture makes for itself")
    shared_prefix = shared_prefix or given
    if shared_prefix is not None:
        return shared_prefix.attend(module, query, key, value, scores).contiguous(), None  # as the model's own
    if scores.in_kernels:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    groups = query.shape[1] // key.shape[1]
    output = attend(query, repeat_kv(key, groups), repeat_kv(value, groups), attention_mask, scores)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION_NAME, _attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)


def inputs_of(layout: AttentionLayout, device: torch.device) -> dict[str, Any]:
    """Arguments of a model's ``forward`` that bring a layout to the attention function.

    The mask is a placeholder, which keeps ``transformers`` from building one; layouts make their own. It carries the layout to
    the attention of layers that pass no keywords on (StableLM, Nemotron).
    """
    mask = torch.empty(1, 1, 1, 1, device=device)
    setattr(mask, _ON_MASK, layout)
    return {"attention_mask": mask, "shared_prefix": layout}


@dataclass
class PackedLayout:
    """B groups in one flat row of N tokens; group b has P_b prefix tokens and up to G members of up to T tokens.

    Attributes:
        prefix_lengths: P_b, known without asking the device.
        prefix_index: int64 [B, P], flat position of every prefix token, 0 where padded.
        prefix_mask: bool [B, P].
        member_index: int64 [B, G, T], flat position of every member token, 0 where padded.
        member_mask: bool [B, G, T].
        flat_slot: int64 [N], where the output of a flat token lies in ``[B*P prefix slots | B*G*T member slots]``.
        captured: filled with the prefix keys and values of every layer, [B, kv_heads, P, head_dim] each, if not None.
        first_query: layer and prefix slot; in that layer the outputs of slots before it are not needed, and are zeros.
    """

    prefix_lengths: tuple[int, ...]
    prefix_index: Tensor
    prefix_mask: Tensor
    member_index: Tensor
    member_mask: Tensor
    flat_slot: Tensor
    captured: dict[int, tuple[Tensor, Tensor]] | None = None
    first_query: tuple[int, int] | None = None
    _masks: dict[tuple[str | int | None, ...], Tensor | None] = field(default_factory=dict, repr=False)

    @property
    def members_as_rows(self) -> bool:
        """Whether members attend as separate rows (prefix keys copied) or as one masked row a group."""
        prefix, (members, tail) = self.prefix_index.shape[1], self.member_index.shape[1:]
        one_row = members * tail * (prefix + members * tail)
        rows = members * (tail + _COPY_COST) * (prefix + tail)
        return rows < one_row

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scores: KeyScores) -> Tensor:
        """Attention of flat tokens.

        Args:
            module: the attention module (names the layer).
            query: [1, heads, N, head_dim].
            key: [1, kv_heads, N, head_dim].
            value: [1, kv_heads, N, head_dim].
            scores: how this layer scores keys.

        Returns:
            [1, N, heads, head_dim].
        """
        groups = query.shape[1] // key.shape[1]
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [N, heads, d]
        pq, pk, pv = (_take(x, self.prefix_index).transpose(1, 2) for x in (q, k, v))  # [B, heads, P, d]
        if self.captured is not None:
            self.captured[int(module.layer_idx)] = (pk.contiguous(), pv.contiguous())  # type: ignore[arg-type]
        layer, first = self.first_query or (-1, 0)
        first = first if layer == module.layer_idx else 0
        out = self._attend_prefix(pq[:, :, first:], repeat_kv(pk, groups), repeat_kv(pv, groups), scores)
        out = F.pad(out, (0, 0, first, 0)) if first else out  # [B, H, P, d]
        outputs = [out.transpose(1, 2).flatten(0, 1)]  # [B*P, H, d]
        if self.member_index.numel():
            outputs.append(self._attend_members(q, k, v, pk, pv, scores))
        return torch.cat(outputs).index_select(0, self.flat_slot)[None]  # [1, N, H, d]

    def _attend_prefix(self, q: Tensor, k: Tensor, v: Tensor, scores: KeyScores) -> Tensor:
        """Prefix part of ``attend``: the last Q queries, [B, H, Q, d], of P keys and values."""
        if self.without_masks(q, v, scores):
            return attend_causally(q, k, v, scores.scaling)
        return attend(q, k, v, self._prefix_band(scores.window, k.shape[2] - q.shape[2]), scores)

    def _attend_members(self, q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, scores: KeyScores) -> Tensor:
        """Member part of ``attend``, on prefix keys and values [B, kv_heads, P, d]: [B*G*T, H, d]."""
        b, g, t = self.member_index.shape
        if self._unwindowed(scores) and two_parts_kernel(q, v) is not None:
            mq, mk, mv = (_take(x, self.member_index) for x in (q, k, v))  # [B, G, T, heads, d]
            scale = q.shape[-1] ** -0.5 if scores.scaling is None else scores.scaling
            return attend_in_two_parts(mq, pk, pv, mk, mv, self.prefix_lengths, scale).flatten(0, 2)
        groups = q.shape[1] // k.shape[1]
        pk, pv = repeat_kv(pk, groups), repeat_kv(pv, groups)  # [B, H, P, d]
        if self.members_as_rows:
            index = self.member_index.flatten(0, 1)  # [B*G, T]
            pk, pv = (x.repeat_interleave(g, dim=0) for x in (pk, pv))  # [B*G, H, P, d]
        else:
            index = self.member_index.flatten(1, 2)  # [B, G*T]
        mq = _take(q, index).transpose(1, 2)  # [rows, H, queries, d]
        mk, mv = (repeat_kv(_take(x, index).transpose(1, 2), groups) for x in (k, v))
        mask = self._member_mask(scores.window)
        out = attend(mq, torch.cat([pk, mk], dim=2), torch.cat([pv, mv], dim=2), mask, scores)
        return out.transpose(1, 2).reshape(b * g * t, q.shape[1], -1)  # [B*G*T, H, d]

    def without_masks(self, query: Tensor, value: Tensor, scores: KeyScores) -> bool:
        """Whether tokens attend without a mask of the layout's: where the CPU's kernel can, and no window cuts anything off."""
        return query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and self._unwindowed(scores)

    def _unwindowed(self, scores: KeyScores) -> bool:
        """Whether a kernel can compute the scores, and no window cuts anything off."""
        longest = self.prefix_index.shape[1] + self.member_index.shape[2]
        return scores.in_kernels and (scores.window is None or longest <= scores.window)

    def _prefix_band(self, window: int | None, first: int) -> Tensor | None:
        """Who may be seen by prefix slots from ``first`` on, bool [1, 1, P-first, P]; None where plain causality is enough."""
        length = self.prefix_index.shape[1]
        window = length if window is None else window
        if not first and length <= window:
            return None
        key = ("prefix", window, first)
        if key not in self._masks:
            at = torch.arange(length, device=self.prefix_index.device)
            distance = at[first:, None] - at  # [P-first, P]
            self._masks[key] = ((distance >= 0) & (distance < window))[None, None]
        return self._masks[key]

    def skip_queries(self, layer: int, positions: Tensor) -> None:
        """Lets a layer leave out the prefix queries before the first that is needed.

        Args:
            layer: its index.
            positions: int64 [U], flat tokens whose outputs are needed.
        """
        needed = (torch.isin(self.prefix_index, positions) & self.prefix_mask).any(0)  # [P]
        first = int(needed.int().argmax()) if bool(needed.any()) else len(needed) - 1
        self.first_query = layer, first if 2 * first > len(needed) else 0  # fewer are not worth a mask

    def _member_mask(self, window: int | None) -> Tensor:
        """Who a member token may see: bool [B*G, 1, T, P+T] for rows, [B, 1, G*T, P+G*T] for one row a group."""
        key = ("member", window)
        cached = self._masks.get(key)
        if cached is not None:
            return cached
        b, g, t = self.member_index.shape
        p, device = self.prefix_index.shape[1], self.prefix_index.device
        own = torch.arange(t, device=device)
        to_prefix = self.prefix_mask[:, None].expand(b, t, p)  # [B, T, P]
        to_own = own[:, None] >= own  # [T, T]
        if window is not None:
            at = self.prefix_mask.sum(1)[:, None] + own  # [B, T] positions of member tokens
            to_prefix = to_prefix & (at[:, :, None] - torch.arange(p, device=device) < window)
            to_own = to_own & (own[:, None] - own < window)
        if self.members_as_rows:
            mask = torch.cat([to_prefix, to_own.expand(b, t, t)], dim=-1)  # [B, T, P+T]
            mask = mask.repeat_interleave(g, dim=0)[:, None]  # [B*G, 1, T, P+T]
        else:
            same = torch.eye(g, dtype=torch.bool, device=device)[:, None, :, None] & to_own[None, :, None, :]
            mask = torch.cat([to_prefix.repeat(1, g, 1), same.reshape(g * t, g * t).expand(b, g * t, g * t)], dim=-1)[
                :, None
            ]  # [B, 1, G*T, P+G*T]
        self._masks[key] = mask
        return mask


@dataclass
class TailLayout(PackedLayout):
    """Members alone in the flat row, on top of prefixes that an earlier pass has captured.

    Attributes:
        prefix: per layer, keys and values of B prefixes, [B, kv_heads, P or more, head_dim].
    """

    prefix: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scores: KeyScores) -> Tensor:
        """Attention of the members' flat tokens; see ``PackedLayout.attend``."""
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [N, heads, d]
        size = self.prefix_index.shape[1]
        pk, pv = (x[:, :, :size] for x in self.prefix[int(module.layer_idx)])  # type: ignore[arg-type]
        return self._attend_members(q, k, v, pk, pv, scores).index_select(0, self.flat_slot)[None]


def tail_layout(
    prefix: Mapping[int, tuple[Tensor, Tensor]],
    prefix_lengths: Sequence[int],
    member_lengths: Sequence[Sequence[int]],
    device: torch.device,
) -> TailLayout:
    """Layout of a flat row ``[members of 1, members of 2, ...]``.

    Args:
        prefix: what ``PackedLayout.captured`` holds after a pass over B prefixes.
        prefix_lengths: how many tokens of each the members follow, at least 1.
        member_lengths: B lists of member lengths, each at least 1.
        device: where the index tensors live.

    Returns:
        The layout of ``sum(member)`` flat tokens.
    """
    whole = pack_layout(prefix_lengths, member_lengths, device)
    before = whole.prefix_mask.sum(1).cumsum(0)  # [B], prefix tokens that do not stand in front of a group's members
    members: list[int] = []  # their flat positions among prefixes and members
    for i, lengths in enumerate(member_lengths):
        start = sum(prefix_lengths[: i + 1]) + len(members)
        members.extend(range(start, start + sum(lengths)))
    slots = whole.flat_slot.index_select(0, torch.tensor(members, dtype=torch.int64, device=device))
    return TailLayout(
        whole.prefix_lengths,
        whole.prefix_index,
        whole.prefix_mask,
        (whole.member_index - before[:, None, None]).clamp(min=0),  # padding points anywhere
        whole.member_mask,
        slots - whole.prefix_mask.numel(),
        prefix=prefix,
    )


def _take(flat: Tensor, index: Tensor) -> Tensor:
    """Rows of ``flat`` [N, ...] at ``index`` [*shape] -> [*shape, ...]."""
    return flat.index_select(0, index.reshape(-1)).view(*index.shape, *flat.shape[1:])


def pack_layout(
    prefix_lengths: Sequence[int],
    member_lengths: Sequence[Sequence[int]],
    device: torch.device,
    *,
    capture: bool = False,
) -> PackedLayout:
    """Layout of a flat row ``[prefix_1, members of 1, prefix_2, members of 2, ...]``.

    Args:
        prefix_lengths: B prefix lengths, each at least 1.
        member_lengths: B lists of member lengths, each at least 1 (a list may be empty).
        device: where the index tensors live.
        capture: keep the prefix keys and values (prefill of a rollout).

    Returns:
        The layout of ``sum(prefix) + sum(member)`` flat tokens.
    """
    b, p = len(prefix_lengths), max(prefix_lengths)
    g = max((len(lengths) for lengths in member_lengths), default=0)
    t = max((n for lengths in member_lengths for n in lengths), default=0)
    if t == 0:
        g = 0
    prefix_index = torch.zeros(b, p, dtype=torch.int64)
    prefix_mask = torch.zeros(b, p, dtype=torch.bool)
    member_index = torch.zeros(b, g, t, dtype=torch.int64)
    member_mask = torch.zeros(b, g, t, dtype=torch.bool)
    slots: list[Tensor] = []
    flat = 0
    for i, (length, lengths) in enumerate(zip(prefix_lengths, member_lengths, strict=True)):
        prefix_index[i, :length] = torch.arange(flat, flat + length)
        prefix_mask[i, :length] = True
        slots.append(torch.arange(i * p, i * p + length))
        flat += length
        for j, n in enumerate(lengths):
            member_index[i, j, :n] = torch.arange(flat, flat + n)
            member_mask[i, j, :n] = True
            first = b * p + (i * g + j) * t
            slots.append(torch.arange(first, first + n))
            flat += n
    return PackedLayout(
        tuple(prefix_lengths),
        prefix_index.to(device),
        prefix_mask.to(device),
        member_index.to(device),
        member_mask.to(device),
        torch.cat(slots).to(device),
        captured={} if capture else None,
    )
