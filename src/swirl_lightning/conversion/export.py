"""Export of a role as an ordinary Hugging Face folder, loadable by ``transformers`` with no code of ours."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swirl_lightning.internals import PeftModel, attention_named
from swirl_lightning.types import Role, SamplingParams
from swirl_lightning.world_model.adapters import merged
from swirl_lightning.world_model.inference import Inference
from swirl_lightning.world_model.prompts import PromptTemplates

RECIPE = "swirl.json"  # beside the weights: how this role is prompted and sampled


def export_role(inference: Inference, role: Role, folder: str | Path, *, adapter_only: bool = False) -> Path:
    """Writes a role's weights (safetensors), tokenizer and prompts. Of sharded models, every rank must call it; rank 0 writes.

    Args:
        inference: the built models with their prompts.
        role: which one.
        folder: where to; made if missing.
        adapter_only: with ``adapters`` storage, write the LoRA adapter instead of a merged model (in float32).

    Returns:
        The folder.

    Raises:
        ValueError: if there is no adapter to write, or if merging it would change what the model computes.
    """
    folder = Path(folder)
    world_model = inference.world_model
    if world_model.sharding is not None:
        gathered = world_model.gather(role)
        if gathered is None:
            return folder
        world_model = gathered
    folder.mkdir(parents=True, exist_ok=True)
    model = world_model.causal_lm(role)
    if world_model.config.storage == "adapters":
        peft_model = world_model.models["base"]
        assert isinstance(peft_model, PeftModel)
        if adapter_only:
            name = str(peft_model.active_adapter)
            peft_model.save_pretrained(str(folder), selected_adapters=[name])
            for file in (folder / name).iterdir():  # peft writes a folder per adapter that is not called "default"
                file.replace(folder / file.name)
            (folder / name).rmdir()
        else:
            _save(merged(peft_model), folder)
    elif adapter_only:
        raise ValueError(f"storage {world_model.config.storage!r} has no adapters; leave adapter_only off")
    else:
        _save(model, folder)
    inference.codec.save_pretrained(folder)
    recipe = {
        "role": role.value,
        "prompts": asdict(inference.prompts.templates),
        "max_prompt_tokens": inference.prompts.max_prompt_tokens,
        "sampling": asdict(inference.sampling[role]),
    }
    (folder / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return folder


def _save(model: Any, folder: Path) -> None:
    """Saves a causal LM with an attention name that any ``transformers`` knows."""
    with attention_named(model.config, "sdpa"):
        model.save_pretrained(str(folder))


def read_recipe(folder: str | Path, role: Role) -> tuple[PromptTemplates, int, SamplingParams]:
    """Prompts, prompt limit and sampling that an exported folder was trained with.

    Args:
        folder: written by ``swirl export``.
        role: that the model must have.

    Raises:
        FileNotFoundError: if the folder was not written by ``swirl export``.
        ValueError: if it holds the model of the other role.
    """
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a folder written by `swirl export` (it says how to prompt the model)")
    recipe: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (found := recipe.get("role", role.value)) != role.value:
        raise ValueError(f"{folder} holds an {found.upper()} ({RECIPE} says so), but an {role.value.upper()} is needed here")
    return PromptTemplates(**recipe["prompts"]), int(recipe["max_prompt_tokens"]), SamplingParams(**recipe["sampling"])
