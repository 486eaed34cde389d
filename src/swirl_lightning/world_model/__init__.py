"""The pair of world models: storage, loading, scoring."""

from swirl_lightning.scoring.scorer import CausalScorer, ScoringPath
from swirl_lightning.world_model.pair import JUDGE, REFERENCE, LoraSettings, WorldModel, WorldModelConfig

__all__ = ["JUDGE", "REFERENCE", "CausalScorer", "LoraSettings", "ScoringPath", "WorldModel", "WorldModelConfig"]
