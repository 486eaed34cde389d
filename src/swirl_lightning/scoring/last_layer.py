"""The last layer, computed only where something is scored: after its keys and values, nothing looks at the other tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from swirl_lightning.internals import forward_as, is_compiled
from swirl_lightning.scoring.attention import PackedLayout

_MOST = 0.9  # share of the tokens above which picking them costs what it saves


@contextmanager
def last_layer_at(model: PreTrainedModel, layout: PackedLayout, positions: Tensor) -> Iterator[None]:
    """Makes the last layer skip tokens inside the ``with``: its MLP computes ``positions`` alone, its attention their queries.

    Hidden states elsewhere are wrong and must not be used. Where the architecture does not mark its layers or has no
    ``mlp``, and where that is compiled or is going to be computed again by gradient checkpointing, nothing is skipped of it.

    Args:
        model: a causal LM that takes ``layout``.
        layout: of the forward pass inside the ``with``.
        positions: int64 [U], distinct flat tokens whose final hidden states are needed.
    """
    layers = [module for module in model.get_decoder().modules() if isinstance(module, GradientCheckpointingLayer)]
    layout.skip_queries(model.config.get_text_config().num_hidden_layers - 1, positions)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    if mlp is None or _computed_anew(layers[-1]) or is_compiled(mlp):
        yield
        return
    own_forward = mlp.forward

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The MLP of [..., N, width] at the positions, zeros elsewhere; what routers return beside it stays as it is."""
        if args or kwargs or len(positions) > _MOST * hidden.shape[-2]:
            return own_forward(hidden, *args, **kwargs)
        found = own_forward(hidden.index_select(-2, positions))
        out, rest = (found[0], found[1:]) if isinstance(found, tuple) else (found, None)
        out = out.new_zeros(hidden.shape).index_copy(-2, positions, out)
        return out if rest is None else (out, *rest)

    with forward_as(mlp, forward):
        yield


def _computed_anew(layer: nn.Module) -> bool:
    return bool(layer.gradient_checkpointing) and layer.training and torch.is_grad_enabled()
