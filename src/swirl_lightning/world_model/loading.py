"""Causal language models by hub name, local folder or configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from swirl_lightning.world_model.attention import NAME as SWIRL_ATTENTION


def load_causal_lm(model: str | Mapping[str, Any], *, vocab_size: int, dtype: str = "float32") -> PreTrainedModel:
    """Loads a pretrained model, or makes one with random weights from a configuration.

    Dropout is set to zero: policy-gradient ratios compare the same network before and after a step.

    Args:
        model: hub name or local folder; or a configuration such as ``{"model_type": "llama", "hidden_size": 96, ...}``.
        vocab_size: tokens of the codec; a configuration without ``vocab_size`` gets it.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ValueError: if the configuration names no model type, or the model has fewer embeddings than the codec has tokens.
        FileNotFoundError: if ``model`` looks like a folder that does not exist.
    """
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise ValueError(f"model dtype {dtype!r} is unknown: use float32, bfloat16 or float16")
    if isinstance(model, str):
        if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
            raise FileNotFoundError(f"model folder {model!r} does not exist")
        source = str(Path(model).expanduser()) if model.startswith("~") else model
        config = _without_dropout(AutoConfig.from_pretrained(source))
        make = partial(AutoModelForCausalLM.from_pretrained, source, config=config, dtype=torch_dtype)
    else:
        make = partial(AutoModelForCausalLM.from_config, _config(model, vocab_size), dtype=torch_dtype)
    try:
        loaded = make(attn_implementation=SWIRL_ATTENTION)
    except ValueError as error:  # soft-capped attention and the like exist as eager code only
        if "attention implementation" not in str(error):
            raise
        loaded = make(attn_implementation="eager")
    embeddings = loaded.get_input_embeddings().num_embeddings
    if embeddings < vocab_size:
        raise ValueError(
            f"the tokenizer has {vocab_size} tokens but model {model!r} only {embeddings} embeddings: "
            "they do not belong together"
        )
    result: PreTrainedModel = loaded
    return result


def _config(fields: Mapping[str, Any], vocab_size: int) -> PretrainedConfig:
    values = {"vocab_size": vocab_size, **fields}
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise ValueError(f"a model configuration needs `model_type` (llama, qwen2, ...); got the fields {sorted(fields)}")
    config: PretrainedConfig = AutoConfig.for_model(model_type, **values)
    return _without_dropout(config)


def _without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    for name, value in vars(config).items():
        if isinstance(value, float) and (name.endswith(("dropout", "pdrop", "dropout_prob"))):
            setattr(config, name, 0.0)
    return config
