"""Loading of causal language models: hub names, local folders, or a folder that holds only a configuration."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import CONFIG_NAME

from swirl_lightning.hints import did_you_mean

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def resolve_dtype(dtype: str) -> torch.dtype:
    """``auto`` is float32: of the updates that a learning rate of 1e-6 makes, bfloat16 weights lose nearly all."""
    return {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def without_weights() -> AbstractContextManager[None]:
    """Modules made inside have parameters on the meta device, buffers where they are."""
    context: AbstractContextManager[None] = init_empty_weights(include_buffers=False)
    return context


def load_causal_lm(
    base: str, *, dtype: str = "auto", trust_remote_code: bool = False, seed: int = 0, empty: bool = False
) -> PreTrainedModel:
    """Loads a causal LM, or initialises one at random where a local folder holds no weights.

    Args:
        base: hub name or local folder.
        dtype: ``auto``, ``float32`` or ``bfloat16``.
        trust_remote_code: run code that comes with the checkpoint.
        seed: of a random initialisation; the global generator is left as it was.
        empty: parameters on the meta device, nothing is read but the configuration.

    Returns:
        The model, in eval mode.

    Raises:
        FileNotFoundError: if there is no such folder, and on the hub no such model.
        ValueError: if the folder holds pickled weights only, or no causal LM.
    """
    torch_dtype = resolve_dtype(dtype)
    check_base(base)
    config = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
    kind, folder = kind_of(config, base), Path(base)
    made = {"config": config, "dtype": torch_dtype, "trust_remote_code": trust_remote_code}
    if empty:
        with without_weights():
            model = kind.from_config(**made)  # type: ignore[no-untyped-call]
        model.tie_weights()  # making parameters anew has untied them
    elif not folder.is_dir() or any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
        model = kind.from_pretrained(base, use_safetensors=True, **made)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = kind.from_config(**made)  # type: ignore[no-untyped-call]
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model


def kind_of(config: PretrainedConfig, base: str) -> type[AutoModelForCausalLM | AutoModelForImageTextToText]:
    """What loads a model: a causal LM, or a vision-language model, of which the language model is used.

    Raises:
        ValueError: if it is neither.
    """
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return AutoModelForCausalLM
    if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return AutoModelForImageTextToText
    if getattr(config, "auto_map", None):  # code of its own
        return AutoModelForCausalLM
    raise ValueError(
        f"world_model.base: {base!r} is a model of type {config.model_type!r}, which does not write text from left to right; "
        "give a causal language model"
    )


def compile_between_attention(model: PreTrainedModel) -> None:
    """Compiles the norms and MLPs of all layers in place; attention, whose layouts change with every batch, stays as it is.

    Args:
        model: a causal LM; nothing is compiled before its first forward pass.

    Raises:
        FileNotFoundError: on a CPU without a C++ compiler.
        ValueError: if the architecture does not mark its layers.
    """
    compiler = os.environ.get("CXX", "g++")
    if not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise FileNotFoundError(
            f"world_model.compile needs a C++ compiler here and {compiler} is not on PATH: install one (or set CXX)"
        )
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    parts = [
        child for layer in layers for child in layer.children() if not any(hasattr(m, "layer_idx") for m in child.modules())
    ]
    if not parts:
        raise ValueError(f"world_model.compile: {type(model).__name__} does not mark its layers; leave it off")
    for part in parts:
        part.compile(dynamic=True)


def check_base(base: str, option: str = "world_model.base") -> None:
    """Looks at a local folder, or at the configuration of a hub name, without loading a model.

    Args:
        base: hub name or local folder.
        option: that it was given as.

    Raises:
        FileNotFoundError: if there is no such folder, and on the hub no such model.
        ValueError: if the folder holds pickled weights only, or no causal LM.
    """
    folder = Path(base)
    if not folder.is_dir():
        check_hub_name(base, option)
        try:
            hf_hub_download(base, CONFIG_NAME)
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            why = str(error).strip().partition("\n")[0]
            raise FileNotFoundError(f"{option}: {base!r} is no folder here, and the hub does not give it: {why}") from error
        return
    if not (folder / CONFIG_NAME).is_file():
        adapter = " It holds a LoRA adapter: give its base model." if (folder / "adapter_config.json").is_file() else ""
        raise ValueError(f"{option}: {base!r} has no config.json, so it is not a model folder.{adapter}")
    safe = any(next(folder.glob(pattern), None) for pattern in _WEIGHTS)
    if not safe and (next(folder.glob("*.bin"), None) or next(folder.glob("*.pt"), None)):
        raise ValueError(
            f"{option}: {base!r} holds pickled weights only, which can run code when loaded; convert them to safetensors first"
        )


def check_hub_name(name: str, option: str) -> None:
    """What was meant as a local folder never goes to the hub: a hub name is ``owner/name``, or in the hub's cache already.

    Args:
        name: of a model or tokenizer that is no folder.
        option: that it was given as.

    Raises:
        FileNotFoundError: naming the nearest model folder.
    """
    path = Path(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.parent.is_dir():
        return
    if "/" not in name and isinstance(try_to_load_from_cache(name, CONFIG_NAME), str):
        return
    there = [str(file.parent) for file in path.parent.glob(f"*/{CONFIG_NAME}")]
    raise FileNotFoundError(
        f"{option}: there is no folder {name!r}{did_you_mean(name, there, listed=False) or ';'} "
        "a model of the hub is named owner/name, and swirl init makes a new one"
    )
