"""One scoring pass: rows into the model as one flat row that shares prefixes, or as one padded row each."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.distributed.sharding import device_of
from swirl_lightning.scoring.attention import inputs_of, pack_layout, tail_layout
from swirl_lightning.scoring.head import LOGIT_BUDGET, ScoringHead, scoring_through
from swirl_lightning.scoring.last_layer import last_layer_at
from swirl_lightning.scoring.own_forward import head_at
from swirl_lightning.scoring.packing import Group, PackedRows, cut, in_turns, pack
from swirl_lightning.types import Prefixes, TokenScores


class ScoringPath(enum.StrEnum):
    """How rows that share a prefix are computed."""

    SHARED = "shared"  # prefix once, distinct rest of distinct rows, no padding
    PLAIN = "plain"  # one padded row each, through the architecture's own attention


def score_pass(
    model: PreTrainedModel,
    groups: Sequence[Group],
    path: ScoringPath,
    *,
    temperature: float = 1.0,
    constraint: TokenConstraint | None = None,
    entropy: bool = False,
    logit_budget: int = LOGIT_BUDGET,
    prefixes: Prefixes | None = None,
) -> TokenScores:
    """Scores the tails of all rows in one forward pass, with gradients where they are enabled.

    Args:
        model: a causal LM, the right adapter active.
        groups: rows that share a prefix, group by group.
        path: how.
        temperature: divides the logits.
        constraint: tokens that may follow.
        entropy: also return entropies (zeros otherwise).
        logit_budget: positions x vocabulary that may exist at once.
        prefixes: a prompt a group that the model has computed already; with the shared path only.

    Returns:
        Scores of the flattened rows, in the order given.
    """
    if path is ScoringPath.PLAIN:
        groups = [[row] for group in groups for row in group]
    packed = pack(groups, device_of(model), prefixes)
    head = ScoringHead(packed, temperature=temperature, constraint=constraint, entropy=entropy, logit_budget=logit_budget)
    if path is ScoringPath.SHARED:
        _shared_forward(model, packed, head)
    else:
        _plain_forward(model, packed, head)
    return _unpack(packed, head)


@torch.no_grad()
def score_in_turns(
    model: PreTrainedModel,
    group: Group,
    turn: int,
    *,
    temperature: float = 1.0,
    constraint: TokenConstraint | None = None,
    logit_budget: int = LOGIT_BUDGET,
    prefixes: Prefixes | None = None,
) -> TokenScores:
    """Scores a large group without gradients: its prefix in one pass, then ``turn`` member tokens at a time on top of it.

    With ``prefixes``, the prompt of the group that the model has computed already, there are member tokens only.
    """
    packed = pack([group], device_of(model), prefixes)
    lengths: list[int] = packed.layout.member_mask.sum(-1)[0].tolist()
    (size,) = packed.layout.prefix_lengths

    def run(part: PackedRows) -> Tensor:
        head = ScoringHead(part, temperature=temperature, constraint=constraint, entropy=False, logit_budget=logit_budget)
        _shared_forward(model, part, head)
        return _unpack(part, head).logprobs

    captured: Mapping[int, tuple[Tensor, Tensor]] | None
    if prefixes is None:
        prefix = cut(packed, 0, size, pack_layout([size], [[]], packed.ids.device, capture=True))
        logprobs, captured, at = run(prefix), prefix.layout.captured, size
    else:
        logprobs, captured, at = torch.zeros(packed.mask.shape, device=packed.mask.device), prefixes.values, 0
    assert captured is not None
    for chunk in in_turns(lengths, turn):
        end = at + sum(chunk)
        logprobs += run(cut(packed, at, end, tail_layout(captured, [size], [chunk], packed.ids.device)))
        at = end
    return TokenScores(logprobs, packed.mask, torch.zeros_like(logprobs))


def prefill(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Prefixes]:
    """Prompts in one flat row, with gradients where they are enabled.

    Args:
        model: a causal LM whose rows share prefixes.
        prompts: B token-id sequences.

    Returns:
        Logits [B, V] behind each prompt, and what later tokens see of them.
    """
    device, sizes = device_of(model), [len(prompt) for prompt in prompts]
    layout = pack_layout(sizes, [[]] * len(sizes), device, capture=True)
    ids = torch.tensor([[token for prompt in prompts for token in prompt]], device=device)
    positions = torch.cat([torch.arange(n) for n in sizes])[None].to(device)
    last = torch.tensor(sizes, device=device).cumsum(0) - 1
    with last_layer_at(model, layout, last), head_at(model, lambda hidden: hidden[:, last]):
        out = model(input_ids=ids, position_ids=positions, use_cache=False, **inputs_of(layout, device))
    assert layout.captured is not None
    return out.logits[0], Prefixes(tuple(tuple(prompt) for prompt in prompts), layout.captured)


def _shared_forward(model: PreTrainedModel, packed: PackedRows, head: ScoringHead) -> None:
    """One flat row through the model, attention by the layout."""
    with scoring_through(model, head), last_layer_at(model, packed.layout, head.positions):
        model(
            input_ids=packed.ids,
            position_ids=packed.positions,
            use_cache=False,
            **inputs_of(packed.layout, packed.ids.device),
        )


def _plain_forward(model: PreTrainedModel, packed: PackedRows, head: ScoringHead) -> None:
    """One right-padded row each; the hidden states are put back into the flat order that the head expects."""
    layout = packed.layout
    ids = packed.ids[0][layout.prefix_index]  # [R, P]; groups of one row are all prefix
    with scoring_through(model, _Flattened(head, layout.prefix_mask)):
        model(input_ids=ids, attention_mask=layout.prefix_mask.long(), use_cache=False)


class _Flattened(ScoringHead):
    """Drops the padding of [R, P, width] hidden states before scoring."""

    def __init__(self, head: ScoringHead, keep: Tensor) -> None:
        self.head, self.keep = head, keep

    def forward(self, head, hidden: Tensor) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Scores the unpadded hidden states."""
        return self.head.forward(head, hidden[self.keep][None])


def _unpack(packed: PackedRows, head: ScoringHead) -> TokenScores:
    """Scores as padded rows [R, T]."""
    assert head.logprobs is not None
    assert head.entropy is not None
    shape = packed.mask.shape
    slot = packed.row * shape[1] + packed.offset  # [S]
    zeros = torch.zeros(shape.numel(), device=packed.mask.device)
    return TokenScores(
        logprobs=zeros.index_copy(0, slot, head.logprobs).view(shape),
        mask=packed.mask,
        entropy=zeros.index_copy(0, slot, head.entropy).view(shape),
    )
