"""Draws groups of completions token by token, with any decoder.

What is drawn stays on the device: the host looks at what has ended every few tokens only, since each look makes it wait for
the device. Members that have ended meanwhile draw on, and what they draw is dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.codecs.constraints import mask_for
from swirl_lightning.distributed.sharding import any_rank, device_of, in_step
from swirl_lightning.rollout.base import RolloutRequest
from swirl_lightning.rollout.decoders import DECODERS, Decoder, RolloutPath, SharedDecoder
from swirl_lightning.rollout.sampling import next_tokens, row_noise
from swirl_lightning.types import Prefixes, Trajectory

_COMPACT_BELOW = 0.75  # finished members are dropped once fewer than this share of the rows is still running
_LOOK_EVERY = 8  # tokens between two looks of the host


@torch.no_grad()
def draw(model: PreTrainedModel, request: RolloutRequest, path: RolloutPath, cache_tokens: int = 1 << 18) -> Trajectory:
    """Draws what is asked for.

    Args:
        model: a causal LM, in eval mode, the right adapter active.
        request: prompts, seeds, group size, sampling settings and constraint.
        path: how the model goes on from its prompts.
        cache_tokens: key/value slots that may exist at once; more prompts than fit are sampled in turns.

    Returns:
        The trajectory, prompts in the order given.
    """
    prompts, group_size, params = request.prompts, request.group_size, request.sampling
    device, make = device_of(model), DECODERS[path]
    drawn = _Drawn.empty((len(prompts), group_size, params.max_new_tokens), request.pad_id, device)
    shape = drawn.completions.shape
    noise = (row_noise(request.seeds, *shape[1:]) if params.temperature > 0 else torch.zeros(shape)).to(device)
    every = look_every(device, request.constraint)
    chunks, prefixes = _chunks(request, path, cache_tokens), None
    if path is not RolloutPath.SHARED or len(chunks) != 1:
        request = replace(request, keep="nothing")
    for chunk in in_step(chunks, model):
        if chunk is None:
            _idle(make(model, [[request.pad_id]], 1, params.max_new_tokens), params.max_new_tokens, every)
            continue
        decoder = make(model, [prompts[i] for i in chunk], group_size, params.max_new_tokens)
        prefixes = _run(decoder, noise, request, chunk, drawn, every)
    return replace(drawn.trajectory(prompts), prefixes=prefixes)


def look_every(device: torch.device, constraint: TokenConstraint | None) -> int:
    """Tokens between two looks of the host: one where looking costs nothing, or a constraint must see each token anyway."""
    follows = constraint is not None and not constraint.by_length
    return 1 if device.type == "cpu" or follows else _LOOK_EVERY


def _chunks(request: RolloutRequest, path: RolloutPath, cache_tokens: int) -> list[list[int]]:
    """Prompts of similar length (or of one length) together, as many as the cache holds."""
    one_length = path in (RolloutPath.EQUAL_LENGTHS, RolloutPath.EXPANDED)
    members = request.group_size * request.sampling.max_new_tokens
    lengths = [len(prompt) for prompt in request.prompts]
    chunks: list[list[int]] = []
    used = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[chunks[-1][0]] if chunks else lengths[i]
        cost = longest + members
        if not chunks or used + cost > cache_tokens or (one_length and lengths[i] != longest):
            chunks.append([])
            used, cost = 0, lengths[i] + members
        chunks[-1].append(i)
        used += cost
    return chunks


@dataclass
class _Running:
    """Members that are still generating: [B, G] views into the output, on the device."""

    prompt: Tensor  # int64 [B, G], index into the prompts of the request
    member: Tensor  # int64 [B, G]
    live: Tensor  # bool [B, G], False where the member has ended
    generated: list[list[int]] = field(default_factory=list)  # tokens so far, a row each, kept for constraints


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What has been drawn so far, on the device: prompts in the order given, G members, ``max_new_tokens`` tokens."""

    completions: Tensor  # int64 [B, G, T]
    mask: Tensor  # bool [B, G, T]
    logprobs: Tensor  # float32 [B, G, T]
    finished: Tensor  # bool [B, G]
    pad_id: int

    @classmethod
    def empty(cls, shape: tuple[int, int, int], pad_id: int, device: torch.device) -> _Drawn:
        """Nothing yet."""
        completions = torch.full(shape, pad_id, dtype=torch.int64, device=device)
        mask, finished = (torch.zeros(s, dtype=torch.bool, device=device) for s in (shape, shape[:2]))
        return cls(completions, mask, torch.zeros(shape, device=device), finished, pad_id)

    def put(self, run: _Running, step: int, tokens: Tensor, logprobs: Tensor, stop: Tensor) -> None:
        """Writes the ``step``-th tokens [B, G] of the members that go on, and ends those that drew one of ``stop``."""
        at = (run.prompt, run.member)
        self.completions[..., step][at] = torch.where(run.live, tokens, self.pad_id)
        self.logprobs[..., step][at] = torch.where(run.live, logprobs, 0.0)
        self.mask[..., step][at] = run.live
        run.live = run.live & ~(tokens[..., None] == stop).any(-1)
        self.finished[at] = ~run.live

    def trajectory(self, prompts: Sequence[Sequence[int]]) -> Trajectory:
        """The same, cut to the longest completion."""
        longest = max(1, int(self.mask.sum(-1).max())) if prompts else 1
        return Trajectory(
            prompts=tuple(tuple(prompt) for prompt in prompts),
            completions=self.completions[..., :longest].contiguous(),
            mask=self.mask[..., :longest].contiguous(),
            logprobs=self.logprobs[..., :longest].contiguous(),
            finished=self.finished,
        )


