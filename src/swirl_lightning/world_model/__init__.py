"""The pair of world models: storage, loading, scoring."""

# from swirl_lightning.world_model.pair import LoraSettings, WorldModel
from swirl_lightning.world_model.scorer import CausalScorer, ScoringPath, score_groups

__all__ = ["CausalScorer", "LoraSettings", "ScoringPath", "WorldModel", "score_groups"]
