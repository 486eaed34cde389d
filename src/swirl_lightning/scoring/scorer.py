"""Log-probabilities of completions under a causal LM: what a group shares is computed once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.distributed.sharding import device_of, in_step, is_sharded
from swirl_lightning.scoring.attention import ATTENTION_NAME
from swirl_lightning.scoring.head import LOGIT_BUDGET
from swirl_lightning.scoring.packing import Group, common_prefix, continues, micro_batches, split_groups, tokens_of
from swirl_lightning.scoring.passes import ScoringPath, score_in_turns, score_pass
from swirl_lightning.scoring.self_check import scoring_path
from swirl_lightning.types import Prefixes, ScoredRow, TokenScores

log = logging.getLogger(__name__)
IDLE = (ScoredRow((0, 0), 1),)  # what a rank without rows puts through a sharded model, to be in step with the others
_TURN = {"cpu": 1280}  # member tokens that go through the model together when a large group is scored without gradients


class CausalScorer:
    """Scores rows; the path is chosen once a model by a self-check on a small input.

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
        prefixes: Prefixes | None = None,
    ) -> TokenScores:
        """Scores the tails of all rows in one forward pass, with gradients where they are enabled.

        Args:
            model: a causal LM, the right adapter active.
            groups: rows that share a prefix, group by group.
            temperature: divides the logits.
            constraint: tokens that may follow.
            entropy: also return entropies (zeros otherwise).
            prefixes: a prompt a group that the model has computed already.

        Returns:
            Scores of the flattened rows, in the order given.
        """
        path = self.path or scoring_path(model)
        return score_pass(
            model,
            groups,
            path,
            temperature=temperature,
            constraint=constraint,
            entropy=entropy,
            logit_budget=self.logit_budget,
            prefixes=prefixes if path is ScoringPath.SHARED and continues(groups, prefixes) else None,
        )

    @torch.no_grad()
    def score(
        self,
        model: PreTrainedModel,
        groups: Sequence[Group],
        *,
        temperature: float = 1.0,
        constraint: TokenConstraint | None = None,
        prefixes: Prefixes | None = None,
    ) -> TokenScores:
        """Scores without gradients, over as many micro-batches as the token budget asks for; arguments as in a call.

        Returns:
            Scores of the flattened rows, in the order given.
        """
        device = device_of(model)
        turn = min(self.token_budget, _TURN.get(device.type, self.token_budget))
        shared = (self.path or scoring_path(model)) is ScoringPath.SHARED and not is_sharded(model)  # turns are passes, too
        prefixes = prefixes if shared and continues(groups, prefixes) else None
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
            known = None if prefixes is None else prefixes.take(batch)
            if shared and len(batch) == 1 and tokens_of(chosen[0]) > turn and common_prefix([row.ids for row in chosen[0]]):
                scores = score_in_turns(
                    model,
                    chosen[0],
                    turn,
                    temperature=temperature,
                    constraint=constraint,
                    logit_budget=self.logit_budget,
                    prefixes=known,
                )
            else:
                scores = self(model, chosen, temperature=temperature, constraint=constraint, prefixes=known)
            rows = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in batch]).to(device)
            logprobs[rows, : scores.logprobs.shape[1]] = scores.logprobs
            mask[rows, : scores.mask.shape[1]] = scores.mask
        return TokenScores(logprobs, mask, torch.zeros_like(logprobs))


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
