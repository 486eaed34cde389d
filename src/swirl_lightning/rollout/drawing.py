"""Draws groups of completions token by token, with any decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.codecs.constraints import mask_for
from swirl_lightning.distributed.sharding import any_rank, device_of, in_step
from swirl_lightning.rollout.base import RolloutRequest
from swirl_lightning.rollout.decoders import DECODERS, Decoder, RolloutPath
from swirl_lightning.rollout.sampling import next_tokens, row_noise
from swirl_lightning.types import Trajectory

_COMPACT_BELOW = 0.75  # finished members are dropped once fewer than this share of the rows is still running


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
    drawn = _Drawn.empty((len(prompts), group_size, params.max_new_tokens), request.pad_id)
    shape = drawn.completions.shape
    noise = row_noise(request.seeds, *shape[1:]) if params.temperature > 0 else torch.zeros(shape)
    make = DECODERS[path]
    for chunk in in_step(_chunks(request, path, cache_tokens), model):
        if chunk is None:
            _idle(make(model, [[request.pad_id]], 1, params.max_new_tokens), params.max_new_tokens)
            continue
        decoder = make(model, [prompts[i] for i in chunk], group_size, params.max_new_tokens)
        _run(decoder, noise[chunk], request, chunk, drawn)
    return drawn.trajectory(prompts, device_of(model))


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


def _run(decoder: Decoder, noise: Tensor, request: RolloutRequest, chunk: list[int], out: _Drawn) -> None:
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


def _idle(decoder: Decoder, most: int) -> None:
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


def _compact(decoder: Decoder, run: _Running, tokens: Tensor) -> Tensor:
    """Drops ended prompts and members once enough of them have ended; returns the tokens of those that go on."""
    live = run.live
    if not decoder.cuts or not bool(live.any()):
        return tokens  # with none alive, other ranks go on with a sharded model
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
