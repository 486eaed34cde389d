"""Standing in for one part of a model inside its own forward pass, so that all it does before and behind the part stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from swirl_lightning.internals import forward_as


def head_of(model: PreTrainedModel) -> nn.Module:
    """The output head.

    Raises:
        ValueError: if the model has none.
    """
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise ValueError(f"{type(model).__name__} has no output head (get_output_embeddings)")
    return head


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """What computes the hidden states that the output head sees."""
    decoder: nn.Module = model.get_decoder()
    if decoder is model or not isinstance(decoder, PreTrainedModel):  # not what it says: Llama 4, ModernBERT's decoder
        decoder = next(child for child in model.children() if isinstance(child, PreTrainedModel))
    return decoder


@contextmanager
def head_at(model: PreTrainedModel, pick: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lets the output head see ``pick(hidden)`` of the final hidden states [batch, tokens, width] alone."""
    head = head_of(model)
    own_forward = head.forward
    with forward_as(head, lambda hidden: own_forward(pick(hidden))):
        yield


class OwnLogits:
    """From hidden states at the output head to logits, by the model's own forward with a decoder that stands still.

    Scales and soft caps behind the head (Granite, Cohere, Gemma) are so applied by the code that defines them.

    Args:
        model: a causal LM.
        head: forward of its output head.
        output: what its decoder returned in the pass under way.
    """

    def __init__(self, model: PreTrainedModel, head: Callable[[Tensor], Tensor], output: Any) -> None:
        self.model, self.head = model, head
        last: Tensor = output[0]
        self.ids = last.new_zeros(1, 1).long()
        self.output = type(output)(last_hidden_state=last[:, :1].detach())

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [u, V] of hidden states [u, width]."""
        decoder, head = decoder_of(self.model), head_of(self.model)
        with forward_as(decoder, lambda *_, **__: self.output), forward_as(head, lambda _: self.head(hidden[None])):
            logits: Tensor = self.model.forward(input_ids=self.ids, use_cache=False).logits  # not its hooks: inside a pass
        return logits[0]
