"""Rollout engines: prompts in, groups of completions out."""

from swirl_lightning.rollout.base import RolloutEngine
from swirl_lightning.rollout.sampler import TransformersEngine
from swirl_lightning.rollout.vllm import VllmEngine

__all__ = ["RolloutEngine", "TransformersEngine", "VllmEngine"]
