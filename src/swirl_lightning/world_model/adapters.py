"""LoRA adapters, one a role, on one frozen base (arXiv:2106.09685)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swirl_lightning.internals import LoraConfig, LoraLayer, PeftModel, adapter_key, get_peft_model
from swirl_lightning.scoring.self_check import rows_of_embedding

_EXPECTED_WARNINGS = (  # of peft
    ".*`is_gradient_checkpointing` is deprecated",  # which asks transformers by the old name
    ".*`tie_word_embeddings=True` and a tied layer is part of the adapter",  # a merge unties it
    ".*(rank|alpha)_pattern keys did not match any targeted module",  # its own, for experts
    ".*fan_in_fan_out is set to False but the target module is `Conv1D`",  # and it sets it
)
_MERGED = 1e-5  # largest difference of logits that rounding explains, in units of the largest logit or of 1


@dataclass(frozen=True)
class LoraSettings:
    """LoRA adapters of the ``adapters`` storage, one a role.

    Attributes:
        r: Rank.
        alpha: Scale; updates are multiplied by ``alpha / r``.
        dropout: Dropout on the adapter's input.
        target_modules: Names of the layers that get an adapter; ``all-linear`` are all but the output head. What text does
            not go through, e.g. a vision tower, never gets one.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"

    def to_peft(self, base: PreTrainedModel) -> LoraConfig:
        """The same settings for peft."""
        modules = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=modules,
            exclude_modules=_beside_the_text(base) or None,
            task_type="CAUSAL_LM",
        )


def _beside_the_text(model: PreTrainedModel) -> list[str]:
    """Layers that text does not go through: no step would train an adapter there."""
    parts = (model.get_decoder(), model.get_input_embeddings(), model.get_output_embeddings())
    inside = {module for part in parts if isinstance(part, nn.Module) for module in part.modules()}
    leaves = ((name, module) for name, module in model.named_modules() if not any(True for _ in module.children()))
    return [name for name, module in leaves if module not in inside and any(True for _ in module.parameters())]


def with_adapters(base: PreTrainedModel, settings: LoraSettings, names: Sequence[str], source: str) -> PeftModel:
    """Puts an adapter of each name on a model, which is frozen.

    Args:
        base: is changed.
        settings: of every adapter.
        names: of the adapters.
        source: what the base was loaded from, for messages.

    Returns:
        The model, its first adapter active.

    Raises:
        ValueError: if the target modules do not fit, or give tensors that belong to no adapter of these.
    """
    try:
        with warnings.catch_warnings():
            for known in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=known)
            model = get_peft_model(base, settings.to_peft(base), adapter_name=names[0])
            for name in names[1:]:
                model.add_adapter(name, settings.to_peft(base))
    except ValueError as error:
        raise ValueError(
            f"world_model.lora.target_modules={settings.target_modules!r} does not fit {source!r}: {error}"
        ) from error
    assert isinstance(model, PeftModel)
    strays = [
        key for key, _ in model.named_parameters() if ".lora_" in key and sum(bool(adapter_key(key, n)) for n in names) != 1
    ]
    if strays:
        raise ValueError(
            f"world_model.lora.target_modules={settings.target_modules!r}: {strays[0]} belongs to no role, so it would never "
            "be trained; choose other modules"
        )
    return model


@torch.no_grad()
def merged(model: PeftModel) -> PreTrainedModel:
    """A float32 copy of the base to which the updates of the active adapter are added.

    Where an end of the model has an adapter and shares its weight with the other end, the two are untied first.

    Raises:
        ValueError: if the copy does not compute what model and adapter compute.
    """
    name = str(model.active_adapter)
    whole = copy.deepcopy(model).float().eval()
    whole.set_adapter(name)
    base = whole.get_base_model()
    assert isinstance(base, PreTrainedModel)
    _untie(base)
    expected = _some_logits(base)
    lm = whole.merge_and_unload()
    assert isinstance(lm, PreTrainedModel)
    difference = float((_some_logits(lm) - expected).abs().max() / expected.abs().max().clamp(min=1))
    if not difference <= _MERGED:
        raise ValueError(
            f"adding the adapter {name!r} to the base changes logits by {difference:.2g} of their size, so the merged model "
            "would not be the trained one; export with --adapter_only true"
        )
    return lm


def _untie(model: PreTrainedModel) -> None:
    """Gives the output head a weight of its own where an adapter changes one end of a tied model."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if not any(isinstance(end, LoraLayer) for end in ends):
        return
    first, last = (end.get_base_layer() if isinstance(end, LoraLayer) else end for end in ends)
    if first.weight is last.weight:
        last.weight = nn.Parameter(last.weight.clone(), requires_grad=False)
        for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
            config.tie_word_embeddings = False


def _some_logits(model: PreTrainedModel) -> Tensor:
    """Logits [1, 16, V] of a made-up text, by the model's own forward pass."""
    ids = (torch.arange(16, device=model.device) * 7919 + 3) % rows_of_embedding(model)
    logits: Tensor = model(input_ids=ids[None], use_cache=False).logits
    return logits
