"""World models from state-only data (SWIRL, arXiv:2602.06130): the public names, each imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from swirl_lightning.algorithm.module import SwirlModule
    from swirl_lightning.algorithm.objectives import GrpoConfig
    from swirl_lightning.algorithm.optimizers import PhaseLR
    from swirl_lightning.algorithm.schedule import PhaseSchedule
    from swirl_lightning.algorithm.settings import RoleSettings
    from swirl_lightning.data import TransitionDataModule, read_transitions, write_transitions
    from swirl_lightning.distributed.checkpointing import AtomicCheckpointIO
    from swirl_lightning.distributed.strategies import ShardedStrategy
    from swirl_lightning.environments import (
        AuroraDataModule,
        BfclDataModule,
        ByteMorphDataModule,
        CrafterDataModule,
        DoorKeyDataModule,
        Mind2WebDataModule,
        MiniGridDataModule,
        MiniGridImageDataModule,
        MiniWobDataModule,
        PicoBananaDataModule,
        ScienceWorldDataModule,
        StableToolBenchDataModule,
        TextWorldExpressDataModule,
        VideoDataModule,
        WorldDataModule,
    )
    from swirl_lightning.rollout import ProcessEngine, RolloutEngine, RolloutRequest, TransformersEngine, VllmEngine
    from swirl_lightning.types import Phase, Role, SamplingParams, Transition, UnlabelledPair
    from swirl_lightning.world_model import LoraSettings, WorldModelConfig
    from swirl_lightning.world_model.new import NewModel
    from swirl_lightning.world_model.prompts import PromptTemplates

__all__ = [
    "AtomicCheckpointIO",
    "AuroraDataModule",
    "BfclDataModule",
    "ByteMorphDataModule",
    "CrafterDataModule",
    "DoorKeyDataModule",
    "GrpoConfig",
    "LoraSettings",
    "Mind2WebDataModule",
    "MiniGridDataModule",
    "MiniGridImageDataModule",
    "MiniWobDataModule",
    "NewModel",
    "Phase",
    "PhaseLR",
    "PhaseSchedule",
    "PicoBananaDataModule",
    "ProcessEngine",
    "PromptTemplates",
    "Role",
    "RoleSettings",
    "RolloutEngine",
    "RolloutRequest",
    "SamplingParams",
    "ScienceWorldDataModule",
    "ShardedStrategy",
    "StableToolBenchDataModule",
    "SwirlModule",
    "TextWorldExpressDataModule",
    "TransformersEngine",
    "Transition",
    "TransitionDataModule",
    "UnlabelledPair",
    "VideoDataModule",
    "VllmEngine",
    "WorldDataModule",
    "WorldModelConfig",
    "read_transitions",
    "write_transitions",
]

_HOMES = {
    "AtomicCheckpointIO": "distributed.checkpointing",
    "GrpoConfig": "algorithm.objectives",
    "LoraSettings": "world_model",
    "NewModel": "world_model.new",
    "Phase": "types",
    "PhaseLR": "algorithm.optimizers",
    "PhaseSchedule": "algorithm.schedule",
    "ProcessEngine": "rollout",
    "PromptTemplates": "world_model.prompts",
    "Role": "types",
    "RoleSettings": "algorithm.settings",
    "RolloutEngine": "rollout",
    "RolloutRequest": "rollout",
    "SamplingParams": "types",
    "ShardedStrategy": "distributed.strategies",
    "SwirlModule": "algorithm.module",
    "TransformersEngine": "rollout",
    "Transition": "types",
    "TransitionDataModule": "data",
    "UnlabelledPair": "types",
    "VllmEngine": "rollout",
    "WorldModelConfig": "world_model",
    "read_transitions": "data",
    "write_transitions": "data",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "environments")  # every other public name is a world's
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
