"""The pair of world models: storage, loading, scoring."""

from swirl_lightning.world_model.pair import REFERENCE, LoraSettings, WorldModel, WorldModelConfig
from swirl_lightning.world_model.scorer import CausalScorer, ScoringPath

__all__ = ["REFERENCE", "CausalScorer", "LoraSettings", "ScoringPath", "WorldModel", "WorldModelConfig"]
