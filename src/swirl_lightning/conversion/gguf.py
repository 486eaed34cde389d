"""GGUF files (llama.cpp's format) as ordinary model folders."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from swirl_lightning.hints import require


def convert_gguf(file: Path, out: Path) -> Path:
    """Write the dequantised model and its tokenizer as a Hugging Face folder, a base for ``model.world_model.base``.

    Args:
        file: the .gguf file of a causal LM that transformers can read.
        out: folder to write: safetensors in float32, configuration, tokenizer.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a GGUF file, or of an architecture that transformers cannot read.
        ImportError: if the package gguf is missing.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {str(file)!r}")
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ValueError(f"{file} is not a GGUF file: it does not begin with the letters GGUF")
    require("gguf", "gguf")
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    assert isinstance(model, PreTrainedModel)
    # its weights are whole numbers of float32 now, though transformers still calls the model quantised and would not save it
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None  # type: ignore[assignment]
    model.save_pretrained(str(out), safe_serialization=True)
    AutoTokenizer.from_pretrained(**place).save_pretrained(str(out))
    return out