def _run(
    decoder: Decoder, noise: Tensor, request: RolloutRequest, chunk: list[int], out: _Drawn, every: int
) -> Prefixes | None:
    """Generates one chunk of prompts and writes it into ``out``; returns what is to be kept of them, in the order given."""
    params, constraint = request.sampling, request.constraint
    device, b, g = noise.device, len(chunk), decoder.group_size
    stop = torch.tensor(list(request.stop_ids), dtype=torch.int64, device=device)
    run = _Running(
        prompt=torch.tensor(chunk, device=device)[:, None].expand(b, g),
        member=torch.arange(g, device=device).expand(b, g),
        live=torch.ones(b, g, dtype=torch.bool, device=device),
        generated=[[] for _ in range(b * g)],
    )
    told, masks = 0, _Masks(constraint, device)
    with torch.set_grad_enabled(request.keep == "gradients"):
        logits = decoder.prefill()
        prefixes = None
        if request.keep != "nothing" and isinstance(decoder, SharedDecoder):
            prefixes = decoder.prefixes.take([chunk.index(i) for i in range(len(chunk))])
    logits = logits.repeat_interleave(g, dim=0)  # [B*G, V]
    for step in range(params.max_new_tokens):
        points = noise[..., step][run.prompt, run.member].reshape(-1)
        flat, scores = next_tokens(logits, points, params, masks.at(run, step, logits.shape[-1]))
        tokens = flat.view(run.live.shape)
        out.put(run, step, tokens, scores.view(run.live.shape), stop)
        if step + 1 == params.max_new_tokens:
            break
        if constraint is not None and not constraint.by_length:
            for row, token in zip(run.generated, flat.tolist(), strict=True):
                row.append(token)
        if (step + 1) % every == 0:
            live = run.live.cpu()
            ended, told = b * g - int(live.sum()) - told, b * g - int(live.sum())
            if request.progress is not None and ended:
                request.progress(ended)
            if not any_rank(bool(live.any()), decoder.model):
                break
            tokens = _compact(decoder, run, live, tokens)
        logits = decoder.decode(tokens, step)
    if request.progress is not None and told < b * g:
        request.progress(b * g - told)
    return prefixes


def _idle(decoder: Decoder, most: int, every: int) -> None:
    """Keeps in step with ranks that still sample from a sharded model."""
    decoder.prefill()
    tokens = torch.zeros(1, 1, dtype=torch.int64, device=device_of(decoder.model))
    for step in range(most):
        if step + 1 == most or ((step + 1) % every == 0 and not any_rank(False, decoder.model)):
            break
        decoder.decode(tokens, step)


@dataclass(frozen=True, slots=True)
class _Masks:
    """Allowed tokens of every step; those that depend on its number at most are moved to the device once."""

    constraint: TokenConstraint | None
    device: torch.device
    _kept: dict[Hashable, Tensor] = field(default_factory=dict)

    def at(self, run: _Running, step: int, width: int) -> Tensor | None:
        """Allowed tokens [1 or B*G, V]; rows that have ended may draw anything."""
        if self.constraint is None:
            return None
        if not self.constraint.by_length:
            live = run.live.reshape(-1).tolist()
            rows = [row if on else () for row, on in zip(run.generated, live, strict=True)]
            return mask_for(self.constraint, rows, self.device, width=width)
        example = () if self.constraint.static else (0,) * step
        key = self.constraint.key(example)
        if key not in self._kept:
            self._kept[key] = mask_for(self.constraint, [example], self.device, width=width)
        return self._kept[key]


def _compact(decoder: Decoder, run: _Running, live: Tensor, tokens: Tensor) -> Tensor:
    """Drops ended prompts and members once enough of them have ended; returns the tokens of those that go on.

    Args:
        decoder: told which rows go on.
        run: changed in place.
        live: ``run.live`` as the host has just seen it.
        tokens: int64 [B, G].
    """
    if not decoder.cuts or not bool(live.any()):
        return tokens  # with none alive, other ranks go on with a sharded model
    width = int(live.sum(1).max())
    prompts = live.any(1).nonzero()[:, 0]  # [B']
    if len(prompts) * width > _COMPACT_BELOW * live.numel():
        return tokens
    members = torch.argsort((~live[prompts]).int(), dim=1, stable=True)[:, :width]  # live ones first, [B', G']
    flat = (prompts[:, None] * live.shape[1] + members).reshape(-1).tolist()
    prompts, members = prompts.to(tokens.device), members.to(tokens.device)
    decoder.keep(prompts, members)
    pick = (prompts[:, None], members)
    run.prompt, run.member, run.live = run.prompt[pick], run.member[pick], run.live[pick]
    run.generated = [run.generated[i] for i in flat]
    return tokens[pick]
