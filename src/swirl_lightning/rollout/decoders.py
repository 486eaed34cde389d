"""How a model goes on from prompts: ways from the fastest, which few caches allow, to one that needs no cache at all."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from swirl_lightning.distributed.sharding import device_of
from swirl_lightning.internals import is_compiled
from swirl_lightning.rollout.decode import DecodeLayout
from swirl_lightning.scoring.attention import inputs_of
from swirl_lightning.scoring.own_forward import head_at
from swirl_lightning.scoring.passes import prefill

_CACHES = ("past_key_values", "cache_params", "state")  # names under which architectures return and take what they keep


class RolloutPath(enum.StrEnum):
    """How completions are computed, the fastest first."""

    SHARED = "shared"  # a prompt's keys once for its group
    CACHE = "cache"  # the model's own cache, repeated for the group; prompts padded on the left
    EQUAL_LENGTHS = "cache, prompts of one length"  # where padding changes a recurrent state
    EXPANDED = "cache, members from the start"  # where a cache can be neither repeated nor cut
    RECOMPUTE = "recompute"  # where there is no cache to be trusted: all tokens again for every new one


class Decoder:
    """What a rollout needs of a model: logits after the prompts, then after one more token a member.

    Args:
        model: a causal LM.
        prompts: B token-id sequences.
        group_size: G, members of a prompt.
        capacity: most tokens a member may generate.
    """

    cuts = True  # whether ``keep`` drops rows

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], group_size: int, capacity: int) -> None:
        self.model, self.prompts, self.group_size, self.capacity = model, prompts, group_size, capacity
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=device_of(model))

    def prefill(self) -> Tensor:
        """Logits [B, V] of the first token."""
        raise NotImplementedError

    def decode(self, tokens: Tensor, step: int) -> Tensor:
        """Logits [B*G, V] after ``tokens`` [B, G], the ``step``-th generated ones."""
        raise NotImplementedError

    def keep(self, prompts: Tensor, members: Tensor) -> None:
        """Goes on with members [B', G'] of prompts [B'] only."""
        raise NotImplementedError


class SharedDecoder(Decoder):
    """Prompt keys and values are kept once a prompt."""

    @override
    def prefill(self) -> Tensor:
        logits, self.prefixes = prefill(self.model, self.prompts)
        sizes = [len(prompt) for prompt in self.prompts]
        self.layout = DecodeLayout(
            self.prefixes.values, self.lengths, (min(sizes), max(sizes)), self.group_size, self.capacity, {}
        )
        # on a CPU a step costs its products, and fusing what is between them costs more than it gains
        self.layout.compiled = self.lengths.is_cuda and any(map(is_compiled, self.model.modules()))
        return logits.detach()

    @override
    def decode(self, tokens: Tensor, step: int) -> Tensor:
        self.layout.start(step)
        positions = (self.layout.prefix_lengths + step)[:, None].expand_as(tokens)
        out = self.model(
            input_ids=tokens.reshape(-1, 1),
            position_ids=positions.reshape(-1, 1),
            use_cache=False,
            **inputs_of(self.layout, tokens.device),
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    @override
    def keep(self, prompts: Tensor, members: Tensor) -> None:
        self.layout.keep(prompts, members)


class CacheDecoder(Decoder):
    """The model's own cache, whatever it holds: left-padded prompts, repeated for the group after the prefill."""

    @override
    def prefill(self) -> Tensor:
        width, device = int(self.lengths.max()), device_of(self.model)
        ids = torch.zeros(len(self.prompts), width, dtype=torch.int64, device=device)
        for i, prompt in enumerate(self.prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt, device=device)
        self.mask = torch.arange(width, device=device) >= width - self.lengths[:, None]  # [B, P]
        self.accepted = inspect.signature(self.model.forward).parameters
        self.kept: dict[str, Any] = {}  # the cache, under the name that the model gives it
        logits = self._forward(ids, (self.mask.cumsum(-1) - 1).clamp(min=0))
        self._choose(torch.arange(len(ids), device=device).repeat_interleave(self.group_size))
        return logits

    @override
    def decode(self, tokens: Tensor, step: int) -> Tensor:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        return self._forward(tokens.reshape(-1, 1), self.mask.sum(-1, keepdim=True) - 1)

    @override
    def keep(self, prompts: Tensor, members: Tensor) -> None:
        self._choose((prompts[:, None] * self.group_size + members).reshape(-1))
        self.group_size = members.shape[1]

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits [rows, V] after the newest tokens."""
        given = {"attention_mask": self.mask.long(), "position_ids": positions}
        given = {name: value for name, value in given.items() if name in self.accepted}
        prepared = self.model.prepare_inputs_for_generation(  # type: ignore[operator]
            ids, is_first_iteration=not self.kept, use_cache=True, **given, **self.kept
        )
        with head_at(self.model, lambda hidden: hidden[:, -1:]):
            out = self.model(**prepared)
        self.kept = {name: cache for name in _CACHES if (cache := getattr(out, name, None)) is not None}
        if not self.kept:
            raise NotImplementedError("the model returns no cache")
        logits: Tensor = out.logits[:, -1]
        return logits

    def _choose(self, rows: Tensor) -> None:
        """Goes on with ``rows``, which may be repeated."""
        for cache in self.kept.values():
            cache.reorder_cache(rows)
        self.mask = self.mask[rows]


class ExpandedDecoder(CacheDecoder):
    """Members are rows from the prefill on, and the cache is left as the model made it: rows that have ended go on."""

    cuts = False

    @override
    def prefill(self) -> Tensor:
        distinct = len(self.prompts)
        self.prompts = [prompt for prompt in self.prompts for _ in range(self.group_size)]
        self.lengths = self.lengths.repeat_interleave(self.group_size)
        return super().prefill().view(distinct, self.group_size, -1)[:, 0]

    @override
    def _choose(self, rows: Tensor) -> None:
        pass


class RecomputeDecoder(Decoder):
    """No cache: whole rows, padded on the right, for every new token."""

    @override
    def prefill(self) -> Tensor:
        self.rows = [list(prompt) for prompt in self.prompts]
        logits = self._forward()
        self.rows = [list(row) for row in self.rows for _ in range(self.group_size)]
        return logits

    @override
    def decode(self, tokens: Tensor, step: int) -> Tensor:
        for row, token in zip(self.rows, tokens.reshape(-1).tolist(), strict=True):
            row.append(token)
        return self._forward()

    @override
    def keep(self, prompts: Tensor, members: Tensor) -> None:
        self.rows = [self.rows[i] for i in (prompts[:, None] * self.group_size + members).reshape(-1).tolist()]
        self.group_size = members.shape[1]

    def _forward(self) -> Tensor:
        """Logits [rows, V] after the last token of every row."""
        device = device_of(self.model)
        lengths = torch.tensor([len(row) for row in self.rows], device=device)
        mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]  # [rows, T]
        ids = torch.zeros(mask.shape, dtype=torch.int64, device=device)
        ids[mask] = torch.tensor([token for row in self.rows for token in row], device=device)
        with head_at(self.model, lambda hidden: hidden[torch.arange(len(hidden), device=device), lengths - 1][:, None]):
            out = self.model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        logits: Tensor = out.logits[:, -1]
        return logits


DECODERS: dict[RolloutPath, type[Decoder]] = {
    RolloutPath.SHARED: SharedDecoder,
    RolloutPath.CACHE: CacheDecoder,
    RolloutPath.EQUAL_LENGTHS: CacheDecoder,
    RolloutPath.EXPANDED: ExpandedDecoder,
    RolloutPath.RECOMPUTE: RecomputeDecoder,
}
