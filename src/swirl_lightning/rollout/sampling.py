"""Drawing one token a row: temperature, top-k, top-p, min-p, constraints, reproducible in any batch composition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swirl_lightning.types import SamplingParams, seeded_generator


def row_noise(seeds: Sequence[int], group_size: int, steps: int) -> Tensor:
    """Uniform noise for every token that may be drawn.

    A prompt's noise depends on its seed alone: neither on the other prompts of the batch nor on the number of ranks.

    Args:
        seeds: one a prompt, B in all.
        group_size: G.
        steps: T, most tokens a member may generate.

    Returns:
        float64 [B, G, T] in [0, 1), on the CPU.
    """
    if not seeds:
        return torch.zeros(0, group_size, steps, dtype=torch.float64)
    draws = [torch.rand(group_size, steps, generator=seeded_generator(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(draws)


def next_tokens(logits: Tensor, noise: Tensor, params: SamplingParams, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draws the next token of every row by inverting the cumulative distribution.

    Args:
        logits: [N, V].
        noise: [N] uniform numbers in [0, 1); unused when greedy.
        params: sampling settings.
        allowed: bool [N or 1, V], tokens inside the constraint.

    Returns:
        Tokens int64 [N], and their log-probabilities float32 [N] at the temperature, inside the constraint, before the
        top-k / top-p / min-p cut.
    """
    logits = logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    if params.temperature == 0:
        tokens = logits.argmax(-1)
        logprobs = torch.log_softmax(logits, dim=-1)
        return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]
    if params.temperature != 1.0:
        logits = logits / params.temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    cumulative = torch.cumsum(_cut(logprobs.exp(), params), dim=-1, dtype=torch.float64)  # [N, V]
    whole = cumulative[:, -1:]
    point = torch.minimum(noise.to(whole.device)[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    tokens = torch.searchsorted(cumulative, point, right=True)[:, 0]  # first token whose cumulative mass exceeds it
    tokens = tokens.clamp(max=logits.shape[-1] - 1)  # numbers that are none are found elsewhere
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _cut(probabilities: Tensor, params: SamplingParams) -> Tensor:
    """Zeroes what top-k, top-p and min-p exclude, in this order; ties of top-k and top-p go to the lower token id."""
    size = probabilities.shape[-1]
    if 0 < params.top_k < size or params.top_p < 1:
        ordered, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
        drop = torch.zeros_like(ordered, dtype=torch.bool)
        if 0 < params.top_k < size:
            drop[:, params.top_k :] = True
            ordered = ordered.masked_fill(drop, 0.0)
        if params.top_p < 1:
            mass = ordered / ordered.sum(-1, keepdim=True)
            drop |= mass.cumsum(-1) - mass >= params.top_p  # the token that crosses the threshold stays
        probabilities = probabilities.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), 0.0)
    if params.min_p > 0:  # last, as in transformers: what it leaves out must not count in top-p's mass
        floor = params.min_p * probabilities.max(-1, keepdim=True).values
        probabilities = probabilities.masked_fill(probabilities < floor, 0.0)
    return probabilities
