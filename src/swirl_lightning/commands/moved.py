"""Names of earlier versions, of classes and options: run folders and configurations that hold them keep working."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from swirl_lightning.commands.overlays import with_configs

MOVED = {  # module of an earlier version: where its names are now
    "swirl_lightning.benchmarks": "swirl_lightning.evaluation",
    "swirl_lightning.checkpointing": "swirl_lightning.distributed.checkpointing",
    "swirl_lightning.data.aurora": "swirl_lightning.environments.visual.aurora",
    "swirl_lightning.data.bfcl": "swirl_lightning.environments.tools.bfcl",
    "swirl_lightning.data.bytemorph": "swirl_lightning.environments.visual.bytemorph",
    "swirl_lightning.data.crafter": "swirl_lightning.environments.visual.crafter",
    "swirl_lightning.data.doorkey": "swirl_lightning.environments.text.doorkey",
    "swirl_lightning.data.frames": "swirl_lightning.codec_training.frames",
    "swirl_lightning.data.mind2web": "swirl_lightning.environments.web.mind2web",
    "swirl_lightning.data.minigrid": "swirl_lightning.environments.text.minigrid",
    "swirl_lightning.data.minigrid_images": "swirl_lightning.environments.visual.minigrid_images",
    "swirl_lightning.data.miniwob": "swirl_lightning.environments.web.miniwob",
    "swirl_lightning.data.pico_banana": "swirl_lightning.environments.visual.pico_banana",
    "swirl_lightning.data.scienceworld": "swirl_lightning.environments.text.scienceworld",
    "swirl_lightning.data.stabletoolbench": "swirl_lightning.environments.tools.stabletoolbench",
    "swirl_lightning.data.textworldexpress": "swirl_lightning.environments.text.textworldexpress",
    "swirl_lightning.data.world_prediction": "swirl_lightning.environments.visual.world_prediction",
    "swirl_lightning.inference": "swirl_lightning.world_model.inference",
    "swirl_lightning.module": "swirl_lightning.algorithm.module",
    "swirl_lightning.optim": "swirl_lightning.algorithm.optimizers",
    "swirl_lightning.prompts": "swirl_lightning.world_model.prompts",
    "swirl_lightning.schedule": "swirl_lightning.algorithm.schedule",
    "swirl_lightning.settings": "swirl_lightning.algorithm.settings",
    "swirl_lightning.strategies": "swirl_lightning.distributed.strategies",
}


def renamed(config: Any) -> Any:
    """A configuration in which classes and options have the names that they have today.

    Args:
        config: As YAML holds it; changed nowhere.
    """
    if isinstance(config, dict):
        return {key: renamed(value) for key, value in _with_parts_of_the_reward(config).items()}
    if isinstance(config, list):
        return [renamed(value) for value in config]
    if isinstance(config, str):
        module, _, name = config.rpartition(".")
        return f"{MOVED[module]}.{name}" if module in MOVED else config
    return config


def _with_parts_of_the_reward(config: dict[str, Any]) -> dict[str, Any]:
    """A role's settings in which ``reward`` and ``reward_floor`` are what they are now: a part of its rewards."""
    judge = {new: config[old] for old, new in (("reward", "reduce"), ("reward_floor", "floor")) if old in config}
    if judge.get("reduce", "mean") not in ("mean", "sum") or not judge:
        return config
    rest = {key: value for key, value in config.items() if key not in ("reward", "reward_floor")}
    if {"reduce": "mean", "floor": -10.0} | judge == {"reduce": "mean", "floor": -10.0}:
        return rest  # the paper's, as when nothing is said
    return rest | {
        "rewards": [{"reward": {"class_path": "swirl_lightning.algorithm.rewards.JudgeLogprob", "init_args": judge}}]
    }


def with_names_of_today(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command in which a configuration with old names is replaced by its text with the new ones.

    Args:
        arguments: Arguments of the command; ``--config FILE`` or ``--config=FILE``.
    """
    return with_configs(arguments, _today)


def _today(value: str) -> str:
    text = Path(value).read_text(encoding="utf-8") if os.path.isfile(value) else value
    config = yaml.safe_load(text)
    new = renamed(config)
    return value if new == config else str(yaml.safe_dump(new, sort_keys=False))
