"""The pair of world models: storage, loading, scoring."""

from swirl_lightning.world_model.pair import JUDGE, REFERENCE, LoraSettings, WorldModel, WorldModelConfig
from swirl_lightning.world_model.scorer import CausalScorer, ScoringPath

__all__ = ["JUDGE", "REFERENCE", "CausalScorer", "LoraSettings", "ScoringPath", "WorldModel", "WorldModelConfig"]
