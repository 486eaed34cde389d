"""Export of a role as an ordinary Hugging Face folder, loadable by ``transformers`` with no code of ours."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from swirl_lightning.prompts import PromptTemplates
from swirl_lightning.runtime import Runtime
from swirl_lightning.types import Role, SamplingParams
from swirl_lightning.world_model.pair import WorldModel

RECIPE = "swirl.json"  # beside the weights: how this role is prompted and sampled


def export_role(runtime: Runtime, role: Role, folder: str | Path, *, merge: bool = True) -> Path:
    """Writes a role's weights, tokenizer and prompts.

    Args:
        runtime: the built models.
        role: which one.
        folder: where to; made if missing.
        merge: with adapters, merge the role's adapter into a copy of the base; otherwise write the adapter only.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world_model = runtime.world_model
    if world_model.storage == "adapters" and not merge:
        with world_model.use(role) as scorer:
            scorer.model.set_adapter(role.value)
            flags = [(p, p.requires_grad) for p in scorer.parameters()]
            scorer.model.save_pretrained(folder)
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
    else:
        model = _merged(world_model, role)
        model.save_pretrained(folder)
    runtime.prompts.codec.tokenizer.save_pretrained(str(folder))
    recipe = {
        "role": role.value,
        "prompts": asdict(runtime.prompts.templates),
        "max_prompt_tokens": runtime.prompts.max_prompt_tokens,
        "sampling": asdict(runtime.sampling[role]),
    }
    (folder / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return folder


def read_recipe(folder: str | Path) -> tuple[PromptTemplates, int, SamplingParams]:
    """Prompts, prompt limit and sampling that an exported folder was trained with.

    Raises:
        FileNotFoundError: if the folder was not written by ``swirl export``.
    """
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a folder written by `swirl export` (it says how to prompt the model)")
    recipe: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return PromptTemplates(**recipe["prompts"]), int(recipe["max_prompt_tokens"]), SamplingParams(**recipe["sampling"])


def _merged(world_model: WorldModel, role: Role) -> PreTrainedModel:
    with world_model.use(role) as scorer:
        if world_model.storage != "adapters":
            return scorer.model
        model = copy.deepcopy(scorer.model)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(adapter_names=[role.value])
            parent_name, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent_name), leaf, module.get_base_layer())
    model._hf_peft_config_loaded = False
    return model
