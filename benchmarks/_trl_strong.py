"""The strong peer: what a user of TRL can put together to share prefixes, with packages and public parts.

The training pass and the reference go through prefix-grouper (arXiv:2506.05433), the output head through TRL's own chunked
kernel at completion tokens alone. The reward prefills a group's state once and scores the members on its repeated cache.
Rollouts are TRL's: ``generate`` prefills every row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import _shapes
import torch
import torch.nn.functional as F
from prefix_grouper import PrefixGrouper
from prefix_grouper.forward import AttentionForward
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from trl import GRPOTrainer
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import selective_log_softmax

ATTENTION = "prefix_grouper_sdpa"


def _attend(query: Tensor, key: Tensor, value: Tensor, keep: Tensor, scaling: float) -> Tensor:
    """SDPA of the last Q of T tokens [B, heads, T, head_dim] where ``keep`` [B, T]; [B, Q, heads, head_dim]."""
    (queries, length), whole = (query.shape[2], key.shape[2]), bool(keep.all())
    options: dict[str, Any] = {"scale": scaling, "enable_gqa": True}
    if queries == length and whole:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, **options).transpose(1, 2)
    mask = torch.ones(queries, length, dtype=torch.bool, device=query.device).tril(length - queries)[None, None]
    if not whole:  # a padded query sees itself, so that its softmax is defined
        mask = mask & keep[:, None, None] | torch.eye(length, dtype=torch.bool, device=query.device)[length - queries :]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **options).transpose(1, 2)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    prefix_grouper: PrefixGrouper | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Grouped where a grouper is given, the model's own SDPA where it generates."""
    if prefix_grouper is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    return AttentionForward(_attend)(prefix_grouper, query, key, value, scaling), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class GroupedTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL has no types
    """``GRPOTrainer`` whose passes over prompts and completions compute equal prompts once."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ref_model):
            model.set_attn_implementation(ATTENTION)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **options: Any
    ) -> tuple[Tensor, Tensor, None]:
        """Log-probabilities and entropies of completions, [N, logits_to_keep] each; 0 where padded."""
        prompts, prompt_mask = (x[:, :-logits_to_keep] for x in (input_ids, attention_mask))
        _, group = torch.unique(prompts, dim=0, return_inverse=True)  # the rows come shuffled
        order = torch.argsort(group, stable=True)
        sizes = torch.bincount(group)
        first = order[sizes.cumsum(0) - sizes]  # a row of each group
        completions, mask = (x[order, -logits_to_keep:] for x in (input_ids, attention_mask))
        grouper = PrefixGrouper.from_ungrouped_masks(prompt_mask[first], mask, sizes.tolist(), device=input_ids.device)
        with self.accelerator.autocast():
            hidden = model.model(
                input_ids=grouper.concat_input(prompts[first], prompt_mask[first], completions, mask),
                position_ids=_positions(grouper),
                attention_mask={"full_attention": None},  # prefix-grouper makes its own
                prefix_grouper=grouper,
                use_cache=False,
            ).last_hidden_state
            _, _, hidden, _ = grouper.split_output(hidden, include_prefix_last=1)
            hidden = hidden[:, :-1]  # [N, t, width], before each token
            targets = PrefixGrouper.convert_padding(completions, mask)[:, : hidden.shape[1]]
            weight, done = model.lm_head.weight, ("log_probs", "entropy")
            args = (hidden.flatten(0, 1), weight, None, targets.flatten(), self.temperature, 32768, None, 1.0, done)
            found = [x.view(targets.shape) for x in ChunkedLogProbFunction.apply(*args)[:2]]
        back = torch.argsort(order)
        kept = mask[:, : hidden.shape[1]].bool()
        logps, entropies = (F.pad(x * kept, (0, logits_to_keep - x.shape[1]))[back] for x in found)
        return logps, entropies, None


def _positions(grouper: PrefixGrouper) -> Tensor:
    """Position ids [B, T] of the concatenated rows, restarted for every member."""
    positions = torch.zeros(grouper.padding_mask.shape, dtype=torch.int64, device=grouper.padding_mask.device)
    for row, info in zip(positions, grouper.group_info, strict=True):
        parts = [torch.arange(info.prefix_len), *(info.prefix_len + torch.arange(n) for n in info.suffix_lens)]
        row[: info.total_len] = torch.cat(parts)
    return positions


def judge_reward(shape: _shapes.Shape, judge: PreTrainedModel, tokenizer: Any) -> Callable[..., list[float]]:
    """Mean log-probability per token under the judge: a group's state once, its members on the repeated cache."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text)["input_ids"]
        return ids

    @torch.no_grad()
    def reward(completion_ids: list[list[int]], **columns: list[str]) -> list[float]:
        scores: list[float] = []
        for at in range(0, len(completion_ids), shape.group):
            members = completion_ids[at : at + shape.group]
            state = torch.tensor([encode(columns["state"][at])], device=judge.device)
            answer = columns["next_state" if shape.phase == "idm" else "action"][at]
            target = torch.tensor([[*encode(answer), _shapes.EOS]], device=judge.device).expand(len(members), -1)
            cache = DynamicCache(config=judge.config)
            judge.model(input_ids=state, past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(members))
            tails = torch.cat([torch.tensor(members, device=judge.device), target], dim=1)  # equal lengths: no padding
            out = judge(input_ids=tails, past_key_values=cache, logits_to_keep=target.shape[1] + 1)
            mean = selective_log_softmax(out.logits[:, :-1], target).mean(-1)
            scores += mean.clamp(min=_shapes.CLAMP).tolist()
        return scores

    return reward
