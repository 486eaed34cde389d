"""Rollout engines: prompts in, groups of completions out."""

from swirl_lightning.rollout.base import RolloutEngine, RolloutRequest
from swirl_lightning.rollout.process import ProcessEngine
from swirl_lightning.rollout.sampler import TransformersEngine
from swirl_lightning.rollout.vllm import VllmEngine

__all__ = ["ProcessEngine", "RolloutEngine", "RolloutRequest", "TransformersEngine", "VllmEngine"]
