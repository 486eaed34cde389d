"""Log-probabilities of completions under a causal LM: what a group shares is computed once."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.distributed.sharding import compute_dtype, device_of, in_step, is_sharded
from swirl_lightning.scoring.attention import ATTENTION_NAME, no_mask, pack_layout, tail_layout
from swirl_lightning.scoring.head import LOGIT_BUDGET, ScoringHead, scoring_through
from swirl_lightning.scoring.last_layer import last_layer_at
from swirl_lightning.scoring.packing import (
    Group,
    PackedRows,
    common_prefix,
    cut,
    in_turns,
    micro_batches,
    pack,
    split_groups,
    tokens_of,
)
from swirl_lightning.types import ScoredRow, TokenScores

log = logging.getLogger(__name__)
IDLE = (ScoredRow((0, 0), 1),)  # what a rank without rows puts through a sharded model, to be in step with the others
_TURN = {"cpu": 1280}  # member tokens that go through the model together when a large group is scored without gradients


class ScoringPath(enum.StrEnum):
    """How rows that share a prefix are computed."""

    SHARED = "shared"  # prefix once, distinct rest of distinct rows, no padding
    PLAIN = "plain"  # one padded row each, through the architecture's own attention


class CausalScorer:
    """Scores rows; the path is chosen once a model class by a self-check on a small input.

    Args:
        token_budget: flat tokens of one forward pass; more rows make more micro-batches.
        path: force a path; None lets the self-check choose.
        logit_budget: positions x vocabulary that may exist at once.
    """

    def __init__(self, token_budget: int = 16384, *, path: ScoringPath | None = None, logit_budget: int = LOGIT_BUDGET) -> None:
        if token_budget < 1:
            raise ValueError(f"token_budget must be at least 1, got {token_budget}")
        self.token_budget, self.path, self.logit_budget = token_budget, path, logit_budget

    def micro_batches(self, groups: Sequence[Group]) -> Iterator[list[list[int]]]:
        """Rows that go through the model together in training; a group that is too large for one pass is divided.

        Yields:
            Numbers of rows in the flattened order of ``groups``, those that share a prefix together; every row exactly once.
        """
        rows = [row for group in groups for row in group]
        parts = split_groups(groups, self.token_budget)
        for batch in micro_batches([[rows[n] for n in part] for part in parts], self.token_budget):
            yield [parts[i] for i in batch]

    def __call__(
        self,
        model: PreTrainedModel,
        groups: Sequence[Group],
        *,
        temperature: float = 1.0,
        constraint: TokenConstraint | None = None,
        entropy: bool = False,
    ) -> TokenScores:
        """Scores the tails of all rows in one forward pass, with gradients where they are enabled.

        Args:
            model: a causal LM, the right adapter active.
            groups: rows that share a prefix, group by group.
            temperature: divides the logits.
            constraint: tokens that may follow.
            entropy: also return entropies (zeros otherwise).

        Returns:
            Scores of the flattened rows, in the order given.
        """
        path = self.path or scoring_path(model)
        if path is ScoringPath.PLAIN:
            groups = [[row] for group in groups for row in group]
        packed = pack(groups, device_of(model))
        head = self._head(model, packed, temperature, constraint, entropy=entropy)
        if path is ScoringPath.SHARED:
            _shared_forward(model, packed, head)
        else:
            _plain_forward(model, packed, head)
        return _unpack(packed, head)

    @torch.no_grad()
    def score(
        self,
        model: PreTrainedModel,
        groups: Sequence[Group],
        *,
        temperature: float = 1.0,
        constraint: TokenConstraint | None = None,
    ) -> TokenScores:
        """Scores without gradients, over as many micro-batches as the token budget asks for.

        Returns:
            Scores of the flattened rows, in the order given.
        """
        device = device_of(model)
        turn = min(self.token_budget, _TURN.get(device.type, self.token_budget))
        shared = (self.path or scoring_path(model)) is ScoringPath.SHARED and not is_sharded(model)  # turns are passes, too
        starts = [0]
        for group in groups:
            starts.append(starts[-1] + len(group))
        longest = max((len(row.ids) - row.start for group in groups for row in group), default=1)
        logprobs = torch.zeros(starts[-1], longest, device=device)
        mask = torch.zeros(starts[-1], longest, dtype=torch.bool, device=device)
        for batch in in_step(micro_batches(groups, self.token_budget), model):
            if batch is None:
                self(model, [IDLE])
                continue
            chosen = [groups[i] for i in batch]
            if shared and len(batch) == 1 and tokens_of(chosen[0]) > turn and common_prefix([row.ids for row in chosen[0]]):
                scores = self._score_in_turns(model, chosen[0], turn, temperature, constraint)
            else:
                scores = self(model, chosen, temperature=temperature, constraint=constraint)
            rows = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in batch]).to(device)
            logprobs[rows, : scores.logprobs.shape[1]] = scores.logprobs
            mask[rows, : scores.mask.shape[1]] = scores.mask
        return TokenScores(logprobs, mask, torch.zeros_like(logprobs))

    def _score_in_turns(
        self, model: PreTrainedModel, group: Group, turn: int, temperature: float, constraint: TokenConstraint | None
    ) -> TokenScores:
        """Scores a large group: its prefix in one pass, then ``turn`` member tokens at a time on top of it."""
        packed = pack([group], device_of(model))
        lengths: list[int] = packed.layout.member_mask.sum(-1)[0].tolist()
        size = int(packed.layout.prefix_mask.sum())

        def run(part: PackedRows) -> Tensor:
            head = self._head(model, part, temperature, constraint, entropy=False)
            _shared_forward(model, part, head)
            return _unpack(part, head).logprobs

        prefix = cut(packed, 0, size, pack_layout([size], [[]], packed.ids.device, capture=True))
        logprobs, captured = run(prefix), prefix.layout.captured
        assert captured is not None
        at = size
        for chunk in in_turns(lengths, turn):
            end = at + sum(chunk)
            logprobs += run(cut(packed, at, end, tail_layout(captured, chunk, packed.ids.device)))
            at = end
        return TokenScores(logprobs, packed.mask, torch.zeros_like(logprobs))

    def _head(
        self,
        model: PreTrainedModel,
        packed: PackedRows,
        temperature: float,
        constraint: TokenConstraint | None,
        *,
        entropy: bool,
    ) -> ScoringHead:
        return ScoringHead(
            packed,
            temperature=temperature,
            constraint=constraint,
            softcap=getattr(model.config.get_text_config(), "final_logit_softcapping", None),
            entropy=entropy,
            logit_budget=self.logit_budget,
        )


def _shared_forward(model: PreTrainedModel, packed: PackedRows, head: ScoringHead) -> None:
    """One flat row through the model, attention by the layout."""
    with scoring_through(model, head), last_layer_at(model, packed.layout, head.positions):
        model(
            input_ids=packed.ids,
            position_ids=packed.positions,
            attention_mask=no_mask(packed.ids.device),
            shared_prefix=packed.layout,
            use_cache=False,
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


_checked: dict[tuple[type, str], ScoringPath] = {}


def scoring_path(model: PreTrainedModel) -> ScoringPath:
    """The path for a model: shared prefixes where a small input gives the same numbers as plain rows.

    The answer is found once a model class and attention implementation, and logged with its reason.
    """
    implementation = str(model.config._attn_implementation)
    key = (type(model), implementation)
    if key not in _checked:
        path, reason = _self_check(model, implementation)
        _checked[key] = path
        log.info("scoring path of %s: %s (%s)", type(model).__name__, path, reason)
    return _checked[key]


def prefer_shared_prefix(model: PreTrainedModel) -> None:
    """Switches a freshly built model to the shared-prefix attention function, where its architecture has the interface."""
    try:
        model.set_attn_implementation(ATTENTION_NAME)
    except (ValueError, ImportError, AttributeError) as error:
        log.warning("%s keeps its own attention, groups are scored row by row: %s", type(model).__name__, error)
        return
    config = model.config.get_text_config()
    dropout = getattr(config, "attention_dropout", 0.0) or getattr(config, "attn_pdrop", 0.0)
    if dropout:
        log.warning("%s: attention dropout (%s) is not applied where groups share a prefix", type(model).__name__, dropout)


@torch.no_grad()
def _self_check(model: PreTrainedModel, implementation: str) -> tuple[ScoringPath, str]:
    """Compares both paths on two groups of unequal rows."""
    if implementation != ATTENTION_NAME:
        return ScoringPath.PLAIN, f"attention implementation is {implementation}"
    vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[assignment]
    prefix = [(7 * i + 3) % vocabulary for i in range(9)]
    tails = [[(350 + 77 * k + 7 * i) % vocabulary for i in range(2 + k)] for k in range(3)]
    groups = [[ScoredRow(tuple(prefix[:n] + tail), n) for tail in tails] for n in (5, 9)]
    was_training = model.training
    model.eval()
    try:
        shared = CausalScorer(path=ScoringPath.SHARED)(model, groups).logprobs
        plain = CausalScorer(path=ScoringPath.PLAIN)(model, groups).logprobs
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        return ScoringPath.PLAIN, f"the architecture does not take shared prefixes: {error}"
    finally:
        model.train(was_training)
    difference = float((shared - plain).abs().max())
    exact = model.dtype == torch.float32 and compute_dtype(model) == torch.float32
    tolerance = 1e-3 if exact else 0.1
    if difference > tolerance:
        return ScoringPath.PLAIN, f"shared prefixes differ from plain rows by {difference:.2g}"
    return ScoringPath.SHARED, f"equal to plain rows within {difference:.1g}"
