"""Rollouts inside the training process: every prompt is prefilled once, its group decodes on top of the shared cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from typing_extensions import override

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.codecs.constraints import mask_for
from swirl_lightning.distributed.sharding import any_rank, device_of, in_step
from swirl_lightning.rollout.base import RolloutEngine, RolloutRequest
from swirl_lightning.rollout.decode import DecodeLayout
from swirl_lightning.rollout.sampling import next_tokens, row_noise
from swirl_lightning.scoring.attention import no_mask, pack_layout
from swirl_lightning.scoring.last_layer import last_layer_at
from swirl_lightning.scoring.scorer import ScoringPath, scoring_path
from swirl_lightning.types import SamplingParams, Trajectory

_COMPACT_BELOW = 0.75  # finished members are dropped once fewer than this share of the rows is still running


class _Decoder:
    """What a rollout needs of a model: logits after the prompts, then after one more token a member."""

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


class _SharedDecoder(_Decoder):
    """Prompt keys and values are kept once a prompt."""

    def prefill(self) -> Tensor:
        device = device_of(self.model)
        sizes = [len(prompt) for prompt in self.prompts]
        layout = pack_layout(sizes, [[]] * len(sizes), device, capture=True)
        ids = torch.tensor([[token for prompt in self.prompts for token in prompt]], device=device)
        positions = torch.cat([torch.arange(n) for n in sizes])[None].to(device)
        last = self.lengths.cumsum(0) - 1
        with last_layer_at(self.model, layout, last):
            out = self.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=no_mask(device),
                shared_prefix=layout,
                use_cache=False,
                logits_to_keep=last,
            )
        assert layout.captured is not None
        self.layout = DecodeLayout(layout.captured, self.lengths, self.group_size, self.capacity, {})
        logits: Tensor = out.logits[0]
        return logits

    def decode(self, tokens: Tensor, step: int) -> Tensor:
        self.layout.step = step
        positions = (self.layout.prefix_lengths + step)[:, None].expand_as(tokens)
        out = self.model(
            input_ids=tokens.reshape(-1, 1),
            position_ids=positions.reshape(-1, 1),
            attention_mask=no_mask(tokens.device),
            shared_prefix=self.layout,
            use_cache=False,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def keep(self, prompts: Tensor, members: Tensor) -> None:
        self.layout.keep(prompts, members)


class _CacheDecoder(_Decoder):
    """For architectures without shared prefixes: an ordinary cache, left-padded prompts, repeated for the group."""

    def prefill(self) -> Tensor:
        width, device = int(self.lengths.max()), device_of(self.model)
        ids = torch.zeros(len(self.prompts), width, dtype=torch.int64, device=device)
        for i, prompt in enumerate(self.prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt, device=device)
        self.mask = torch.arange(width, device=device) >= width - self.lengths[:, None]  # [B, P]
        self.cache = DynamicCache(config=self.model.config)
        out = self.model(
            input_ids=ids,
            attention_mask=self.mask.long(),
            position_ids=(self.mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache.batch_repeat_interleave(self.group_size)
        self.mask = self.mask.repeat_interleave(self.group_size, dim=0)  # [B*G, P]
        logits: Tensor = out.logits[:, -1]
        return logits

    def decode(self, tokens: Tensor, step: int) -> Tensor:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        out = self.model(
            input_ids=tokens.reshape(-1, 1),
            attention_mask=self.mask.long(),
            position_ids=self.mask.sum(-1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def keep(self, prompts: Tensor, members: Tensor) -> None:
        rows = (prompts[:, None] * self.group_size + members).reshape(-1)
        self.cache.batch_select_indices(rows)
        self.mask, self.group_size = self.mask[rows], members.shape[1]


@dataclass
class _Running:
    """Members that are still generating: [B, G] views into the output of the chunk."""

    prompt: Tensor  # int64 [B, G], index into the chunk
    member: Tensor  # int64 [B, G]
    live: Tensor  # bool [B, G], False where the member has ended
    generated: list[list[int]] = field(default_factory=list)  # tokens so far, a row each, kept for constraints


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What has been drawn so far, on the CPU: prompts in the order given, G members, ``max_new_tokens`` tokens."""

    completions: Tensor  # int64 [B, G, T]
    mask: Tensor  # bool [B, G, T]
    logprobs: Tensor  # float32 [B, G, T]
    finished: Tensor  # bool [B, G]

    @classmethod
    def empty(cls, shape: tuple[int, int, int], pad_id: int) -> _Drawn:
        """Nothing yet."""
        completions, mask = torch.full(shape, pad_id, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
        return cls(completions, mask, torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.bool))

    def trajectory(self, prompts: Sequence[Sequence[int]], device: torch.device) -> Trajectory:
        """The same, cut to the longest completion."""
        longest = max(1, int(self.mask.sum(-1).max())) if prompts else 1
        return Trajectory(
            prompts=tuple(tuple(prompt) for prompt in prompts),
            completions=self.completions[..., :longest].to(device),
            mask=self.mask[..., :longest].to(device),
            logprobs=self.logprobs[..., :longest].to(device),
            finished=self.finished.to(device),
        )


