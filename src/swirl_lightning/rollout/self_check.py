"""Rollouts are compared with the model's own logits on a small input; the first way that agrees is taken."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from swirl_lightning.internals import attention_name
from swirl_lightning.rollout.base import RolloutRequest
from swirl_lightning.rollout.decoders import RolloutPath
from swirl_lightning.rollout.drawing import draw
from swirl_lightning.scoring.self_check import (
    ScoringPath,
    Tolerance,
    compare_nats,
    first_that_agrees,
    model_key,
    own_logits,
    probe_ids,
    reach,
    rows_of_embedding,
    scoring_path,
)
from swirl_lightning.types import SamplingParams

_LENGTHS = (9, 5, 7)  # of the prompts: unequal, beyond the narrowed windows; the first goes beyond chunks and blocks, too
_NEW = 5  # tokens


def rollout_path(model: PreTrainedModel) -> RolloutPath:
    """How a model goes on from prompts: the first way whose log-probabilities and greedy tokens are the model's own.

    Found once a configuration, device and type, and logged with its reason.

    Args:
        model: a causal LM.

    Returns:
        The path.

    Raises:
        UnsupportedModelError: if no way agrees, or none of scoring.
    """
    path = _found.get(model)
    if path is None:
        scoring = scoring_path(model)  # also settles the attention
        key = (*model_key(model), scoring, attention_name(model))
        if key not in _by_key:
            rungs = [path for path in RolloutPath if path is not RolloutPath.SHARED or scoring is ScoringPath.SHARED]
            _by_key[key] = first_that_agrees(model, "rollouts", rungs, lambda rung: compare_rollouts(model, rung), name=str)
        path = _found[model] = _by_key[key]
    return path


_found: WeakKeyDictionary[PreTrainedModel, RolloutPath] = WeakKeyDictionary()
_by_key: dict[tuple[object, ...], RolloutPath] = {}


@torch.no_grad()
def compare_rollouts(model: PreTrainedModel, path: RolloutPath) -> str:
    """Draws greedily and at temperature 1 and looks every token up in the model's own logits.

    Args:
        model: a causal LM.
        path: how it goes on from prompts.

    Returns:
        How closely they agree.
    """
    tolerance = Tolerance.of(model)
    lengths = (_LENGTHS[0] + reach(model), *_LENGTHS[1:])
    ids = probe_ids(model, sum(lengths))
    prompts = [ids[sum(lengths[:i]) :][:n] for i, n in enumerate(lengths)]
    stop_ids = range(0, rows_of_embedding(model), 3)  # some end early
    drawn = [
        draw(model, RolloutRequest(prompts, (1, 2, 3), members, SamplingParams(_NEW, temperature), stop, pad_id=0), path)
        for members, temperature, stop in ((1, 0.0, ()), (2, 1.0, stop_ids))
    ]
    tails = [
        [trajectory.completion_ids(i, k) for i in range(len(prompts)) for k in range(trajectory.completions.shape[1])]
        for trajectory in drawn
    ]
    starts = [prompts[i] for members in (1, 2) for i in range(len(prompts)) for _ in range(members)]
    rows = [[*start, *tail] for start, tail in zip(starts, [*tails[0], *tails[1]], strict=True)]
    own = [
        torch.log_softmax(logits[len(start) - 1 : -1].float(), dim=-1)
        for start, logits in zip(starts, own_logits(model, rows), strict=True)
    ]  # [tail, V] each
    of_tokens = [
        logs.gather(-1, torch.tensor(row[len(start) :], device=logs.device)[:, None])[:, 0]
        for logs, row, start in zip(own, rows, starts, strict=True)
    ]
    off = compare_nats(torch.cat([t.logprobs[t.mask] for t in drawn]), torch.cat(of_tokens), tolerance)
    best = torch.cat([logs.amax(-1) for logs in own[: len(prompts)]])
    compare_nats(torch.cat(of_tokens[: len(prompts)]), best, tolerance)  # greedy tokens are the likeliest, or tie with them
    return f"equal within {off:.1g} nats"
