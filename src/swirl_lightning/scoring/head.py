"""The output head without wasted logits: only at scored positions, in chunks, recomputed in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from swirl_lightning.codecs.base import TokenConstraint
from swirl_lightning.codecs.constraints import mask_for
from swirl_lightning.internals import forward_as
from swirl_lightning.scoring.own_forward import OwnLogits, decoder_of, head_of
from swirl_lightning.scoring.packing import PackedRows

LOGIT_BUDGET = 1 << 26
"""Logits (positions x vocabulary) that may exist at once: 256 MiB in float32."""
_CACHED_LOGITS = 1 << 20  # 4 MiB: on a CPU, logits that stay in its cache cost a fifth of those that do not
_FEWEST_POSITIONS = 128  # but a head of 262k tokens, which no cache holds, is read anew for every chunk


class ScoringHead:
    """Stands in for the output head during one scoring pass and turns hidden states into log-probabilities.

    Args:
        packed: what to score.
        temperature: divides the logits; must equal the sampling temperature where a ratio is formed.
        constraint: tokens that may follow; log-probabilities are renormalised inside it.
        entropy: also compute the entropy of every scored distribution (no gradient).
        logit_budget: positions x vocabulary of one chunk.
    """

    def __init__(
        self,
        packed: PackedRows,
        *,
        temperature: float,
        constraint: TokenConstraint | None,
        entropy: bool,
        logit_budget: int = LOGIT_BUDGET,
    ) -> None:
        self.packed, self.temperature, self.constraint = packed, temperature, constraint
        self.want_entropy, self.logit_budget = entropy, logit_budget
        # one distribution serves every row that continues a shared position, with the same completion so far where that counts
        starts, scale = torch.zeros_like(packed.row), 1
        if constraint is not None and not constraint.static:
            starts = torch.tensor([row.start for row in packed.rows], device=starts.device)[packed.row]  # [S]
            scale = 1 + max((row.start for row in packed.rows), default=0)
        places, self._inverse = torch.unique(packed.source * scale + starts, return_inverse=True)  # [U], [S]
        self._places = places // scale  # [U], ascending
        self.positions = torch.unique_consecutive(self._places)
        self.logprobs: Tensor | None = None  # float32 [S]
        self.entropy: Tensor | None = None  # float32 [S]

    def forward(self, head: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """Scores instead of returning logits.

        Args:
            head: from hidden states [u, width] to logits [u, V].
            hidden: [1, N, width], final hidden states of the flat row.

        Returns:
            A placeholder in the shape of one position's logits; the scores are kept in ``logprobs`` and ``entropy``.
        """
        positions, inverse = self._places, self._inverse
        order = torch.argsort(inverse, stable=True)  # targets of one position lie together
        hidden = hidden[0].index_select(0, positions)  # [U, width]
        firsts = torch.searchsorted(inverse[order], torch.arange(len(positions) + 1, device=hidden.device))  # [U+1]
        bounds: list[int] = firsts.tolist()
        prefixes = self._prefixes(order[firsts[:-1]])
        vocabulary = self._vocabulary(head, hidden)
        size = max(1, self.logit_budget // vocabulary)
        if hidden.device.type == "cpu":
            size = min(size, max(_FEWEST_POSITIONS, _CACHED_LOGITS // vocabulary))
        recompute = torch.is_grad_enabled() and len(positions) * vocabulary > self.logit_budget
        logprobs, entropies = [hidden.new_zeros(0, dtype=torch.float32)], [hidden.new_zeros(0, dtype=torch.float32)]
        for u in range(0, len(positions), size):
            end = min(u + size, len(positions))
            chosen = order[bounds[u] : bounds[end]]
            where, target = inverse[chosen] - u, self.packed.target[chosen]
            mask = self._mask(prefixes[u:end], vocabulary, hidden.device)
            args = (head, hidden[u:end], where, target, mask)
            scores, entropy = checkpoint(self._chunk, *args, use_reentrant=False) if recompute else self._chunk(*args)
            logprobs.append(scores)
            entropies.append(entropy[where])
        back = torch.argsort(order)
        self.logprobs = torch.cat(logprobs)[back]
        self.entropy = torch.cat(entropies)[back]
        return hidden.new_zeros(1, 1, vocabulary)

    def _chunk(
        self, head: Callable[[Tensor], Tensor], hidden: Tensor, where: Tensor, target: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities [s] of targets at chunk positions ``where`` [s], entropies [u] of the positions."""
        logits = head(hidden).float()  # [u, V]
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf)
        if self.temperature != 1.0:
            logits = logits / self.temperature
        scores, entropy = _Selected.apply(logits, where, target, self.want_entropy)  # type: ignore[no-untyped-call]
        return scores, entropy

    def _prefixes(self, firsts: Tensor) -> list[tuple[int, ...]]:
        """Completions before each of U positions, whose first targets are ``firsts`` [U]; none where they do not count."""
        if self.constraint is None or self.constraint.static:
            return []
        places = zip(self.packed.row[firsts].tolist(), self.packed.offset[firsts].tolist(), strict=True)
        rows = [(self.packed.rows[row], offset) for row, offset in places]
        return [row.ids[row.start : row.start + offset] for row, offset in rows]

    def _mask(self, prefixes: Sequence[tuple[int, ...]], width: int, device: torch.device) -> Tensor | None:
        """Allowed tokens of chunk positions: None, [1, V] for a static constraint, [u, V] otherwise."""
        if self.constraint is None:
            return None
        return mask_for(self.constraint, [()] if self.constraint.static else prefixes, device, width=width)

    @staticmethod
    def _vocabulary(head: Callable[[Tensor], Tensor], hidden: Tensor) -> int:
        with torch.no_grad():
            return int(head(hidden[:1]).shape[-1])


class _Selected(torch.autograd.Function):
    """Log-softmax at chosen places, with its entropies: one buffer of the size of the logits is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, where: Tensor, target: Tensor, want_entropy: bool) -> tuple[Tensor, Tensor]:
        logprobs = torch.log_softmax(logits, dim=-1)  # [u, V]
        entropy = logprobs.new_zeros(len(logprobs))
        if want_entropy:  # -inf * 0 must be 0
            entropy = -(logprobs.exp() * logprobs.clamp(min=-1e30)).sum(-1)
        ctx.save_for_backward(logprobs, where, target)
        ctx.mark_non_differentiable(entropy)
        return logprobs[where, target], entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logprobs, where, target = ctx.saved_tensors
        total = torch.zeros(len(logprobs), dtype=grad.dtype, device=grad.device).index_add_(0, where, grad)  # [u]
        logits = logprobs.exp().mul_(-total[:, None])  # d log p_target = onehot - p
        return logits.index_put_((where, target), grad, accumulate=True), None, None, None


@contextmanager
def scoring_through(model: PreTrainedModel, head: ScoringHead) -> Iterator[None]:
    """Lets ``head`` see the final hidden states of ``model`` instead of its output head, inside the model's own forward.

    Going through the model's forward (rather than calling the decoder) keeps the hooks of FSDP and of adapters in force.

    Raises:
        ValueError: if the model has no output head.
    """
    module = head_of(model)
    outputs: list[Any] = []
    handle = decoder_of(model).register_forward_hook(lambda _, __, output: outputs.append(output))
    own_forward = module.forward
    try:
        with forward_as(module, lambda hidden: head.forward(OwnLogits(model, own_forward, outputs.pop()), hidden)):
            yield
    finally:
        handle.remove()