@dataclass(frozen=True)
class TransformersEngine(RolloutEngine):
    """Samples with the training model itself, so that log-probabilities are those of the policy.

    Attributes:
        cache_tokens: key/value slots that may exist at once; more prompts than fit are sampled in turns.
    """

    cache_tokens: int = 1 << 18

    @override
    @torch.no_grad()
    def generate(self, model: PreTrainedModel, request: RolloutRequest) -> Trajectory:
        """Draw what is asked for; see ``RolloutEngine``.

        Raises:
            ValueError: if a prompt is empty or the model has too few positions for it.
        """
        prompts, group_size, params = request.prompts, request.group_size, request.sampling
        _check_room(model, prompts, params)
        drawn = _Drawn.empty((len(prompts), group_size, params.max_new_tokens), request.pad_id)
        shape = drawn.completions.shape
        noise = row_noise(request.seeds, *shape[1:]) if params.temperature > 0 else torch.zeros(shape)
        make = _SharedDecoder if scoring_path(model) is ScoringPath.SHARED else _CacheDecoder
        for chunk in in_step(self._chunks(prompts, group_size, params.max_new_tokens), model):
            if chunk is None:
                _idle(make(model, [[request.pad_id]], 1, params.max_new_tokens), params.max_new_tokens)
                continue
            decoder = make(model, [prompts[i] for i in chunk], group_size, params.max_new_tokens)
            _run(decoder, noise[chunk], request, chunk, drawn)
        return drawn.trajectory(prompts, device_of(model))

    def _chunks(self, prompts: Sequence[Sequence[int]], group_size: int, new_tokens: int) -> list[list[int]]:
        """Prompts of similar length together, as many as the cache holds."""
        chunks: list[list[int]] = []
        used = 0
        for i in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)):
            cost = len(prompts[chunks[-1][0]] if chunks else prompts[i]) + group_size * new_tokens
            if not chunks or used + cost > self.cache_tokens:
                chunks.append([])
                used, cost = 0, len(prompts[i]) + group_size * new_tokens
            chunks[-1].append(i)
            used += cost
        return chunks


def _check_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {i} is empty: a completion needs at least one token to continue")
        if limit is not None and len(prompt) + params.max_new_tokens > limit:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens and max_new_tokens is {params.max_new_tokens}, but the model has "
                f"{limit} positions: lower max_prompt_tokens or max_new_tokens"
            )


def _run(decoder: _Decoder, noise: Tensor, request: RolloutRequest, chunk: list[int], out: _Drawn) -> None:
    """Generates one chunk of prompts and writes it into ``out``."""
    params, constraint, progress = request.sampling, request.constraint, request.progress
    device = device_of(decoder.model)
    b, g = len(chunk), decoder.group_size
    rows = torch.tensor(chunk)
    stop = torch.tensor(list(request.stop_ids))
    run = _Running(
        prompt=torch.arange(b)[:, None].expand(b, g),
        member=torch.arange(g).expand(b, g),
        live=torch.ones(b, g, dtype=torch.bool),
        generated=[[] for _ in range(b * g)],
    )
    logits = decoder.prefill().repeat_interleave(g, dim=0)  # [B*G, V]
    for step in range(params.max_new_tokens):
        allowed = _allowed(constraint, run, logits.shape[-1], device)
        at = (run.prompt, run.member, torch.tensor(step))
        drawn, scores = next_tokens(logits, noise[at].reshape(-1), params, allowed)
        tokens = drawn.cpu().view(run.live.shape)
        where = (rows[run.prompt][run.live], run.member[run.live], torch.tensor(step))
        out.completions[where] = tokens[run.live]
        out.logprobs[where] = scores.cpu().view(run.live.shape)[run.live]
        out.mask[where] = True
        ended = run.live & torch.isin(tokens, stop)
        out.finished[rows[run.prompt][ended], run.member[ended]] = True
        run.live = run.live & ~ended
        if progress is not None and bool(ended.any()):
            progress(int(ended.sum()))
        if step + 1 == params.max_new_tokens or not any_rank(bool(run.live.any()), decoder.model):
            break
        if constraint is not None and not constraint.static:
            for row, token in zip(run.generated, tokens.reshape(-1).tolist(), strict=True):
                row.append(token)
        tokens = _compact(decoder, run, tokens)
        logits = decoder.decode(tokens.to(device), step)
    if progress is not None and bool(run.live.any()):
        progress(int(run.live.sum()))


def _idle(decoder: _Decoder, most: int) -> None:
    """Keeps in step with ranks that still sample from a sharded model."""
    decoder.prefill()
    tokens = torch.zeros(1, 1, dtype=torch.int64, device=device_of(decoder.model))
    for step in range(most):
        if step + 1 == most or not any_rank(False, decoder.model):
            break
        decoder.decode(tokens, step)


def _allowed(constraint: TokenConstraint | None, run: _Running, width: int, device: torch.device) -> Tensor | None:
    """Allowed tokens [1 or B*G, V]; rows that have ended may draw anything."""
    if constraint is None:
        return None
    if constraint.static:
        return mask_for(constraint, [()], device, width=width)
    live = run.live.reshape(-1).tolist()
    return mask_for(constraint, [row if on else () for row, on in zip(run.generated, live, strict=True)], device, width=width)


def _compact(decoder: _Decoder, run: _Running, tokens: Tensor) -> Tensor:
    """Drops ended prompts and members once enough of them have ended; returns the tokens of those that go on."""
    live = run.live
    if not bool(live.any()):
        return tokens  # other ranks go on with a sharded model
    width = int(live.sum(1).max())
    prompts = live.any(1).nonzero()[:, 0]  # [B']
    if len(prompts) * width > _COMPACT_BELOW * live.numel():
        return tokens
    members = torch.argsort((~live[prompts]).int(), dim=1, stable=True)[:, :width]  # live ones first, [B', G']
    pick = (prompts[:, None], members)
    flat = (prompts[:, None] * live.shape[1] + members).reshape(-1).tolist()
    decoder.keep(prompts.to(device_of(decoder.model)), members.to(device_of(decoder.model)))
    run.prompt, run.member, run.live = run.prompt[pick], run.member[pick], live[pick]
    run.generated = [run.generated[i] for i in flat]
    return tokens[pick]
